"""Everything a verdict rests on, measured once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from potstill.diagnosis.curves import MIN_AFTER, Rise, Trend, rise_test, smooth, trend_after, usable
from potstill.records import Curve

MIN_EVALUATIONS = 6  # with step > 0
MIN_PROMPTS = 8
DELTA_SHARE = 0.02  # of the run's proxy gain
LEVEL = 0.05  # of the tests that have no change point to choose
TAIL_SHARE = 0.4  # of the run: where "still improving" is looked for


@dataclass(frozen=True, slots=True)
class Findings:
    """The curves and what the tests said; all changes in nats per token.

    Without a golden curve proxy stands in its place, and only proxy's tests are to be read.
    """

    golden: Curve
    proxy: Curve
    delta: float  # 2 % of the proxy gain
    gain: float  # the larger of proxy's and golden's fall
    golden_rise: Rise
    proxy_rise: Rise
    verifier_rise: Rise | None
    proxy_after: Trend  # after golden's change point; over the tail when it has none
    golden_tail: Trend
    proxy_tail: Trend
    per_fifth: float  # steps in a fifth of the run

    @property
    def has_golden(self) -> bool:
        return self.golden is not self.proxy

    @property
    def margin(self) -> float:
        """How much worse proxy may be and still count as no worse.

        delta, or half of golden's rise where that is more: whatever proxy did then, it
        does not explain most of the rise. With delta alone a large rise stayed nameless
        in half of the simulated runs.
        """
        rise = self.golden_rise.trend
        return max(self.delta, 0.0 if rise is None else rise.change / 2)


def missing_for_findings(
    curves: Mapping[str, Curve], names: Sequence[str] = ("proxy", "golden"), least: int = MIN_EVALUATIONS
) -> list[str]:
    """Why the curves `names` cannot be judged; empty when they can. `least`: evaluations after step 0."""
    reasons = []
    for name in names:
        if name not in curves:
            reasons.append(f"there is no {name} curve")
            continue
        curve = curves[name]
        num = int((usable_steps(curve) > 0).sum())
        if num < least:
            reasons.append(f"{name} has {num} usable evaluations after step 0, at least {least} are needed")
        if curve.paired and len(curve.prompt_ids) < MIN_PROMPTS:
            reasons.append(f"{name} was measured on {len(curve.prompt_ids)} prompts, at least {MIN_PROMPTS} are needed")
    return reasons


def usable_steps(curve: Curve) -> np.ndarray:
    return usable(curve).steps


def find(curves: Mapping[str, Curve]) -> Findings:
    """Measure; the curves must have passed `missing_for_findings`, golden only where there is one."""
    proxy = usable(curves["proxy"])
    golden = usable(curves["golden"]) if "golden" in curves else proxy
    proxy_rise = rise_test(proxy)
    golden_rise = proxy_rise if golden is proxy else rise_test(golden)
    tail = tail_start(golden)
    turn = golden_rise.change_point
    return Findings(
        golden=golden,
        proxy=proxy,
        delta=proxy_delta(proxy),
        gain=max(fall(proxy), fall(golden)),
        golden_rise=golden_rise,
        proxy_rise=proxy_rise,
        verifier_rise=verifier_test(curves),
        proxy_after=trend_after(proxy, tail if turn is None else turn),
        golden_tail=trend_after(golden, tail),
        proxy_tail=trend_after(proxy, tail),
        per_fifth=float(golden.steps[-1] - golden.steps[0]) / 5,
    )


def proxy_got_worse(rise: Rise, delta: float, looks: int = 1) -> bool:
    """Did proxy turn upwards by more than delta, without golden's change point to point at it?"""
    return rise.passed(looks) and rise.trend is not None and rise.trend.chance_below(delta) <= LEVEL


def verifier_test(curves: Mapping[str, Curve]) -> Rise | None:
    """The second surrogate, where there is one with enough evaluations and prompts."""
    if "verifier_failure" not in curves:
        return None
    curve = usable(curves["verifier_failure"])
    if len(curve.steps) <= MIN_AFTER or (curve.paired and len(curve.prompt_ids) < MIN_PROMPTS):
        return None
    return rise_test(curve)


def proxy_delta(proxy: Curve) -> float:
    """The change of proxy that is taken for none."""
    return DELTA_SHARE * fall(proxy)


def fall(curve: Curve) -> float:
    """From the first evaluation to the smoothed minimum, nats per token."""
    return max(0.0, float(curve.per_token[0] - smooth(curve.per_token).min()))


def tail_start(curve: Curve) -> int:
    """The step after which the last two fifths of the run begin."""
    return int(curve.steps[-1] - TAIL_SHARE * (curve.steps[-1] - curve.steps[0]))
