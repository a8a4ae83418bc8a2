"""All that comes before a run's first step: completions, rows, monitor, teacher, trainer, and where it stopped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch

from potstill.cached_teacher import CachedTeacher, open_cached
from potstill.config.run import Run
from potstill.config.source import replay_of
from potstill.data.collate import Row
from potstill.losses.fused import described
from potstill.losses.objective import Objective
from potstill.models.scored import ScoredModel
from potstill.models.shrink import release_body
from potstill.records import Completion, DataPlan
from potstill.run_dir import RunDir
from potstill.served_teacher import ServedTeacher
from potstill.sources.catalog import Catalog
from potstill.sources.mixture import MixtureSource, ReplayRule
from potstill.teachers import LocalTeacher
from potstill.training import checkpoint
from potstill.training.benchmark import measure_start
from potstill.training.checkpoint import CheckpointError
from potstill.training.completions import Answers, Asker, data_plans, training_completions, training_rows
from potstill.training.feeding import Feeder
from potstill.training.loop import Stopwatch, Trainer, precision
from potstill.training.mending import follow
from potstill.training.optim import make_optimiser
from potstill.training.parallel import World, barrier, blocks, wrap
from potstill.training.permission import terms_record
from potstill.training.session import Session, note_event
from potstill.training.show import Show
from potstill.training.signals import Stop, Stopped
from potstill.training.stages import Models, Prompts, check_lengths
from potstill.training.texts import SampleTexts
from potstill.training.trackers import Trackers
from potstill.training.variety import variety_record
from potstill.training.watch import build_monitor, sample_held_out, watch_sequences


def prepare(
    run: RunDir, config: Run, world: World, show: Show, stop: Stop, models: Models, prompts: Prompts,
    trackers: Trackers,
) -> Session:  # fmt: skip
    """The session, ready for its first step, or for the one after its last checkpoint."""
    limit = check_lengths(config, prompts, models)
    note_event(run, world, "started", processes=world.size)
    answers, held_out = _sample(run, config, world, show, stop, models, prompts)
    clock = Stopwatch()
    found, catalog = training_rows(config, models, prompts, answers, limit)
    rows, (plan, *changes) = dict(enumerate(found)), data_plans(config, prompts)
    objective = Objective(config.objective)
    source = MixtureSource(catalog, config.seed, config.training.batch_rows, plan, _replay(config))
    for change in changes:  # what a later plan lacks is found now, not then
        MixtureSource(catalog, config.seed, config.training.batch_rows, change, _replay(config))
    feeder = Feeder(
        run, config, world, models, prompts, limit, source, rows, list(changes),
        lambda what, facts: note_event(run, world, what, **facts),
    )  # fmt: skip
    root = ScoredModel(models.teacher.model, config.training.pack_tokens).to(world.device)
    with torch.no_grad(), precision(config.training, world):
        asker = Asker.of(config, models, prompts)
        monitor = build_monitor(
            config.monitor.batch_rows, models, prompts, held_out, objective, root, world, limit, asker
        )
        monitor.sequences = watch_sequences(config, models, prompts, held_out, world, limit, asker)
    _provenance(run, config, world, models, prompts, found, catalog, (plan, *changes))
    unchanging = {i for p in (plan, *changes) for name in p.fractions for i in catalog.chosen_rows(name, p)}
    teacher = None
    if objective.needs_teacher:
        teacher = _teacher(config, world, show, models, root, rows, sorted(unchanging), answers.completions)
    student = _student(run, config, world, show, models, root.vocabulary_width if teacher else 0, objective)
    optimiser = make_optimiser(student, config.training.optimiser)
    trainer = Trainer(student, optimiser, objective, source, rows, models.layout, teacher, config.training, world)
    texts = SampleTexts.choose(config.monitor, prompts, held_out, models.tokenizer)
    session = Session(run, config, world, show, stop, models, trainer, monitor, texts, clock, trackers, feeder)
    _resume(session, plan)
    for line in measure_start(run, config, world, models, prompts, student, trainer.step):
        show.say(f"[bold]{'benchmark':>16}[/bold]  {line}")
    still_speaks = "online_teacher" in config.source.fed or monitor.sequences is not None
    still_speaks = still_speaks or (config.monitor.on_alarm is not None and config.monitor.on_alarm.asks_teacher)
    if not still_speaks and (teacher is None or teacher.has_all(unchanging, config.source.fed)):
        release_body(models.teacher.model)
        show.say(f"[bold]{'the teacher':>16}[/bold]  has said all that the run needs; its head alone stays in memory")
    clock.lap("preparation")
    return session


def _teacher(
    config: Run, world: World, show: Show, models: Models, root: ScoredModel, rows: dict[int, Row],
    unchanging: Sequence[int], completions: Sequence[Completion],
) -> LocalTeacher | CachedTeacher | ServedTeacher:  # fmt: skip
    """Who has the teacher's targets: its server's word, a cache on disk, or the teacher, who says what it can now."""
    made: LocalTeacher | CachedTeacher | ServedTeacher
    if config.training.teacher_targets == "served":
        made = ServedTeacher(
            dict(enumerate(completions)), unchanging, models.alignment.student_width, config.objective.active
        )
    elif config.training.teacher_targets is not None:
        made = open_cached(
            config, rows, models.teacher.fingerprint, models.alignment, models.layout, world.device, unchanging
        )
    else:
        made = LocalTeacher(
            root, rows, models.layout, models.alignment, models.teacher.fingerprint,
            config.training.keep_teacher_hidden_mb, world.device, unchanging,
        )  # fmt: skip
    with show.bar("teacher's targets", len(unchanging)) as bar, precision(config.training, world):
        made.prepare(bar.advance)
    return made


def _replay(config: Run) -> ReplayRule | None:
    rule = replay_of(config.source)
    return None if rule is None else ReplayRule(rule.capacity_rows, rule.max_staleness_steps)


def _student(
    run: RunDir, config: Run, world: World, show: Show, models: Models, others: int, objective: Objective
) -> torch.nn.Module:
    """The student's root module, compiled and wrapped as configured."""
    scored = ScoredModel(models.student, config.training.pack_tokens)
    if config.training.compile:
        for block in blocks(scored):
            block.compile(dynamic=True)
    with precision(config.training, world):
        how = described(scored.to(world.device).head(), others, objective)
    show.say(f"[bold]{'the head':>16}[/bold]  {how}")
    note_event(run, world, "head", computes=how)
    return wrap(scored, world, config.training.parallel)


