"""Reads the lab's `results.json` into what the page needs, and refuses what it cannot read.

The lab computes and this page draws. All intervals, verdicts and laws come from the
file; the only numbers made here are the means over seeds that the figures show.
A value that is not there is `null` in the file and a dash on the page.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from potstill.report.numbers import Estimate

SERIES = ("proxy", "proxy_fkl", "golden", "training_loss")
ESTIMATES = (
    "golden_last",
    "golden_lowest",
    "golden_rise",
    "proxy_last",
    "proxy_gain",
    "proxy_fkl_last",
    "training_loss_last",
    "minus_teacher",
)
FARTHEST = 2.0  # a law that misses its own range by this factor was written in another form


class LabResultsError(ValueError):
    """`results.json` is not what the page can draw."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One run of the experiment: an arm with a seed."""

    arm: str
    seed: int
    epochs: np.ndarray  # [S] when it was evaluated
    series: dict[str, np.ndarray]  # [S] each, nats per sequence, NaN where nothing was measured
    teacher_golden: float | None
    verdict: str | None
    confidence: float | None
    rise_p: float | None
    seconds: float | None
    report: str | None  # address of the run's own page, relative to this one


@dataclass(frozen=True, slots=True)
class Law:
    """value = factor * epochs ** exponent, fitted from `start` to `end`; a falling curve has a negative exponent."""

    factor: float
    exponent: float
    start: float
    end: float
    break_epoch: float | None
    band: float  # relative distance from it that the last evaluation may have

    def at(self, epochs: np.ndarray) -> np.ndarray:
        return np.asarray(self.factor * epochs**self.exponent)


@dataclass(frozen=True, slots=True)
class Arm:
    """One line of the table of arms."""

    name: str
    seeds: int | None
    estimates: dict[str, Estimate | None]
    verdicts: dict[str, int]
    rises_passed: int | None  # seeds whose golden passed the U test
    laws: dict[str, Law]  # by series
    left: dict[str, str]  # by series: how many seeds left a law of their own


@dataclass(frozen=True, slots=True)
class Results:
    """The file, checked."""

    raw: Mapping[str, Any]
    cells: list[Cell]
    arms: list[Arm]

    @property
    def names(self) -> list[str]:
        """Every arm that has a cell or a line in the table, in the file's order."""
        return list(dict.fromkeys([arm.name for arm in self.arms] + [cell.arm for cell in self.cells]))

    def of(self, arm: str) -> list[Cell]:
        return [cell for cell in self.cells if cell.arm == arm]

    def laws(self, arm: str) -> dict[str, Law]:
        return next((found.laws for found in self.arms if found.name == arm), {})


def read_results(path: Path, page: Path) -> Results:
    """Read `results.json`; links are made for a page that will lie at `page`. Raises LabResultsError."""
    if not path.is_file():
        raise LabResultsError(f"{path} is not there; give the results.json that `potstill lab` wrote")

    def refuse(word: str) -> Any:
        raise LabResultsError(f"{path} holds {word}, which is no JSON and no measurement; expected null in its place")

    try:
        raw = json.loads(path.read_text(), parse_constant=refuse)
    except json.JSONDecodeError as error:
        raise LabResultsError(f"{path} is not JSON ({error}); let `potstill lab` write it anew") from error
    if not isinstance(raw, dict) or not isinstance(raw.get("cells"), list):
        raise LabResultsError(f"{path} has no list of `cells`; expected the results.json of `potstill lab`")
    cells = [_cell(found, i, path, page) for i, found in enumerate(raw["cells"])]
    results = Results(raw, cells, [_arm(found) for found in raw.get("arms") or []])
    for arm in results.arms:
        for name, law in arm.laws.items():
            _check_law(law, f"{path}: the law of {name} in arm {arm.name}", mean_over_seeds(results.of(arm.name), name))
    return results


