"""A run from start to end: prepare, sample, train under watch, judge, hand over.

Started again in the same directory it goes on where it stopped: completions on disk
are not asked for again, training resumes from the last checkpoint, and what was
finished is left alone.
"""

from __future__ import annotations

from dataclasses import asdict

from potstill.config.run import Run
from potstill.diagnosis import MAX_LOOKS, choose_step, diagnose, read_curves
from potstill.records import Verdict
from potstill.run_dir import RunDir
from potstill.training.benchmark import measure_end
from potstill.training.export import export_student
from potstill.training.hardware import keep_freed_memory
from potstill.training.mending import answer_alarm
from potstill.training.opening import open_directory
from potstill.training.parallel import World, barrier, start_world
from potstill.training.permission import permitted
from potstill.training.preflight import Forecast, preflight
from potstill.training.preparing import prepare
from potstill.training.session import Session, note_event, planned_looks, train
from potstill.training.show import Show
from potstill.training.signals import stopping
from potstill.training.stages import Prompts, load_models, load_prompts
from potstill.training.trackers import tracking


def distil(config: Run, show: Show | None = None) -> RunDir:
    """Distil as configured; returns the run directory, with `verdict.json` and `student/` in it.

    Raises the errors of each stage before training, Stopped when asked to leave early.
    """
    world = start_world(config.training.device)
    permitted(config)  # before a directory is made, a model loaded, a token sampled
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
        train(session, answer_alarm)
        finish(session)
    return run


def say_forecast(show: Show, found: Forecast, prompts: Prompts) -> None:
    for name, value in found.facts:
        show.say(f"[bold]{name:>16}[/bold]  {value}")
    for note in prompts.notes:
        show.say(f"[yellow]note[/yellow] {note}")
    for warning in found.warnings:
        show.say(f"[yellow]warning[/yellow] {warning}")


def finish(session: Session) -> None:
    """Verdict, exported student, timing summary."""
    run, world = session.run, session.world
    if world.leads:
        verdict = diagnose(run.path)
        step = exported_step(run, verdict)
        export_student(run, step, session.config, session.models, verdict, run.file("student"))
        for line in measure_end(run, session.config, session.models, session.feeder.prompts):
            session.show.say(line)
        run.write_json("verdict.json", asdict(verdict))
        session.trackers.close(verdict)
        note_event(run, world, "finished", exported_step=step, seconds=session.clock.seconds)
    barrier(world)


def exported_step(run: RunDir, verdict: Verdict) -> int:
    """The verdict's best step where its checkpoint is kept, else the best of those that are."""
    available = run.checkpoint_steps()
    if verdict.best_step in available:
        return int(verdict.best_step)
    return choose_step(read_curves(run.path), available, suspected=verdict.verdict == "suspected_hacking")


def _refuse_what_cannot_work(config: Run, world: World) -> None:
    if config.training.batch_rows % world.size:
        raise ValueError(
            f"training.batch_rows {config.training.batch_rows} cannot be shared by {world.size} processes; "
            f"use a multiple of {world.size}"
        )
    if (config.monitor.stop_on or config.monitor.on_alarm) and planned_looks(config) > MAX_LOOKS:
        raise ValueError(
            f"monitor.stop_on or on_alarm judges the run {planned_looks(config)} times; more than {MAX_LOOKS} leave no "
            f"p-value small enough. Raise monitor.every_steps to {-(-config.training.steps // MAX_LOOKS)}."
        )
    if world.size == 1 and config.training.parallel != "ddp":
        raise ValueError("training.parallel has no effect on one process; start with torchrun, or leave it at ddp")
