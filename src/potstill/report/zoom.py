"""The late part of a run, enlarged.

A student made of cut layers starts ten nats away and is near its end after a few
evaluations. Drawn whole, such a path is one long line and a heap of points, and the
heap is what the reader came for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from potstill.records import Curve
from potstill.report.numbers import teacher_value

SKIPPED = 1 / 3  # share of a run that the enlarged part leaves out
CROWDED = 1 / 3  # it is worth a figure when the rest fills less than this of the room
FEWEST_POINTS = 3
Curves = Mapping[str, Curve]


def enlarged(runs: Sequence[Curves], axes: tuple[str, str]) -> list[dict[str, Curve]] | None:
    """The runs' curves on `axes` without their first third; None where that would show no more."""
    late = [{name: _late(curves[name]) for name in axes if name in curves} for curves in runs]
    if any(curve.steps.size < FEWEST_POINTS for curves in late for curve in curves.values()):
        return None
    rooms = [(_extent(runs, name), _extent(late, name)) for name in axes]
    if any(part >= CROWDED * whole for whole, part in rooms):
        return None
    return _without_far_teachers(late, _extent(late, axes[1]))


def _late(curve: Curve) -> Curve:
    keep = curve.steps >= curve.steps[-1] * SKIPPED
    return replace(curve, steps=curve.steps[keep], sums=curve.sums[keep], tokens=curve.tokens[keep])


def _extent(runs: Sequence[Curves], name: str) -> float:
    return float(np.ptp(np.concatenate([curves[name].per_token for curves in runs if name in curves])))


def _without_far_teachers(runs: list[dict[str, Curve]], extent: float) -> list[dict[str, Curve]]:
    """Lines that are far away would make the figure as crowded as the whole one."""
    judged = [curve for curves in runs for curve in curves.values() if curve.teacher is not None]
    gaps = [np.abs((teacher_value(curve) or 0.0) - curve.per_token).min() for curve in judged]
    if not gaps or max(gaps) <= extent:
        return runs
    return [{name: replace(curve, teacher=None) for name, curve in curves.items()} for curves in runs]
