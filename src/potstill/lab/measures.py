"""What one cell says, as single numbers: how far golden rose, what proxy gained, where a curve ended.

All values are nats per sequence. A measure gives None where the cell does not hold it;
the seed is then left out, and the effect says over how many seeds it stands.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from potstill.diagnosis.curves import MIN_AFTER, lowest, smooth
from potstill.lab.cells import Cell

#: What a change has to be to count, as a share of the gain: the same 2 % as in verdicts.
COUNTS_SHARE = 0.02


@dataclass(frozen=True, slots=True)
class GoldenRise:
    """How far golden rose after its lowest point, and how that was measured."""

    value: float
    kind: Literal["fitted", "last_minus_lowest"]
    turn: int  # step


def golden_rise(cell: Cell) -> GoldenRise | None:
    """The U test's fitted change where golden was testable, else its last value minus its smoothed minimum.

    The second is what remains when the minimum lies within the last four evaluations:
    golden has hardly had time to rise. It leans above 0, for a minimum is low partly by
    luck; so no finding rests on a rise above 0 without counting U tests beside it.
    """
    if cell.rise is not None:
        return GoldenRise(cell.rise.change, "fitted", cell.rise.change_point)
    steps, values = cell.measured("golden")
    if len(values) < 2:
        return None
    low = int(lowest(values))
    return GoldenRise(float(values[-1] - smooth(values)[low]), "last_minus_lowest", int(steps[low]))


def rise_value(cell: Cell) -> float | None:
    rise = golden_rise(cell)
    return None if rise is None else rise.value


def last(cell: Cell, name: str) -> float | None:
    """The last value of a series."""
    _, values = cell.measured(name)
    return float(values[-1]) if len(values) else None


def smoothed_lowest(cell: Cell, name: str) -> float | None:
    """The lowest of the running means of three."""
    _, values = cell.measured(name)
    return float(smooth(values).min()) if len(values) > 1 else None


def gain(cell: Cell, name: str) -> float | None:
    """From the first evaluation to the smoothed minimum; 0 where it never fell."""
    _, values = cell.measured(name)
    return max(0.0, float(values[0] - smooth(values).min())) if len(values) > 1 else None


def fitted_change(steps: np.ndarray, values: np.ndarray) -> float:
    """From the first to the last of a least-squares line; two values or more."""
    centred = steps - steps.mean()
    return float(centred @ values / (centred @ centred) * (steps[-1] - steps[0]))


def late_change(cell: Cell, name: str) -> float | None:
    """The fitted change over the second half of the run."""
    steps, values = cell.measured(name)
    late = steps * 2 >= max(cell.steps, default=0)
    return fitted_change(steps[late], values[late]) if late.sum() > 1 else None


def proxy_after_turn(cell: Cell) -> float | None:
    """Proxy's change from golden's turn to the end: fitted where four evaluations follow, else the plain difference."""
    rise = golden_rise(cell)
    steps, values = cell.measured("proxy")
    if rise is None or not (steps <= rise.turn).any():
        return None
    after = steps > rise.turn
    if after.sum() >= MIN_AFTER:
        return fitted_change(steps[after], values[after])
    return float(values[-1] - values[~after][-1])


def proxy_beyond_allowance(cell: Cell) -> float | None:
    """Proxy's change after golden's turn, minus what still counts as no worse.

    That is 2 % of proxy's gain, or half of golden's rise where that is more: what proxy
    did then does not explain most of the rise. Below 0 a rise of golden is hacking,
    above it overfitting (the same margin as in verdicts).
    """
    change, gained, rise = proxy_after_turn(cell), gain(cell, "proxy"), rise_value(cell)
    if change is None or gained is None or rise is None:
        return None
    return change - max(COUNTS_SHARE * gained, rise / 2)


def golden_between(cell: Cell, first_epoch: int, second_epoch: int) -> float | None:
    """Golden at the end of the second epoch minus golden at the end of the first; None without an evaluation there."""
    steps, values = cell.measured("golden")
    found = dict(zip(steps.tolist(), values.tolist(), strict=True))
    first, second = (found.get(epoch * cell.steps_per_epoch) for epoch in (first_epoch, second_epoch))
    return None if first is None or second is None else float(second - first)


def minus_teacher(cell: Cell) -> float | None:
    """Where golden ended, seen from the teacher's own distance to the oracle; below 0 is closer than the teacher."""
    end = last(cell, "golden")
    return None if end is None or cell.teacher_golden is None else end - cell.teacher_golden
