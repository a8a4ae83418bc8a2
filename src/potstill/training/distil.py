"""A run from start to end: prepare, sample, train under watch, judge, hand over.

Started again in the same directory it goes on where it stopped: completions on disk
are not asked for again, training resumes from the last checkpoint, and what was
finished is left alone.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch

from potstill.config.run import Run
from potstill.diagnosis import MAX_LOOKS, choose_step, diagnose, read_curves
from potstill.losses.fused import described
from potstill.losses.objective import Objective
from potstill.models.scored import ScoredModel
from potstill.records import Completion, DataPlan, Verdict
from potstill.run_dir import RunDir
from potstill.sources.offline import OfflineSource
from potstill.teachers import LocalTeacher
from potstill.training import checkpoint
from potstill.training.checkpoint import CheckpointError
from potstill.training.export import export_student
from potstill.training.hardware import keep_freed_memory
from potstill.training.loop import Stopwatch, Trainer, precision
from potstill.training.opening import open_directory
from potstill.training.optim import make_optimiser
from potstill.training.parallel import World, barrier, blocks, start_world, wrap
from potstill.training.preflight import Forecast, preflight
from potstill.training.session import Session, note_event, planned_looks, train
from potstill.training.show import Show
from potstill.training.signals import Stop, Stopped, stopping
from potstill.training.stages import (
    Models,
    Prompts,
    check_lengths,
    load_models,
    load_prompts,
    training_completions,
    training_rows,
)
from potstill.training.texts import SampleTexts
from potstill.training.trackers import Trackers, tracking
from potstill.training.watch import build_monitor, sample_held_out


def distil(config: Run, show: Show | None = None) -> RunDir:
    """Distil as configured; returns the run directory, with `verdict.json` and `student/` in it.

    Raises the errors of each stage before training, Stopped when asked to leave early.
    """
    world = start_world(config.training.device)
    show = Show(quiet=not world.leads) if show is None else show
    if not world.leads:
        barrier(world)
    keep_freed_memory()
    run, config = open_directory(config, world.device)
    if world.leads:
        run.drop_unfinished()
        barrier(world)
    if run.file("verdict.json").is_file() and run.file("student").is_dir():
        show.say(f"{run.path} is finished; nothing to do")
        return run
    with stopping() as stop, tracking(run, config, show, lead=world.leads) as trackers:
        _refuse_what_cannot_work(config, world)
        models = load_models(config)
        prompts = load_prompts(config, models.tokenizer, models.teacher.is_encoder_decoder)
        say_forecast(show, preflight(config, models, prompts, world.device), prompts)
        session = prepare(run, config, world, show, stop, models, prompts, trackers)
        train(session)
        finish(session)
    return run


def say_forecast(show: Show, found: Forecast, prompts: Prompts) -> None:
    for name, value in found.facts:
        show.say(f"[bold]{name:>16}[/bold]  {value}")
    for note in prompts.notes:
        show.say(f"[yellow]note[/yellow] {note}")
    for warning in found.warnings:
        show.say(f"[yellow]warning[/yellow] {warning}")


def prepare(
    run: RunDir, config: Run, world: World, show: Show, stop: Stop, models: Models, prompts: Prompts,
    trackers: Trackers,
) -> Session:  # fmt: skip
    """Completions, rows, monitor, trainer; all that comes before the first step."""
    limit = check_lengths(config, prompts, models)
    note_event(run, world, "started", processes=world.size)
    completions, held_out = _sample(run, config, world, show, stop, models, prompts)
    clock = Stopwatch()
    rows, streams, plan = training_rows(config, models, prompts, completions, limit)
    objective = Objective(config.objective)
    source = OfflineSource(streams, config.seed, config.training.batch_rows, plan)
    teacher_root = ScoredModel(models.teacher.model, config.training.pack_tokens).to(world.device)
    with torch.no_grad(), precision(config.training, world):
        monitor = build_monitor(
            config.monitor.batch_rows, models, prompts, held_out, objective, teacher_root, world, limit
        )
    _provenance(run, config, world, models, prompts, rows_by_stream={k: len(v) for k, v in streams.items()})
    teacher = None
    if objective.needs_teacher:
        keep = config.training.keep_teacher_hidden_mb
        teacher = LocalTeacher(
            teacher_root,
            rows,
            models.layout,
            models.alignment,
            models.teacher.fingerprint,
            keep,
            world.device,
        )
        with show.bar("teacher's hidden states", len(rows)) as bar, precision(config.training, world):
            teacher.prepare(bar.advance)
    scored = ScoredModel(models.student, config.training.pack_tokens)
    if config.training.compile:
        for block in blocks(scored):
            block.compile(dynamic=True)
    with precision(config.training, world):
        others = teacher_root.vocabulary_width if teacher else 0
        how = described(scored.to(world.device).head(), others, objective)
    show.say(f"[bold]{'the head':>16}[/bold]  {how}")
    note_event(run, world, "head", computes=how)
    student = wrap(scored, world, config.training.parallel)
    optimiser = make_optimiser(student, config.training.optimiser)
    trainer = Trainer(student, optimiser, objective, source, rows, models.layout, teacher, config.training, world)
    texts = SampleTexts.choose(config.monitor, prompts, held_out, models.tokenizer)
    session = Session(run, config, world, show, stop, models, trainer, monitor, texts, clock, trackers)
    _resume(session, plan)
    clock.lap("preparation")
    return session


def finish(session: Session) -> None:
    """Verdict, exported student, timing summary."""
    run, world = session.run, session.world
    if world.leads:
        verdict = diagnose(run.path)
        step = exported_step(run, verdict)
        export_student(run, step, session.config, session.models, verdict, run.file("student"))
        run.write_json("verdict.json", asdict(verdict))
        session.trackers.close(verdict)
        note_event(run, world, "finished", exported_step=step, seconds=session.clock.seconds)
    barrier(world)


def exported_step(run: RunDir, verdict: Verdict) -> int:
    """The verdict's best step where its checkpoint is kept, else the best of those that are."""
    available = run.checkpoint_steps()
    if verdict.best_step in available:
        return int(verdict.best_step)
    return choose_step(read_curves(run.path), available)


