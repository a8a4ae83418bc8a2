"""Reads the `results.json` of `potstill lab pretraining` into what its page needs, and refuses what it cannot read.

A value that is not there is `null` in the file and a dash on the page. Means and intervals come from the
file, but for the two that `pretraining_measures.py` makes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from potstill.report.lab_reading import LabResultsError, to_estimate
from potstill.report.pretraining_measures import (
    HELD_OUT,
    Difference,
    Measure,
    mean_of,
    measures_of,
    triplet_of,
)

RELATIONS = ("weak-to-strong", "same-level", "strong-to-weak")


@dataclass(frozen=True, slots=True)
class Teacher:
    """A model that somebody learned from."""

    id: str
    size: str
    tokens: float | None
    losses: Mapping[str, float] = field(default_factory=dict)  # by set, nats per token


@dataclass(frozen=True, slots=True)
class Student:
    """A size with its tokens; the losses are its twins', means over seeds."""

    size: str
    tokens: float | None
    parameters: float | None = None
    losses: Mapping[str, float] = field(default_factory=dict)

    @property
    def tokens_per_parameter(self) -> float | None:
        return self.tokens / self.parameters if self.tokens and self.parameters else None


@dataclass(frozen=True, slots=True)
class Cell:
    """One square of the grid: a student beside a teacher at a weight. `teacher` is its id, None for none."""

    size: str
    tokens: float | None
    teacher: str | None
    weight: float
    variant: str
    relation: str
    seeds: tuple[int, ...]
    found: Mapping[str, Difference]

    def gain(self, measure: Measure) -> float | None:
        """How much better than the twin, in the measure's unit."""
        found = self.found.get(measure.name)
        return None if found is None else measure.sign * found.estimate.value


@dataclass(frozen=True, slots=True)
class Results:
    """The file, checked. Teachers stand from the weakest to the strongest by their own held-out loss."""

    raw: Mapping[str, Any]
    cells: list[Cell]  # of the main grid
    ablations: list[Cell]
    students: list[Student]
    teachers: list[Teacher]
    measures: list[Measure]
    triplet: Mapping[str, Measure]  # in domain, out of domain, downstream: those that were measured, in this order

    def of(self, student: Student) -> list[Cell]:
        return [cell for cell in self.cells if (cell.size, cell.tokens) == (student.size, student.tokens)]

    def teacher(self, name: str | None) -> Teacher | None:
        return next((one for one in self.teachers if one.id == name), None)

    def weights(self) -> list[float]:
        return sorted({cell.weight for cell in self.cells})

    def best(self, student: Student, teacher: str | None, measure: str) -> Mapping[str, Any] | None:
        """What `best_weights` says of one of the triplet, by its role or by the measure's own name."""
        names = {measure, self.triplet[measure].name} if measure in self.triplet else {measure}
        for one in self.raw.get("best_weights") or []:
            mine = (str(one.get("size")), one.get("tokens")) == (student.size, student.tokens)
            if mine and identity(one.get("teacher")) == teacher and one.get("measure") in names:
                return dict(one)
        return None


def read_results(path: Path) -> Results:
    """Read `results.json`. Raises LabResultsError where it is not what `potstill lab pretraining` writes."""
    raw = _load(path)
    if not isinstance(raw, dict) or not all(isinstance(raw.get(key), list) for key in ("models", "differences")):
        raise LabResultsError(
            f"{path} has no lists of `models` and `differences`; expected the results.json of "
            "`potstill lab pretraining`"
        )
    models = [_model(found, f"{path}, model {i}") for i, found in enumerate(raw["models"])]
    measures = measures_of(raw["differences"])
    cells = [_cell(found, f"{path}, difference {i}", measures) for i, found in enumerate(raw["differences"])]
    main = [cell for cell in cells if not cell.variant]
    return Results(
        raw,
        main,
        [cell for cell in cells if cell.variant],
        _students(models, main),
        _teachers(models, raw["differences"]),
        measures,
        triplet_of(measures, raw.get("best_weights") or [], [cell.found for cell in main]),
    )


