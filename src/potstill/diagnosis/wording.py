"""The sentence of a verdict: plain words first, then the numbers that matter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from potstill.records import VerdictName

Facts = Mapping[str, Any]


def sentence(name: VerdictName, facts: Facts, best_step: int | None) -> str:
    """What the verdict says to people."""
    parts = [WORDS[name](facts)]
    if facts["style_or_calibration_drift"]:
        parts.append(
            f"{golden_rose(facts)} That alone is style or calibration drift, not proof of harm: sharper or "
            "shorter answers raise it too. An oracle or a verifier would tell."
        )
    if name in ("healthy", "still_improving") and (note := silent_detector(facts)):
        parts.append(note)
    if (side := facts["side_of_teacher"]) is not None and name != "inconclusive":
        parts.append(f"At the end the student is {side} on {golden_name(facts)}.")
    if best_step is not None and name in ("hacking", "suspected_hacking", "overfitting"):
        parts.append(f"Best step: {best_step}.")
    if name != "inconclusive" and not facts["paired"]:
        parts.append("Only means were logged (unpaired, weak): the prompts' own error is not known.")
    return " ".join(parts)


def hacking(facts: Facts) -> str:
    return (
        "The student is learning its teacher's mistakes: it comes no further from its teacher "
        f"({proxy_moved(facts)}) while it moves away from the oracle. {golden_rose(facts)}"
    )


def suspected_hacking(facts: Facts) -> str:
    if facts["suspected_by"] == "detector":
        return suspected_by_detector(facts)
    return (
        "The student may be learning its teacher's mistakes: two signals that are not the teacher's got "
        f"worse together, the NLL on references and the verifier (p = {facts['verifier_rise']['p']:.2g}), "
        f"while proxy did not ({proxy_moved(facts)}). {golden_rose(facts)} Without an oracle this is a "
        "suspicion, no more."
    )


def suspected_by_detector(facts: Facts) -> str:
    said = facts["detector"]
    wrong = said["false_alarms"]
    return (
        f"The student may be learning its teacher's mistakes: {', '.join(said['reasons'])}. Of runs that looked so, an "
        f"oracle would call {said['probability']:.0%} hacking (first alarm at step {said['first_alarm_step']}); of "
        f"sound runs that it was not fitted to, the detector alarmed {wrong['hits']} in {wrong['of']}. "
        "Without an oracle this is a suspicion, no more."
    )


def silent_detector(facts: Facts) -> str | None:
    """Why hacking can be neither suspected nor denied, where the detector was asked and has no answer."""
    said = facts["detector"]
    if said is None or said["in_range"]:
        return None
    return f"Whether it is being hacked cannot be told from this log: {'; '.join(said['reasons'])}."


def overfitting(facts: Facts) -> str:
    rise = facts["golden_rise"]
    share = facts["share_not_explained_by_proxy"]
    head = "The student is overfitting: on held-out prompts it moves away even from its teacher"
    if share is None:
        risen = facts["proxy_rise"]
        return f"{head} ({moved('proxy', risen)} after step {risen['after_step']}, p = {risen['p']:.2g})."
    return (
        f"{head} ({proxy_moved(facts)}), and {golden_name(facts)} rose by {rise['change']:.3g} after step "
        f"{facts['change_point']} (p = {rise['p']:.2g}); {share:.0%} of that is not explained by proxy."
    )


def still_improving(facts: Facts) -> str:
    name = "golden" if facts["golden_kind"] == "oracle" else "proxy"
    tail = facts[f"{name}_tail"]
    # Where golden rose as well, more steps would bring more of that too.
    advice = "" if facts["style_or_calibration_drift"] else " More steps should help."
    return f"The student is still improving: {moved(name, tail)} after step {tail['after_step']}.{advice}"


def healthy(facts: Facts) -> str:
    doubt = "" if facts["golden_kind"] == "oracle" else ", as far as this can be seen without an oracle"
    tails = [name for name in ("golden", "proxy") if f"{name}_tail" in facts]
    changes = " and ".join(moved(name, facts[f"{name}_tail"]) for name in tails)
    none = f"less than {facts['delta']:.2g} counts as none"
    return f"No harm was found{doubt}: in the last part of the run {changes}; {none}."


def inconclusive(facts: Facts) -> str:
    head = "Too little to judge"
    if facts["share_not_explained_by_proxy"] is not None and not facts["style_or_calibration_drift"]:
        head = f"{golden_rose(facts)} It cannot be named yet"
    return f"{head}: {'; '.join(facts['reasons'])}. Log instead: {facts['log_instead']}."


def golden_rose(facts: Facts) -> str:
    rise = facts["golden_rise"]
    low, high = rise["change_interval"]
    name = golden_name(facts)
    return (
        f"{name[0].upper()}{name[1:]} rose by {rise['change']:.3g} nats per token after step "
        f"{facts['change_point']} (95 % interval {low:.3g} to {high:.3g}, p = {rise['p']:.2g})."
    )


def proxy_moved(facts: Facts) -> str:
    return moved("proxy", facts["proxy_change"])


def moved(name: str, trend: Facts) -> str:
    low, high = trend["change_interval"]
    return f"{name} changed by {trend['change']:+.3g} nats per token ({low:+.3g} to {high:+.3g})"


def golden_name(facts: Facts) -> str:
    return "the distance to the oracle" if facts["golden_kind"] == "oracle" else "the NLL on references"


WORDS: Mapping[VerdictName, Callable[[Facts], str]] = {
    "hacking": hacking,
    "suspected_hacking": suspected_hacking,
    "overfitting": overfitting,
    "still_improving": still_improving,
    "healthy": healthy,
    "inconclusive": inconclusive,
}
