"""One cell of an experiment: one arm on one seed, as numbers.

A cell is a finished run without its weights: what every evaluation measured, the
verdict, and the U test on golden. It is what results.json lists, so that findings,
tables and pages need the file and not the runs.

All series are nats per sequence, the mean over held-out prompts. The training loss is
logged in nats per token; it is multiplied by the mean length of the teacher's held-out
completions, the same number for every arm of a seed, so that it can stand beside proxy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from potstill.diagnosis.curves import ALARM_LEVEL, rise_test, usable
from potstill.diagnosis.findings import MIN_EVALUATIONS, missing_for_findings
from potstill.diagnosis.readers import read_curves, read_golden_kind
from potstill.diagnosis.verdict import judge
from potstill.records import Curve

Series = tuple[float | None, ...]
SERIES = ("proxy", "golden", "training_loss", "proxy_fkl")


@dataclass(frozen=True, slots=True)
class RiseSummary:
    """The U test on golden, nats per sequence."""

    p: float
    change_point: int  # step of golden's smoothed minimum
    change: float  # of the line fitted after it
    interval: tuple[float, float]  # 95 %, over prompts and evaluations

    @property
    def passed(self) -> bool:
        """Did golden rise, at the level at which verdicts call it?"""
        return self.p <= ALARM_LEVEL


@dataclass(frozen=True, slots=True)
class Cell:
    """One arm on one seed; series hold one value per evaluation, None where it was not measured or not finite."""

    arm: str
    seed: int
    run: str  # the run directory, relative to results.json
    epochs: float
    steps_per_epoch: int
    verdict: str
    confidence: float
    steps: tuple[int, ...]
    proxy: Series
    golden: Series
    training_loss: Series
    proxy_fkl: Series
    teacher_golden: float | None = None
    rise: RiseSummary | None = None  # None where golden's minimum is too late, or evaluations are too few
    seconds: float | None = None

    def __post_init__(self) -> None:
        for name in SERIES:
            if len(getattr(self, name)) != len(self.steps):
                raise ValueError(
                    f"cell {self.arm}, seed {self.seed}: {name} has {len(getattr(self, name))} values, expected one "
                    f"for each of the {len(self.steps)} evaluations in steps; put null where it was not measured"
                )

    def measured(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Steps [S] and values [S] of a series, without the evaluations that lack it."""
        pairs = [
            (step, value) for step, value in zip(self.steps, getattr(self, name), strict=True) if value is not None
        ]
        return np.array([step for step, _ in pairs], dtype=np.int64), np.array([value for _, value in pairs])

    def rose(self) -> bool | None:
        """Did golden pass the U test? None where too few evaluations leave the question open."""
        if self.rise is not None:
            return self.rise.passed
        steps, _ = self.measured("golden")
        return False if (steps > 0).sum() >= MIN_EVALUATIONS else None

    def to_json(self) -> dict[str, Any]:
        """Plain values, as they stand in results.json."""
        tree: dict[str, Any] = asdict(self)
        for name in (*SERIES, "steps"):
            tree[name] = list(tree[name])
        if self.rise is not None:
            tree["rise"]["interval"] = list(self.rise.interval)
        return tree

    @staticmethod
    def from_json(tree: Mapping[str, Any]) -> Cell:
        """The inverse of `to_json`; ValueError names what lacks or is unknown."""
        known = {field.name for field in fields(Cell)}
        optional = {"teacher_golden", "rise", "seconds"}
        if known - optional - set(tree) or set(tree) - known:
            raise ValueError(
                f"a cell of results.json needs {sorted(known - optional)} and may have {sorted(optional)}; missing "
                f"{sorted(known - optional - set(tree))}, unknown {sorted(set(tree) - known)}"
            )
        values = dict(tree) | {name: tuple(tree[name]) for name in (*SERIES, "steps")}
        if (rise := tree.get("rise")) is not None:
            values["rise"] = RiseSummary(**{**rise, "interval": tuple(rise["interval"])})
        return Cell(**values)


def cell_of_run(
    run_path: str | Path,
    arm: str,
    seed: int,
    epochs: float,
    steps_per_epoch: int,
    *,
    relative_to: str | Path | None = None,
    seconds: float | None = None,
) -> Cell:
    """Read a run directory whose golden is an oracle's.

    `relative_to`: the folder of results.json, against which `run` is written. Raises
    ValueError where the run has no evaluations, no golden, proxy or proxy_fkl, or no oracle.
    """
    path = Path(run_path)
    if (kind := read_golden_kind(path)) != "oracle":
        raise ValueError(f"{path}: golden is {kind}, expected oracle; the lab's findings are about a known truth")
    curves = read_curves(path)
    verdict = judge(curves, kind)
    if absent := sorted({"golden", "proxy", "proxy_fkl"} - set(curves)):
        raise ValueError(
            f"{path} measured no {', '.join(absent)}; a cell needs a run that the built-in monitor watched"
        )
    golden = curves["golden"]
    length = float(curves["proxy_fkl"].tokens.mean())
    return Cell(
        arm=arm,
        seed=seed,
        run=str(path if relative_to is None else path.relative_to(relative_to)),
        epochs=epochs,
        steps_per_epoch=steps_per_epoch,
        verdict=verdict.verdict,
        confidence=verdict.confidence,
        steps=tuple(golden.steps.tolist()),
        proxy=series_at(golden.steps, curves["proxy"]),
        golden=series_at(golden.steps, golden),
        training_loss=series_at(golden.steps, curves.get("training_loss"), length),
        proxy_fkl=series_at(golden.steps, curves["proxy_fkl"]),
        teacher_golden=None if golden.teacher is None else float(golden.teacher.mean()),
        rise=rise_of(curves),
        seconds=seconds,
    )


def series_at(steps: np.ndarray, curve: Curve | None, scale: float = 1.0) -> Series:
    """The mean over prompts at each of `steps`, times `scale`; None where not measured or not finite."""
    if curve is None:
        return (None,) * len(steps)
    found = dict(zip(curve.steps.tolist(), (curve.sums.mean(1) * scale).tolist(), strict=True))
    values = (found.get(step, math.nan) for step in steps.tolist())
    return tuple(value if math.isfinite(value) else None for value in values)


def rise_of(curves: Mapping[str, Curve]) -> RiseSummary | None:
    """The U test, from nats per token to nats per sequence (golden's tokens are the same at every evaluation)."""
    if missing_for_findings(curves):
        return None
    golden = usable(curves["golden"])
    rise = rise_test(golden)
    if rise.trend is None or rise.change_point is None:
        return None
    length = float(golden.tokens.mean())
    low, high = rise.trend.interval(length)
    return RiseSummary(rise.p, rise.change_point, rise.trend.change * length, (low, high))
