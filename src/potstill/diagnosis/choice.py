"""Which checkpoint to keep, and which to export.

The last one, unless golden rose or proxy got worse by itself. Then the most
distilled of those that the rise has not reached: lowest proxy among the evaluations
whose golden is not significantly above its minimum. The lowest golden alone would
export the least distilled student.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from potstill.diagnosis.curves import MIN_AFTER, lowest, prompt_halves, rise_test, smooth, usable
from potstill.diagnosis.findings import missing_for_findings, proxy_delta, proxy_got_worse
from potstill.diagnosis.noise import draw_noise
from potstill.records import Curve


def choose_step(curves: Mapping[str, Curve], available_steps: Sequence[int], *, suspected: bool = False) -> int:
    """The step to export among those whose checkpoint exists; some 20 milliseconds.

    `suspected`: an alarm stands that does not rest on a proven rise; it counts as one.
    """
    if missing_for_findings(curves) or not (suspected or turned(curves)):
        return last_of(available_steps)
    return step_to_keep(curves, available_steps)


def turned(curves: Mapping[str, Curve]) -> bool:
    """Did either curve pass the test for a rise?"""
    if rise_test(usable(curves["golden"])).passed():
        return True
    proxy = usable(curves["proxy"])
    return proxy_got_worse(rise_test(proxy), proxy_delta(proxy))


def step_to_keep(curves: Mapping[str, Curve], available_steps: Sequence[int]) -> int:
    """The step that `choose_step` would take if golden's rise were already proven.

    A rise is proven only evaluations after the minimum, when a trainer that keeps
    the last two checkpoints has deleted the one it would then want. So it keeps
    this one too.
    """
    last = last_of(available_steps)
    if missing_for_findings(curves):
        return last
    golden, proxy = usable(curves["golden"]), usable(curves["proxy"])
    good = low_golden(golden)
    where = nearest(golden.steps, available_steps)
    if not good[where].any():
        return int(np.asarray(available_steps)[golden.per_token[where].argmin()])
    cost = proxy.per_token[nearest(proxy.steps, available_steps)]
    cost = np.where(good[where], cost, np.inf)
    return int(np.asarray(available_steps)[cost == cost.min()].max())


def low_golden(golden: Curve) -> np.ndarray:
    """[S] True where golden is not significantly (5 %, one-sided) above its smoothed minimum."""
    values = golden.per_token
    low = int(lowest(values))
    start = min(low, len(values) - MIN_AFTER - 1)
    errors = draw_noise(golden, prompt_halves(golden), start).pooled()
    floor, floor_errors = smooth(values)[low], smooth(errors)[:, low]
    slack = np.quantile(errors - floor_errors[:, None], 0.95, axis=0)
    good = values - floor <= slack
    good[low] = True
    return np.asarray(good)


def nearest(steps: np.ndarray, wanted: Sequence[int]) -> np.ndarray:
    """Index of the evaluation closest to each wanted step."""
    return np.asarray(np.abs(np.subtract.outer(np.asarray(wanted), steps)).argmin(1))


def last_of(available_steps: Sequence[int]) -> int:
    if len(available_steps) == 0:
        raise ValueError("no checkpoint to choose from: available_steps is empty; save one first")
    return int(max(available_steps))