def _sample(
    run: RunDir, config: Run, world: World, show: Show, stop: Stop, models: Models, prompts: Prompts
) -> tuple[list[Completion], dict[str, list[Completion]]]:
    """Training and held-out completions. The lead samples, the others read what it wrote."""
    if not world.leads:
        barrier(world)
    bars: dict[str, Any] = {}

    def progress(name: str, total: int, rows: int, tokens: int) -> bool:
        if name not in bars:
            bars[name] = show.bar(f"sampling {name}", total, rows).__enter__()
        else:
            bars[name].advance(rows, tokens)
        return stop.requested

    try:
        completions = training_completions(run, config, models, prompts, world.device, progress)
        held_out = None if completions is None else sample_held_out(
            run, config, models, prompts, world.device, progress
        )  # fmt: skip
    finally:
        for bar in bars.values():
            bar.__exit__(None, None, None)
    if completions is None or held_out is None:
        raise Stopped("stopped while sampling; what was sampled is kept", stop.signal_number)
    if world.leads:
        barrier(world)
    return completions, held_out


def _resume(session: Session, plan: DataPlan) -> None:
    """Go back to the last checkpoint, or to the very beginning."""
    run, world, trainer = session.run, session.world, session.trainer
    steps = run.checkpoint_steps()
    lengths: dict[str, int] = {}
    if steps:
        facts = checkpoint.load(run, steps[-1], session.models.student, trainer.optimiser)
        _refuse_another_base(facts["student"], session.models.lineage)
        trainer.step, lengths = steps[-1], facts["lengths"]
        session.show.say(f"resuming after step {trainer.step}")
    if world.leads:
        run.rewind(lengths, trainer.step if steps else -1)
        if not steps:
            note_event(run, world, "data plan", **asdict(plan))
        else:
            note_event(run, world, "resumed", step=trainer.step)
        session.trackers.resume(trainer.step if steps else -1)
    barrier(world)


def _provenance(
    run: RunDir, config: Run, world: World, models: Models, prompts: Prompts, rows_by_stream: dict[str, int]
) -> None:
    if not world.leads:
        return
    teacher = models.teacher
    facts = {
        "golden": "oracle" if models.oracle is not None else "reference_nll",
        "teacher": {"name": teacher.name, "fingerprint": teacher.fingerprint, "revision": teacher.revision},
        "student": models.lineage,
        "prompts": {
            "path": config.data.prompts.path,
            "train": len(prompts.train),
            "held_out": len(prompts.held_out),
        },
        "rows": rows_by_stream,
        "notes": prompts.notes,
    }
    if models.oracle is not None:
        facts["oracle"] = {"name": models.oracle.name, "fingerprint": models.oracle.fingerprint}
    run.write_json("provenance.json", facts)


def _refuse_another_base(before: Any, now: Any) -> None:
    """Frozen weights are in no checkpoint: the student must come from where it came from."""
    if before != now:
        raise CheckpointError(
            f"the student of this run was made from {before}, and would now be made from {now}: its source has "
            "changed since. Restore it, or start in a new output directory."
        )


def _refuse_what_cannot_work(config: Run, world: World) -> None:
    if config.training.batch_rows % world.size:
        raise ValueError(
            f"training.batch_rows {config.training.batch_rows} cannot be shared by {world.size} processes; "
            f"use a multiple of {world.size}"
        )
    if config.monitor.stop_on and planned_looks(config) > MAX_LOOKS:
        raise ValueError(
            f"monitor.stop_on judges the run {planned_looks(config)} times; more than {MAX_LOOKS} leave no p-value "
            f"small enough. Raise monitor.every_steps to {-(-config.training.steps // MAX_LOOKS)}."
        )
    if world.size == 1 and config.training.parallel != "ddp":
        raise ValueError("training.parallel has no effect on one process; start with torchrun, or leave it at ddp")
