"""What the pretraining experiment has found so far: every model with what it took, and differences to its twin.

A student and its twin have first weights, text and order in common, so a seed's luck is in
both, and their difference is far sharper than either. Intervals are Student's t over seeds.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from potstill.config.pretraining import PretrainingLab
from potstill.lab.pretraining import Grid, Model
from potstill.lab.stats import paired

OUTSIDE = "out of domain"  # the mean over the sets that are


@dataclass(frozen=True)
class Made:
    """A model that is trained and measured."""

    model: Model
    id: str
    teacher_id: str | None
    facts: Mapping[str, Any]  # trained.json
    measures: Mapping[str, Any]  # measures.json
    folder: Path  # of its measures

    @cached_property
    def tokens(self) -> dict[str, np.ndarray]:
        """What every token of every set cost: SET/nats [N] and so on."""
        with np.load(self.folder / "tokens.npz", allow_pickle=False) as stored:
            return {key: stored[key] for key in stored.files}

    @cached_property
    def values(self) -> dict[str, float]:
        """Measure -> value."""
        sets = self.measures["perplexity"]
        found = {name: float(facts["nats_per_token"]) for name, facts in sets.items()}
        outside = [value for name, value in found.items() if name != "held_out"]
        if len(outside) > 1:
            found[OUTSIDE] = sum(outside) / len(outside)
        for name, facts in self.measures["choices"].items():
            found[f"{name} accuracy"] = facts["accuracy"]
            if facts["margin"] is not None:
                found[f"{name} margin"] = facts["margin"]
            found[f"{name} surprise"] = facts["nats_of_right"]
        return found


def unit_of(measure: str) -> tuple[str, str, str]:
    """(domain, unit, which direction is better)."""
    if measure == "held_out":
        return "in", "nats per token", "lower"
    if measure.endswith(" accuracy"):
        return "downstream", "share", "higher"
    if measure.endswith(" margin"):
        return "downstream", "nats", "higher"
    if measure.endswith(" surprise"):
        return "downstream", "nats", "lower"
    return "out", "nats per token", "lower"


def made_models(grid: Grid, root: Path, models: Iterable[Model]) -> list[Made]:
    """Those of the models that are done."""
    found = []
    for model in dict.fromkeys(models):
        step = grid.measured(model)
        if step.is_done(root):
            folder, trained = step.folder(root), step.needs["model"]
            facts = json.loads((trained.folder(root) / "trained.json").read_text())
            measures = json.loads((folder / "measures.json").read_text())
            teacher = trained.needs.get("teacher")
            named = None if teacher is None else teacher.address
            found.append(Made(model, trained.address, named, facts, measures, folder))
    return found


@dataclass(frozen=True)
class Cell:
    """One cell of the grid: a student of every seed, each with its twin."""

    size: str
    tokens: int
    teacher: Made
    weight: float
    variant: str
    pairs: tuple[tuple[Made, Made], ...]  # student, twin; in order of seed

    @property
    def seeds(self) -> list[int]:
        return [student.model.seed for student, _ in self.pairs]

    @property
    def key(self) -> tuple[str, str]:
        """Of student's size and teacher."""
        return self.size, self.teacher.id

    def differences(self, measure: str) -> list[float]:
        """Student minus twin, by seed."""
        return [student.values[measure] - twin.values[measure] for student, twin in self.pairs]

    def gains(self, measure: str) -> list[float]:
        """How much better the student is, by seed, whichever direction is better."""
        sign = 1.0 if unit_of(measure)[2] == "higher" else -1.0
        return [sign * value for value in self.differences(measure)]

    @property
    def measures(self) -> list[str]:
        return list(self.pairs[0][0].values)

    @property
    def gap(self) -> float:
        """How much worse the teacher is than the twins, in-domain, nats per token: above 0 it is the weaker one."""
        twins = [twin.values["held_out"] for _, twin in self.pairs]
        return float(self.teacher.values["held_out"] - sum(twins) / len(twins))


def cells_of(made: Sequence[Made]) -> list[Cell]:
    """All cells that have a teacher and at least one pair."""
    teachers = {(m.model.size, m.model.tokens): m for m in made if m.model.role == "teacher" and not m.model.variant}
    twins = {(m.model.size, m.model.tokens, m.model.seed): m for m in made if m.model.role == "twin"}
    groups: dict[tuple[Any, ...], list[tuple[Made, Made]]] = {}
    for one in made:
        model = one.model
        twin = twins.get((model.size, model.tokens, model.seed))
        if model.role == "student" and twin is not None and model.teacher in teachers:
            groups.setdefault((model.size, model.tokens, model.teacher, model.weight, model.variant), []).append(
                (one, twin)
            )
    return [
        Cell(size, tokens, teachers[teacher], weight, variant, tuple(sorted(pairs, key=lambda p: p[0].model.seed)))
        for (size, tokens, teacher, weight, variant), pairs in groups.items()
    ]


def estimate(values: Sequence[float]) -> dict[str, Any]:
    """mean, low, high (null with one seed), by_seed."""
    mean, low, high = paired(values).as_list()
    return {"mean": mean, "low": low, "high": high, "by_seed": list(values)}


def items_error(cell: Cell, measure: str) -> float | None:
    """Standard error of a set's difference over its blocks, seeds averaged: how sure the text at hand makes it."""
    if f"{measure}/nats" not in cell.pairs[0][0].tokens:
        return None
    blocks = cell.pairs[0][0].tokens[f"{measure}/block"]
    change = np.mean([s.tokens[f"{measure}/nats"] - t.tokens[f"{measure}/nats"] for s, t in cell.pairs], axis=0)
    sums, counts = np.bincount(blocks, change), np.bincount(blocks)
    means = sums[counts > 0] / counts[counts > 0]
    return float(means.std(ddof=1) / math.sqrt(len(means))) if len(means) > 1 else None


def relation(lab: PretrainingLab, cell: Cell) -> str:
    """By size alone, as the nine pairs are named; `gap` says who is stronger indeed."""
    order = list(lab.sizes)
    of = {made.model.size: made.facts["parameters"] for pair in cell.pairs for made in (*pair, cell.teacher)}
    teacher, student = cell.teacher.model.size, cell.size
    mine, theirs = of.get(student, order.index(student)), of.get(teacher, order.index(teacher))
    return "same-level" if mine == theirs else "strong-to-weak" if theirs > mine else "weak-to-strong"
