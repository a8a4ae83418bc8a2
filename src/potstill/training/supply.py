"""Offline rows that a later data plan needs and that do not exist yet: the teacher answers, in the middle of a run.

A remedy may ask for more completions of every prompt, or bring new prompts into use. What is
missing is sampled into the same file as the first completions, under the same keys, so a run
that is killed here goes on where it was; then the teacher says what it thinks of the new rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from potstill.config.data import SampledCompletions
from potstill.data.collate import Row
from potstill.records import Completion, DataPlan
from potstill.sources.base import FRESH
from potstill.sources.catalog import Known
from potstill.teachers import LocalTeacher, Teacher
from potstill.training.completions import offline_answers
from potstill.training.feeding import Feeder
from potstill.training.loop import precision
from potstill.training.parallel import barrier
from potstill.training.show import Show
from potstill.training.signals import Stop, Stopped


def supply(feeder: Feeder, plan: DataPlan, teacher: Teacher | None, show: Show, stop: Stop) -> int:
    """Have the plan's offline rows; returns how many are new. Every process must call it.

    Raises Stopped when asked to leave while sampling; what was sampled is kept.
    """
    wanted = missing(feeder, plan)
    if wanted:
        completions = _sample(feeder, plan, show, stop)
        new = [c for c in completions if (c.prompt_id, c.index) in wanted]
        _add(feeder, feeder.rows_of(new))
    _let_speak(feeder, plan, teacher, show)
    return len(wanted)


def missing(feeder: Feeder, plan: DataPlan) -> set[tuple[str, int]]:
    """(prompt, index) of the teacher's offline completions that the plan uses and that are not rows yet."""
    if "teacher" not in plan.fractions or not isinstance(feeder.config.data.completions, SampledCompletions):
        return set()
    catalog = feeder.source.catalog
    known = {(row.prompt_id, row.index) for row in catalog.rows.get("teacher", [])}
    chosen = catalog.chosen_prompts(plan)
    return {(name, index) for name in chosen for index in range(plan.completions_per_prompt)} - known


def _sample(feeder: Feeder, plan: DataPlan, show: Show, stop: Stop) -> list[Completion]:
    """All completions of the plan, sampled or read. The lead samples, the others read what it wrote."""
    config, how, world = feeder.config, feeder.config.data.completions, feeder.world
    assert isinstance(how, SampledCompletions)
    prompts = [feeder.by_id[name] for name in feeder.source.catalog.chosen_prompts(plan)]
    if not world.leads:
        barrier(world)
    with show.bars(lambda: stop.requested) as progress:
        found = offline_answers(
            feeder.run, config, how, feeder.models.teacher, world.device, feeder.asker, prompts,
            plan.completions_per_prompt, progress,
        )  # fmt: skip
    if found is None:
        raise Stopped("stopped while sampling for a remedy; what was sampled is kept", stop.signal_number)
    if world.leads:
        barrier(world)
    return found


def _add(feeder: Feeder, rows: Sequence[Row]) -> None:
    """New ids behind those of all rows that exist."""
    first = 1 + max((row for row in feeder.rows if row < FRESH), default=-1)
    listed = feeder.source.catalog.rows.setdefault("teacher", [])
    for number, row in enumerate(rows, start=first):
        feeder.rows[number] = row
        listed.append(Known(number, row.prompt_id, row.index))


def _let_speak(feeder: Feeder, plan: DataPlan, teacher: Teacher | None, show: Show) -> None:
    """The teacher's states on rows that now come round again, where they fit into memory."""
    if not isinstance(teacher, LocalTeacher):
        return
    catalog = feeder.source.catalog
    rows = sorted({row for name in plan.fractions for row in catalog.chosen_rows(name, plan)})
    if not teacher.keep(rows):
        return
    with (
        show.bar("teacher's targets", len(rows)) as bar,
        torch.no_grad(),
        precision(feeder.config.training, feeder.world),
    ):
        teacher.prepare(bar.advance)
