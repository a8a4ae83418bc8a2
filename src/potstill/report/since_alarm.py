"""What became of the curves after an alarm: where they stood, where they ended, how they sloped before and after.

    0 ..... lowest golden ......... alarm ................. the end, or the next remedy
                   slope before it  |     slope after it, from the next evaluation on

The alarm rose out of these curves, so on the prompts that it looked at a part of any
fall after it is a return to the mean. Where the run kept prompts out of its sight
(`on_alarm.alarm_prompts`) they measure. What measures does not choose: the lowest evaluation
and the change point come from the other prompts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from potstill.diagnosis.curves import MIN_AFTER, lowest, slope_weights, trend_after, usable
from potstill.diagnosis.views import finite, later, of_prompts, seen_by_alarm, until
from potstill.records import Curve
from potstill.report.alarms import Alarm
from potstill.report.numbers import FEWEST_PROMPTS, LABELS, Estimate, estimate
from potstill.report.sections import describe_prompts

MEASURED = ("golden", "proxy")
Curves = Mapping[str, Curve]


@dataclass(frozen=True, slots=True)
class Slope:
    """A straight line through the evaluations of some steps."""

    steps: tuple[int, int]  # the first and the last that it was fitted to
    per_token: Estimate  # nats per token, over `Since.unit` steps
    per_sequence: Estimate  # nats per sequence, over as many


@dataclass(frozen=True, slots=True)
class Course:
    """One curve around an alarm, nats per token."""

    label: str
    at: Estimate  # the alarm's own evaluation
    end: Estimate
    change: Estimate  # end - at
    best: Estimate | None  # at `Since.best_step`
    beyond: Estimate | None  # end - best
    before: Slope | None  # None: too few evaluations
    after: Slope | None


@dataclass(frozen=True, slots=True)
class Since:
    """What followed an alarm."""

    step: int
    end: int  # the next remedy's step, or the last evaluation
    best_step: int | None  # of the lowest golden (proxy, where there is none) up to the alarm; None: the alarm's own
    evaluations: int  # after the alarm's own, up to the end
    unit: int  # steps that a slope is given over
    courses: dict[str, Course]
    prompts: str
    unseen: bool  # the alarm did not look at these prompts

    @property
    def sloped(self) -> bool:
        """Whether any slope could be fitted."""
        return any(one.before or one.after for one in self.courses.values())


def since_alarms(measured: Curves, alarms: Sequence[Alarm], alarm_prompts: int | None) -> tuple[Since | None, ...]:
    """What followed each alarm up to the next remedy; None where no evaluation did.

    `measured` holds all held-out prompts; `alarm_prompts` of them raised the alarm, None: all.
    """
    acted = [alarm.step for alarm in alarms if alarm.changes]
    found = []
    for alarm in alarms:
        begin = max((step for step in acted if step < alarm.step), default=0)
        end = min((step for step in acted if step > alarm.step), default=None)
        curves = {name: finite(measured[name]) for name in MEASURED if name in measured}
        curves = {name: within(curve, 0, end) for name, curve in curves.items() if alarm.step in curve.steps}
        followed = any(curve.steps[-1] > alarm.step for curve in curves.values())
        found.append(_since(curves, alarm, begin, alarm_prompts) if followed else None)
    return tuple(found)


def _since(curves: Curves, alarm: Alarm, begin: int, alarm_prompts: int | None) -> Since:
    parts = {name: sides(curve, alarm_prompts) for name, curve in curves.items()}
    chosen_by = {name: of_prompts(curves[name], choose) for name, (_, choose, _) in parts.items()}
    shown = {name: of_prompts(curves[name], measure) for name, (measure, _, _) in parts.items()}
    first = next(iter(shown.values()))
    best_step = lowest_step(within(next(iter(chosen_by.values())), 0, alarm.step))
    turning = turning_step(chosen_by, alarm, begin)
    unit = 10 ** int(np.log10(max(10, first.steps[-1])))
    return Since(
        step=alarm.step,
        end=int(first.steps[-1]),
        best_step=None if best_step == alarm.step else best_step,
        evaluations=int((first.steps > alarm.step).sum()),
        unit=unit,
        courses={name: course(curve, alarm.step, best_step, (begin, turning), unit) for name, curve in shown.items()},
        prompts=describe_prompts(shown),
        unseen=all(unseen for _, _, unseen in parts.values()),
    )


def course(curve: Curve, step: int, best_step: int, before: tuple[int, int | None], unit: int) -> Course:
    """One curve's levels and slopes. `before`: where its slope before the alarm may begin, and where it turned."""
    where = {int(at): index for index, at in enumerate(curve.steps)}
    at, low = where[step], where.get(best_step)
    sums, tokens = curve.sums, curve.tokens
    best = beyond = None
    if low is not None and low != at:
        best = estimate(curve, sums[low], tokens[low])
        beyond = estimate(curve, sums[-1], tokens[-1], (sums[low], tokens[low]))
    past = within(curve, before[0], step)
    start = past.steps.size - MIN_AFTER - 1  # the last evaluations, where it did not turn
    if before[1] is not None:
        start = min(start, int(np.searchsorted(past.steps, before[1])))
    return Course(
        label=LABELS[curve.name][0],
        at=estimate(curve, sums[at], tokens[at]),
        end=estimate(curve, sums[-1], tokens[-1]),
        change=estimate(curve, sums[-1], tokens[-1], (sums[at], tokens[at])),
        best=best,
        beyond=beyond,
        before=slope(within(past, int(past.steps[start]), step), unit) if start >= 0 else None,
        after=slope(within(curve, step, None), unit),
    )