def _load(path: Path) -> Any:
    if not path.is_file():
        raise LabResultsError(f"{path} is not there; give the results.json that `potstill lab pretraining` wrote")

    def refuse(word: str) -> Any:
        raise LabResultsError(f"{path} holds {word}, which is no JSON and no measurement; expected null in its place")

    try:
        return json.loads(path.read_text(), parse_constant=refuse)
    except json.JSONDecodeError as error:
        raise LabResultsError(f"{path} is not JSON ({error}); let `potstill lab` write it anew") from error


def identity(teacher: Any) -> str | None:
    """A teacher's id, from whichever form a list of the file names it in."""
    if isinstance(teacher, Mapping):
        return str(teacher.get("id") or f"{teacher.get('size')}@{teacher.get('tokens')}")
    return None if teacher is None else str(teacher)


def _cell(found: Mapping[str, Any], where: str, measures: Sequence[Measure]) -> Cell:
    lacking = [key for key in ("size", "weight") if found.get(key) is None]
    if lacking:
        raise LabResultsError(f"{where} lacks {', '.join(lacking)}; expected a student's size and the weight")
    seeds = tuple(int(seed) for seed in found.get("seeds") or [])
    differences: dict[str, Difference] = {}
    for name, facts in (found.get("measures") or {}).items():
        estimate = to_estimate([facts.get("mean"), facts.get("low"), facts.get("high")])
        values = facts.get("by_seed") or []
        by_seed = dict(zip(seeds, values, strict=True)) if len(seeds) == len(values) else {}
        if estimate is not None:
            known = {seed: float(value) for seed, value in by_seed.items() if value is not None}
            differences[str(name)] = Difference(estimate, known)
    for measure in measures:
        made = mean_of(measure, measures, differences) if measure.made else None
        if made is not None:
            differences[measure.name] = made
    return Cell(
        size=str(found["size"]),
        tokens=found.get("tokens"),
        teacher=identity(found.get("teacher")),
        weight=float(found["weight"]),
        variant=str(found.get("variant") or ""),
        relation=str(found.get("relation") or ""),
        seeds=seeds,
        found=differences,
    )


def _model(found: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    lacking = [key for key in ("role", "size") if found.get(key) is None]
    if lacking:
        raise LabResultsError(f"{where} lacks {', '.join(lacking)}; expected a teacher, a twin or a student")
    return found


def losses_of(models: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Nats per token by set, means over models."""
    found: dict[str, list[float]] = {}
    for model in models:
        for name, facts in (model.get("perplexity") or {}).items():
            if (facts or {}).get("nats_per_token") is not None:
                found.setdefault(name, []).append(float(facts["nats_per_token"]))
    return {name: math.fsum(values) / len(values) for name, values in found.items()}


def _students(models: Sequence[Mapping[str, Any]], cells: Sequence[Cell]) -> list[Student]:
    """Those of the grid, the one with most cells first: the others may only complete it."""
    count: dict[tuple[str, float | None], int] = {}
    for cell in cells:
        count[cell.size, cell.tokens] = count.get((cell.size, cell.tokens), 0) + 1
    found = []
    for size, tokens in sorted(count, key=lambda key: -count[key]):
        mine = [one for one in models if (one["size"], one.get("tokens")) == (size, tokens) and not one.get("variant")]
        parameters = next((one["parameters"] for one in mine if one.get("parameters")), None)
        found.append(Student(size, tokens, parameters, losses_of(one for one in mine if one["role"] == "twin")))
    return found


def _teachers(models: Sequence[Mapping[str, Any]], differences: Iterable[Mapping[str, Any]]) -> list[Teacher]:
    """Every teacher that trained or that a student of the grid names, weakest first; unmeasured ones before all."""
    trained = [one for one in models if one["role"] == "teacher" and not one.get("variant")]
    named = [
        one["teacher"] for one in differences if isinstance(one.get("teacher"), Mapping) and not one.get("variant")
    ]
    found: dict[str, Teacher] = {}
    for one in [*trained, *named]:
        name = str(identity(one))
        mine = (model for model in trained if identity(model) == name)
        found.setdefault(name, Teacher(name, str(one.get("size")), one.get("tokens"), losses_of(mine)))
    return sorted(found.values(), key=lambda one: -one.losses.get(HELD_OUT, math.inf))