def mean_over_seeds(cells: Sequence[Cell], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Epochs and means of a series, where every seed that has the series was measured; empty where none was.

    A seed that is missing from some evaluations would make the mean jump there.
    """
    measured = [dict(zip(cell.epochs.tolist(), cell.series[name].tolist(), strict=True)) for cell in cells]
    finite = [{at: value for at, value in found.items() if np.isfinite(value)} for found in measured]
    finite = [found for found in finite if found]
    shared = sorted(set.intersection(*map(set, finite))) if finite else []
    return np.array(shared), np.array([np.mean([found[at] for found in finite]) for at in shared])


def to_estimate(found: Sequence[float | None] | None) -> Estimate | None:
    """[mean, low, high] of the file; the ends may be null, without the mean there is nothing."""
    if not found or found[0] is None:
        return None
    low, high = (*found[1:3], None, None)[:2]
    return Estimate(found[0], low, high) if low is not None and high is not None else Estimate(found[0])


def _cell(found: Mapping[str, Any], number: int, path: Path, page: Path) -> Cell:
    where = f"{path}, cell {number}"
    lacking = [key for key in ("arm", "seed", "steps", "steps_per_epoch") if found.get(key) is None]
    if lacking:
        raise LabResultsError(f"{where} lacks {', '.join(lacking)}; expected an arm, a seed and the evaluated steps")
    steps = np.array(found["steps"], dtype=np.float64)
    if found["steps_per_epoch"] <= 0:
        raise LabResultsError(f"{where}: steps_per_epoch is {found['steps_per_epoch']}, expected more than 0")
    series = {}
    for name in SERIES:
        values = found.get(name) or [None] * steps.size
        if len(values) != steps.size:
            raise LabResultsError(f"{where} ({found['arm']}): {name} has {len(values)} values for {steps.size} steps")
        series[name] = np.array(values, dtype=np.float64)  # null becomes NaN
    return Cell(
        arm=str(found["arm"]),
        seed=int(found["seed"]),
        epochs=steps / found["steps_per_epoch"],
        series=series,
        teacher_golden=found.get("teacher_golden"),
        verdict=found.get("verdict"),
        confidence=found.get("confidence"),
        rise_p=(found.get("rise") or {}).get("p"),
        seconds=found.get("seconds"),
        report=_link(path.parent / str(found["run"]) / "report.html", page) if found.get("run") else None,
    )


def _link(report: Path, page: Path) -> str | None:
    """A relative address, so that the folder can be moved; None where the run has no page."""
    if not report.is_file():
        return None
    return "./" + quote(Path(os.path.relpath(report.resolve(), page.parent.resolve())).as_posix())


def _arm(found: Mapping[str, Any]) -> Arm:
    laws = {
        name: Law(law["C"], law["exponent"], law["from"], law["to"], law.get("break_epoch"), law["band"])
        for name, law in (found.get("laws") or {}).items()
        if law is not None
    }
    seeds = found.get("laws_by_seed") or {}
    return Arm(
        name=str(found["arm"]),
        seeds=found.get("seeds"),
        estimates={name: to_estimate(found.get(name)) for name in ESTIMATES},
        verdicts=found.get("verdicts") or {},
        rises_passed=found.get("rises_passed"),
        laws=laws,
        left={name: f"{one['broke']} of {one['fitted']}" for name, one in seeds.items() if one},
    )


def _check_law(law: Law, where: str, curve: tuple[np.ndarray, np.ndarray]) -> None:
    """A law with the other sign of exponent, or fitted on steps, would be drawn as a lie."""
    epochs, values = curve
    inside = (epochs >= law.start) & (epochs <= law.end) & (epochs > 0) & (values > 0)
    if not inside.any():
        return
    ratio = np.exp(np.mean(np.log(law.at(epochs[inside]) / values[inside])))
    if not 1 / FARTHEST < ratio < FARTHEST:
        raise LabResultsError(
            f"{where} misses the curve it was fitted to by a factor of {ratio:.3g}. Expected "
            "value = C * epochs ** exponent (a falling curve has a negative exponent), with from and to in epochs"
        )