def slope(curve: Curve, unit: int) -> Slope | None:
    """The line through all evaluations but the first, from which it starts; None where fewer than four are left."""
    if curve.steps.size < MIN_AFTER + 1:
        return None
    rest = usable(within(curve, int(curve.steps[1]), None))
    curve = replace(
        curve, steps=np.append(curve.steps[:1], rest.steps), sums=np.vstack([curve.sums[:1], rest.sums]),
        tokens=np.vstack([curve.tokens[:1], rest.tokens]),
    )  # fmt: skip
    sequences = replace(curve, tokens=np.ones_like(curve.tokens))
    ends = int(curve.steps[1]), int(curve.steps[-1])
    return Slope(ends, fitted(curve, unit), fitted(sequences, unit))


def fitted(curve: Curve, unit: int) -> Estimate:
    """The least-squares slope after the first evaluation, with the interval that `diagnosis` gives its trends.

    It knows the prompts' noise, redrawn the same at all steps, and the jitter from step to step.
    """
    value = float(slope_weights(curve.steps.astype(float))[0] @ curve.per_token) * unit
    if not curve.paired or curve.prompt_ids.size < FEWEST_PROMPTS:
        return Estimate(value)
    trend = trend_after(curve, int(curve.steps[0]))
    low, high = trend.interval(unit / trend.span)
    return Estimate(value, low, high)


# -- which prompts, which steps -------------------------------------------------


def sides(curve: Curve, alarm_prompts: int | None) -> tuple[np.ndarray, np.ndarray, bool]:
    """[P] the prompts that measure, [P] those that choose; and whether the alarm never saw the first."""
    everyone = np.ones(curve.prompt_ids.size, dtype=bool)
    if alarm_prompts is not None and curve.paired:
        seen = seen_by_alarm(curve.prompt_ids, alarm_prompts)
        if (~seen).sum() >= FEWEST_PROMPTS:
            return ~seen, seen, True
    test = curve.splits == "test"
    if test.sum() < FEWEST_PROMPTS:
        return everyone, everyone, False
    return test, everyone if (~test).sum() < FEWEST_PROMPTS else ~test, False


def turning_step(curves: Curves, alarm: Alarm, begin: int) -> int | None:
    """The lowest evaluation from `begin` up to the alarm, if four follow it; of golden, or of proxy in overfitting."""
    names = sorted(curves, reverse=alarm.verdict == "overfitting")
    for name in names:
        past = within(curves[name], begin, alarm.step)
        if past.steps.size > MIN_AFTER and (step := lowest_step(past)) <= past.steps[-MIN_AFTER - 1]:
            return step
    return None


def lowest_step(curve: Curve) -> int:
    return int(curve.steps[lowest(curve.per_token)])


def within(curve: Curve, first: int, last: int | None) -> Curve:
    """The evaluations from one step to another, both with them."""
    begun = later(curve, first)
    return begun if last is None else until(begun, last)
