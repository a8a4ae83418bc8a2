"""A run at work: steps, evaluations, checkpoints.

`distil.py` prepares a session and finishes it; what happens in between is here.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch

from potstill.config.run import Run
from potstill.diagnosis import read_curves, step_to_keep
from potstill.run_dir import RunDir
from potstill.training import checkpoint
from potstill.training.feeding import Feeder
from potstill.training.loop import Stopwatch, Trainer, precision
from potstill.training.monitor import Monitor
from potstill.training.parallel import World, barrier, in_shards
from potstill.training.show import Show
from potstill.training.signals import Stop, Stopped
from potstill.training.stages import Models
from potstill.training.texts import SampleTexts
from potstill.training.trackers import Trackers


@dataclass
class Session:
    """The parts of a run at work."""

    run: RunDir
    config: Run
    world: World
    show: Show
    stop: Stop
    models: Models
    trainer: Trainer
    monitor: Monitor
    texts: SampleTexts
    clock: Stopwatch
    trackers: Trackers
    feeder: Feeder


def train(session: Session, answer_alarm: Callable[[Session], bool]) -> None:
    """All steps from where the trainer stands, with evaluations and checkpoints between.

    `answer_alarm` is asked after every evaluation; it may change what feeds the run, and says whether to end it.
    """
    trainer, config, run = session.trainer, session.config, session.run
    if trainer.step == 0:
        evaluate(session)
    steps = config.training.steps
    early = answer_alarm(session)
    with session.show.bar("training", steps, trainer.step) as bar:
        while trainer.step < steps and not early:
            if session.feeder.prepare(trainer.step, trainer.student):
                session.clock.lap("sampling")
            metrics = trainer.train_step(session.stop.requested)
            stop, tokens = metrics.pop("stop"), metrics.pop("tokens")
            seconds = session.clock.lap("training")
            if session.world.leads:
                run.append("metrics.jsonl", metrics)
                session.trackers.metrics(metrics)
                run.append("timing.jsonl", {"step": trainer.step, "seconds": seconds, "tokens": tokens})
            bar.advance(1, tokens, f"loss {metrics['loss']:.3f}")
            last = trainer.step == steps
            if last or trainer.step % config.monitor.every_steps == 0:
                evaluate(session)
                early = answer_alarm(session)
                last = last or early
            if last or stop or trainer.step % config.checkpoints.every_steps == 0:
                save(session)
            if stop and not last:
                note_event(run, session.world, "stopped", step=trainer.step)
                raise Stopped(f"stopped after step {trainer.step} of {steps}", session.stop.signal_number)


def planned_looks(config: Run) -> int:
    """How often the verdict is asked for: at every evaluation after the first."""
    return max(1, -(-config.training.steps // config.monitor.every_steps))


def evaluate(session: Session) -> None:
    """One evaluation and its sample texts, on disk; every process takes part."""
    trainer, run = session.trainer, session.run
    scalars = {}
    losses = losses_since_last_evaluation(run)
    if losses:
        scalars["training_loss"] = sum(losses) / len(losses)
    with torch.no_grad(), precision(session.config.training, session.world):
        record = session.monitor.evaluate(trainer.student, trainer.step, scalars)
    config, bf16 = session.config, session.config.training.precision == "bf16"
    texts = session.texts.answer(trainer.student, session.models.student, config.monitor, config.seed, bf16=bf16)
    seconds = session.clock.lap("monitor")
    if session.world.leads:
        run.write_evaluation(record)
        for line in texts:
            run.append("samples.jsonl", {"step": trainer.step} | line)
        session.trackers.evaluation(record, texts)
        run.append("timing.jsonl", {"evaluation": trainer.step, "seconds": seconds})
    fkl, golden = record.series["proxy_fkl"].per_token(), record.series["golden"].per_token()
    session.show.say(
        f"step {trainer.step:>5}  proxy {record.series['proxy'].per_token():.3f}  forward KL {fkl:.3f}  "
        f"golden {golden:.3f} (teacher {record.series['teacher_golden'].per_token():.3f}) nats/token"
    )
    barrier(session.world)


def save(session: Session) -> None:
    """A checkpoint; then only the last few and the best stay."""
    trainer, run = session.trainer, session.run
    session.trackers.flush()
    in_shards(trainer.student)
    facts = {
        "optimiser_steps": trainer.step,
        "lengths": run.lengths(),
        "student": session.models.lineage,
        "plans": [asdict(plan) for plan in trainer.source.plans],
        "world_size": session.world.size,
        "random_numbers": "keyed by seed, prompt, completion and position; nothing to store",
    }
    checkpoint.save(run, trainer.step, session.models.student, trainer.optimiser, facts, session.world)
    if session.world.leads:
        available = run.checkpoint_steps()
        best = step_to_keep(read_curves(run.path), available) if run.evaluations() else None
        checkpoint.prune(run, session.config.checkpoints.keep_last, best)
    session.clock.lap("checkpoints")
    barrier(session.world)


def losses_since_last_evaluation(run: RunDir) -> list[float]:
    """Read back from metrics.jsonl, so that a resumed run averages over the same steps."""
    done = run.evaluation_steps()
    since = done[-1] if done else -1
    return [line["loss"] for line in run.lines("metrics.jsonl") if line["step"] > since and line["loss"] is not None]


def note_event(run: RunDir, world: World, what: str, **facts: Any) -> None:
    """One line of the run's diary, with the time; the lead writes it."""
    if world.leads:
        run.append("events.jsonl", {"event": what, "time": time.time()} | facts)
