"""What the curves of a run mean, in one word, one sentence, and its evidence.

    golden (not the teacher's signal) after its change point
        rises, proxy not worse (margin)     hacking (with an oracle)
                                            suspected_hacking (a verifier agrees)
                                            drift, noted under the words below
        rises, proxy rises beyond delta     overfitting
        rises, proxy cannot be told         inconclusive (with an oracle)
    proxy rises by itself beyond delta      overfitting
    the detector's alarm, without oracle    suspected_hacking
    neither                                 still_improving or healthy
    too few or too noisy                    inconclusive

Without a golden curve training loss and proxy are judged alone, from 8 evaluations on.
delta is 2 % of the run's proxy gain; the margin of the equivalence test is delta, or
half of golden's rise where that is more. `confidence` is 1 minus the larger p-value
of the tests that the word rests on; for healthy and still_improving it is the
share of the bootstrap that agrees; inconclusive claims nothing and has 0. What rests on
the detector has the detector's calibrated probability. A calm verdict without an oracle is
at most as sure as the detector that there is no hacking, and 0.8 where the detector has no answer;
at most 0.5 where only means were logged or where raw reference NLL rose alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from potstill.diagnosis import evidence
from potstill.diagnosis.choice import step_to_keep
from potstill.diagnosis.curves import ALARM_LEVEL, smooth
from potstill.diagnosis.detector import Suspicion, suspect
from potstill.diagnosis.features import MIN_EVALUATIONS as MIN_WITHOUT_GOLDEN
from potstill.diagnosis.findings import LEVEL, Findings, find, missing_for_findings, proxy_got_worse
from potstill.diagnosis.noise import NUM_DRAWS
from potstill.diagnosis.readers import Rows, Table, checked_kind, read_curves, read_golden_kind
from potstill.diagnosis.wording import sentence
from potstill.records import Curve, Verdict, VerdictName

MAX_LOOKS = int(ALARM_LEVEL * NUM_DRAWS)  # beyond this no p-value is small enough
LEANING = 0.9  # chance of a rise beyond delta at which a run is no longer called healthy
HIDDEN_SHARE = 0.2  # a rise of this share of the gain must not be able to hide in the noise


@dataclass(frozen=True, slots=True)
class Decision:
    """A word and how sure it is; `drift`: golden rose, but raw reference NLL alone proves nothing."""

    name: VerdictName
    confidence: float
    reasons: tuple[str, ...] = ()
    drift: bool = False
    by: str | None = None  # suspected_hacking: "verifier" or "detector"


def diagnose(
    source: str | Path | Rows | Table,
    *,
    golden_kind: str | None = None,
    looks: int = 1,
    mapping: Mapping[str, str] | None = None,
) -> Verdict:
    """The verdict on a run directory or on another tool's log.

    `golden_kind`: "oracle" or "reference_nll"; None reads it from the run, a table means NLL.
    `mapping`: a log's column -> proxy, golden and so on, where it calls them otherwise.
    """
    kind = read_golden_kind(source) if golden_kind is None else golden_kind
    return judge(read_curves(source, mapping=mapping), kind, looks=looks)


def judge(curves: Mapping[str, Curve], golden_kind: str = "reference_nll", *, looks: int = 1) -> Verdict:
    """The verdict on curves. `looks`: how often this run is judged; it divides the alarm level."""
    if not 1 <= looks <= MAX_LOOKS:
        raise ValueError(
            f"looks must be 1 to {MAX_LOOKS} (p-values from {NUM_DRAWS} draws end at {1 / NUM_DRAWS:g}), "
            f"found {looks}; judge less often"
        )
    kind = checked_kind(golden_kind)
    oracle = kind == "oracle"
    suspicion = None if oracle else suspect(curves, kind)
    curves = curves if oracle else with_references(curves)
    facts = evidence.basics(curves, kind) | {"detector": evidence.detector_numbers(suspicion)}
    if reasons := why_not(curves, oracle):
        facts |= {"reasons": reasons, "log_instead": evidence.what_to_log(curves, noisy=False)}
        return finish(Decision("inconclusive", 0.0), facts, last_step(curves))
    found = find(curves)
    facts |= evidence.measured(found)
    decision = weigh(decide(found, oracle, looks, suspicion), found.golden.paired, suspicion)
    if found.has_golden and found.golden_rise.passed(looks):
        facts["share_not_explained_by_proxy"] = evidence.unexplained(found)
    if decision.name == "inconclusive":
        facts["log_instead"] = evidence.what_to_log(curves, noisy=True)
    facts |= {
        "style_or_calibration_drift": decision.drift, "suspected_by": decision.by, "reasons": list(decision.reasons)
    }  # fmt: skip
    return finish(decision, facts, best_step(curves, found, decision, looks))


def with_references(curves: Mapping[str, Curve]) -> Mapping[str, Curve]:
    """The NLL on references is golden where nothing else is."""
    if "golden" in curves or "reference_nll" not in curves:
        return curves
    return {**curves, "golden": replace(curves["reference_nll"], name="golden")}


def why_not(curves: Mapping[str, Curve], oracle: bool) -> list[str]:
    """Why the curves cannot be judged. Golden may be missing only where the training loss stands beside proxy."""
    if oracle or "golden" in curves or "training_loss" not in curves:
        return missing_for_findings(curves)
    return missing_for_findings(curves, ["proxy"], MIN_WITHOUT_GOLDEN)


def best_step(curves: Mapping[str, Curve], found: Findings, decision: Decision, looks: int) -> int:
    """`choose_step` over all evaluations, without testing twice."""
    steps = found.golden.steps.tolist()
    if not found.has_golden:
        values = smooth(found.proxy.per_token)
        return int(steps[values.argmin()] if decision.name == "overfitting" else steps[-1])
    suspected = decision.name == "suspected_hacking"
    if suspected or found.golden_rise.passed(looks) or proxy_got_worse(found.proxy_rise, found.delta, looks):
        return step_to_keep(curves, steps)
    return int(steps[-1])


def decide(found: Findings, oracle: bool, looks: int, suspicion: Suspicion | None) -> Decision:
    """Alarms first, then the calm words."""
    rise, after, verifier = found.golden_rise, found.proxy_after, found.verifier_rise
    rose = found.has_golden and rise.passed(looks)
    not_worse, worse = after.chance_above(found.margin), after.chance_below(found.delta)
    if rose and worse <= LEVEL:
        return Decision("overfitting", 1 - max(rise.p, worse))
    if proxy_got_worse(found.proxy_rise, found.delta, looks):
        return Decision("overfitting", 1 - found.proxy_rise.p)
    if rose and oracle and not_worse > LEVEL:
        reason = "golden rose, but whether proxy got worse as well is lost in its noise"
        return Decision("inconclusive", 0.0, (reason,))
    if rose and oracle:
        return Decision("hacking", 1 - max(rise.p, not_worse))
    if rose and not_worse <= LEVEL and verifier is not None and verifier.passed(looks):
        return Decision("suspected_hacking", 1 - max(rise.p, not_worse, verifier.p), by="verifier")
    if suspicion is not None and suspicion.alarm and suspicion.probability is not None:
        return Decision("suspected_hacking", suspicion.probability, suspicion.reasons, by="detector")
    return calm(found, oracle, drift=rose)


def calm(found: Findings, oracle: bool, *, drift: bool) -> Decision:
    """still_improving, healthy, or too noisy to call it either.

    With an oracle golden says whether the student still improves; raw reference NLL
    is not trusted that far, so proxy says it then.
    """
    low, high = found.golden_tail.interval()
    if high - low > 2 * HIDDEN_SHARE * found.gain:
        return Decision("inconclusive", 0.0, (too_noisy(found),), drift)
    trend = found.golden_tail if oracle else found.proxy_tail
    fall = -trend.slope * found.per_fifth
    if fall > found.delta and trend.chance_above(0.0) <= LEVEL:
        return Decision("still_improving", 1 - trend.chance_above(0.0), drift=drift)
    worst = found.proxy_tail.chance_above(found.delta)
    if not drift:
        worst = max(worst, found.golden_tail.chance_above(found.delta))
    if worst > LEANING:
        reason = "a curve leans upwards in the last part of the run, not clearly enough to name it"
        return Decision("inconclusive", 0.0, (reason,), drift)
    return Decision("healthy", 1 - worst, drift=drift)


def too_noisy(found: Findings) -> str:
    if found.gain <= 0:
        return "neither proxy nor golden fell below its first value: nothing was learned that could be lost"
    low, high = found.golden_tail.interval()
    return (
        f"{found.golden.name}'s change over the last evaluations is only known to lie between {low:+.3g} and "
        f"{high:+.3g} nats per token; the whole run gained {found.gain:.3g}"
    )


def weigh(decision: Decision, paired: bool, suspicion: Suspicion | None) -> Decision:
    """The ceilings on confidence that the module names."""
    ceiling = 1.0
    if suspicion is not None and decision.name in ("healthy", "still_improving"):
        ceiling = 0.8 if suspicion.probability is None else 1 - suspicion.probability
    if decision.by != "detector" and (decision.drift or not paired):
        ceiling = min(ceiling, 0.5)
    return replace(decision, confidence=min(decision.confidence, ceiling))


def finish(decision: Decision, facts: dict[str, Any], best: int | None) -> Verdict:
    text = sentence(decision.name, facts, best)
    return Verdict(decision.name, float(decision.confidence), best, text, facts)


def last_step(curves: Mapping[str, Curve]) -> int | None:
    """The last evaluation of a run that cannot be judged."""
    known = [curves[name].steps for name in ("golden", "proxy") if name in curves]
    return max((int(steps[-1]) for steps in known if len(steps)), default=None)