def _sample(
    run: RunDir, config: Run, world: World, show: Show, stop: Stop, models: Models, prompts: Prompts
) -> tuple[Answers, dict[str, list[Completion]]]:
    """Training and held-out completions. The lead samples, the others read what it wrote."""
    if not world.leads:
        barrier(world)
    with show.bars(lambda: stop.requested) as progress:
        answers = training_completions(run, config, models, prompts, world.device, progress)
        held_out = None
        if answers is not None:
            held_out = sample_held_out(run, config, models, prompts, world.device, progress)
    if answers is None or held_out is None:
        raise Stopped("stopped while sampling; what was sampled is kept", stop.signal_number)
    if world.leads:
        barrier(world)
    for line in answers.lines:
        show.say(f"[bold]{'rejection':>16}[/bold]  {line}")
    return answers, held_out


def _resume(session: Session, plan: DataPlan) -> None:
    """Go back to the last checkpoint, or to the very beginning."""
    run, world, trainer, feeder = session.run, session.world, session.trainer, session.feeder
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
    for earlier in facts["plans"][1:] if steps else ():
        follow(session, DataPlan(**earlier))
        feeder.changes = [change for change in feeder.changes if change.from_step > earlier["from_step"]]
    barrier(world)


def _provenance(
    run: RunDir, config: Run, world: World, models: Models, prompts: Prompts, rows: Sequence[Row], catalog: Catalog,
    plans: Sequence[DataPlan],
) -> None:  # fmt: skip
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
        "rows": {name: len(known) for name, known in catalog.rows.items()},
        "notes": prompts.notes,
        "terms": terms_record(config),
        "diversity": variety_record(config, prompts.train, rows, catalog, plans),
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
