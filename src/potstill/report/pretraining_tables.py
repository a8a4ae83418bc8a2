"""The tables of the pretraining lab's page: teachers by relation, ablations, models, sets, claims."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from potstill.report.numbers import Estimate
from potstill.report.pretraining_measures import HELD_OUT, Measure, over_seeds
from potstill.report.pretraining_reading import (
    RELATIONS,
    Cell,
    Results,
    Student,
    identity,
    losses_of,
)
from potstill.report.pretraining_words import teacher_name, teacher_of

CSS = {"reproduced": "reproduced", "not reproduced": "refuted"}


@dataclass(frozen=True, slots=True)
class Best:
    """The best weight by one of the three measures."""

    weight: float
    estimate: Estimate | None
    sign: int  # of a gain


@dataclass(frozen=True, slots=True)
class TeacherRow:
    """One teacher of one student."""

    name: str
    relation: str
    loss: float | None
    gap: float | None  # to the twin, on held-out text
    best: dict[str, Best]


@dataclass(frozen=True, slots=True)
class Change:
    """An ablation in one measure: what it came to, what the main grid's cell did, and the change of it."""

    variant: Estimate | None
    main: Estimate | None
    change: Estimate | None
    sign: int


@dataclass(frozen=True, slots=True)
class AblationRow:
    """One ablation of one cell of the grid."""

    variant: str
    student: str
    teacher: str
    weight: float
    changes: dict[str, Change]


@dataclass(frozen=True, slots=True)
class ModelRow:
    """Models alike but for the seed."""

    role: str
    size: str
    tokens: float | None
    parameters: float | None
    body: float | None
    seeds: list[int]
    losses: dict[str, float]
    seconds: float | None
    flops: float | None

    @property
    def tokens_per_parameter(self) -> float | None:
        return self.tokens / self.parameters if self.tokens and self.parameters else None


@dataclass(frozen=True, slots=True)
class Claim:
    """One claim of the paper and what this experiment says of it."""

    number: Any
    name: str
    statement: str
    status: str
    why: str

    @property
    def css(self) -> str:
        return CSS.get(self.status, "undecided")


def teacher_rows(results: Results, student: Student) -> list[TeacherRow]:
    """Weak-to-strong first, in each relation from the weakest teacher to the strongest."""
    cells = {(cell.teacher, cell.weight): cell for cell in results.of(student)}
    relation = {cell.teacher: cell.relation for cell in cells.values()}
    twin = student.losses.get(HELD_OUT)
    rows = []
    for teacher in results.teachers:
        if teacher.id not in relation:
            continue
        loss = teacher.losses.get(HELD_OUT)
        best = {}
        for role, measure in results.triplet.items():
            found = results.best(student, teacher.id, role)
            if found is not None and found.get("weight") is not None:
                weight = float(found["weight"])
                cell = cells.get((teacher.id, weight))
                its = None if cell is None else cell.found.get(measure.name)
                best[role] = Best(weight, None if its is None else its.estimate, measure.sign)
        gap = None if loss is None or twin is None else loss - twin
        rows.append(TeacherRow(teacher_name(teacher), relation[teacher.id], loss, gap, best))
    order = {name: i for i, name in enumerate(RELATIONS)}
    return sorted(rows, key=lambda row: order.get(row.relation, len(order)))


def ablation_rows(results: Results) -> list[AblationRow]:
    """Every cell of a variant beside the main grid's, with the change paired by seed."""
    main = {(cell.size, cell.tokens, cell.teacher, cell.weight): cell for cell in results.cells}
    rows = []
    for cell in sorted(results.ablations, key=lambda one: (one.variant, one.size, one.weight)):
        same = main.get((cell.size, cell.tokens, cell.teacher, cell.weight))
        changes = {role: _change(cell, same, measure) for role, measure in results.triplet.items()}
        rows.append(AblationRow(cell.variant, cell.size, teacher_of(results, cell), cell.weight, changes))
    return rows


def _change(cell: Cell, same: Cell | None, measure: Measure) -> Change:
    mine = cell.found.get(measure.name)
    its = None if same is None else same.found.get(measure.name)
    change = None
    if mine is not None and its is not None:
        shared = sorted(set(mine.by_seed) & set(its.by_seed))
        change = over_seeds([mine.by_seed[seed] - its.by_seed[seed] for seed in shared])
    main = None if its is None else its.estimate
    return Change(None if mine is None else mine.estimate, main, change, measure.sign)


def model_rows(models: Iterable[Mapping[str, Any]]) -> list[ModelRow]:
    """Teachers and twins, means over seeds, and the students of a size together; larger sizes last."""
    groups: dict[tuple[str, str, Any], list[Mapping[str, Any]]] = {}
    for one in models:
        role = str(one["role"]) + (f", {one['variant']}" if one.get("variant") else "")
        groups.setdefault((role, str(one["size"]), one.get("tokens")), []).append(one)
    order = {"teacher": 0, "twin": 1}
    rows = []
    for (role, size, tokens), mine in groups.items():
        seconds = [float(one["seconds"]) for one in mine if one.get("seconds") is not None]
        flops = [sum((one.get("flops") or {}).values()) for one in mine if one.get("flops")]
        rows.append(
            ModelRow(
                role,
                size,
                tokens,
                mine[0].get("parameters"),
                mine[0].get("body_parameters"),
                sorted({int(one["seed"]) for one in mine if one.get("seed") is not None}),
                losses_of(mine) if not role.startswith("student") else {},
                math.fsum(seconds) if seconds else None,
                math.fsum(flops) if flops else None,
            )
        )
    return sorted(rows, key=lambda row: (order.get(row.role, 2), row.role, row.parameters or 0, row.tokens or 0))


def set_rows(raw: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any], Mapping[str, Any]]]:
    """Name, facts and contamination of every measured set; what was checked and is no set comes last."""
    corpus = raw.get("corpus") or {}
    sets, checked = corpus.get("sets") or {}, corpus.get("contamination") or {}
    facts = {name: found if isinstance(found, Mapping) else {} for name, found in sets.items()}
    facts = {name: found for name, found in facts.items() if found.get("domain") != "train"}
    shares = {name: found if isinstance(found, Mapping) else {"share": found} for name, found in checked.items()}
    return [(str(name), facts.get(name, {}), shares.get(name, {})) for name in dict.fromkeys([*facts, *shares])]


def claims(found: Sequence[Mapping[str, Any]] | None) -> list[Claim]:
    return [
        Claim(one.get("number"), *(str(one.get(key) or "") for key in ("name", "statement", "status", "why")))
        for one in found or []
    ]


def headline(found: Sequence[Claim]) -> str:
    """How many of each, in one line."""
    counts: dict[str, int] = {}
    for one in found:
        counts[one.status] = counts.get(one.status, 0) + 1
    return ", ".join(f"{many} {status}" for status, many in counts.items())


def bins_by(results: Results, student: Student) -> dict[str, dict[str, list[Mapping[str, Any]]]]:
    """By teacher and by kind (difficulty, position): the bins of a student; teachers from weak to strong."""
    found: dict[str, dict[str, list[Mapping[str, Any]]]] = {}
    order = {one.id: i for i, one in enumerate(results.teachers)}
    mine = [
        one
        for one in results.raw.get("bins") or []
        if not one.get("variant")
        and str(one.get("size")) == student.size
        and one.get("tokens", student.tokens) == student.tokens
    ]
    for one in sorted(mine, key=lambda one: order.get(str(identity(one.get("teacher"))), len(order))):
        kinds = found.setdefault(str(identity(one.get("teacher"))), {})
        kinds.setdefault(str(one.get("by")), []).append(one)
    return found
