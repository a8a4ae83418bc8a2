"""Sentences on what followed an alarm. Where nothing improved they say so first.

What can be said is what happened after it, not what it did: a run has no twin
that went on without. And golden is a distance to the truth only where there is an oracle.
"""

from __future__ import annotations

from collections.abc import Sequence

from potstill.diagnosis.curves import MIN_AFTER
from potstill.report.alarms import Alarm
from potstill.report.numbers import Estimate
from potstill.report.since_alarm import Course, Since, Slope
from potstill.report.template import nats


def findings(alarm: Alarm, since: Since, golden_kind: str) -> list[str]:
    """What followed, in sentences: of the curve that the alarm is about first, and of the other."""
    names = list(since.courses)
    first, leading = since.courses[names[0]], about(alarm, since)
    said = [*improvement(alarm, since), change_sentence(leading, since), slope_sentence(leading, since)]
    said += [change_sentence(one, since) for one in since.courses.values() if one is not leading]
    if first.beyond is not None:
        said.append(best_sentence(first, first.beyond, since))
    said.append(RULER[golden_kind] if names[0] == "golden" else "There is no golden, only the distance to the teacher.")
    if alarm.without_oracle:
        said.append("The alarm was raised without the oracle; these figures use it.")
    return said


def about(alarm: Alarm, since: Since) -> Course:
    """Proxy in overfitting; else golden, proxy where there is none."""
    if alarm.verdict == "overfitting" and "proxy" in since.courses:
        return since.courses["proxy"]
    return next(iter(since.courses.values()))


def improvement(alarm: Alarm, since: Since) -> list[str]:
    """That nothing got better, where it did not. A hacking student gets closer to its teacher: that is no cure."""
    curves = [about(alarm, since)] if alarm.verdict != "overfitting" else list(since.courses.values())
    changes = [one.change for one in curves]
    if any(one.high is None or one.high < 0 for one in changes):
        return []
    certain = all(one.low is not None and one.low > 0 for one in changes)
    return ["Nothing improved." if certain else "No improvement can be told from noise."]


#: What golden is worth.
RULER = {
    "oracle": "Golden is the distance to the oracle, which is the truth of this experiment.",
    "reference_nll": "Golden is the NLL of references. Lower says that they are likelier, not that the student's "
    "answers are better: style and calibration move it too.",
}


def change_sentence(one: Course, since: Since) -> str:
    change = one.change
    where = f"nats per token from the alarm to step {since.end:,}"
    if change.low is None or change.high is None:
        return f"{one.label} changed by {signed(change)} {where}; its error is not known."
    if change.low <= 0 <= change.high:
        return f"{one.label} changed by {signed(change)} {where}."
    return f"{one.label} {'fell' if change.high < 0 else 'rose'} by {size(change)} {where}."


def slope_sentence(leading: Course, since: Since) -> str:
    before, after = leading.before, leading.after
    told = "Too few evaluations before the alarm to give a slope"
    if before is not None:
        told = f"Its line before the alarm {direction(before)}: {signed(before.per_token)} nats per token"
        told += f" in {since.unit:,} steps"
    if after is None:
        few = f"{since.evaluations} of {MIN_AFTER}"
        return f"{told}. Too few evaluations after it to say how it sloped then ({few})."
    return f"{told}; after the alarm it {direction(after)}: {signed(after.per_token)}."


def best_sentence(leading: Course, beyond: Estimate, since: Since) -> str:
    best = f"its lowest before the alarm (step {since.best_step:,})"
    label = next(iter(since.courses.values())).label
    if beyond.low is None or beyond.high is None:
        return f"{label} ends {signed(beyond)} from {best}."
    if beyond.high < 0:
        return f"{label} ends below {best}, by {size(beyond)}."
    if beyond.low > 0:
        return f"{label} ends above {best}, by {size(beyond)}: by it the student of that step was the better one."
    return f"The end of {label.lower()} cannot be told from {best}: {signed(beyond)}."


def direction(line: Slope) -> str:
    """In which way a slope goes, where its interval leaves no doubt."""
    low, high = line.per_token.low, line.per_token.high
    if low is None or high is None:
        return "sloped"
    return "rose" if low > 0 else "fell" if high < 0 else "had no slope that can be told from noise"


def signed(found: Estimate) -> str:
    """+0.012 (-0.003 to 0.027)."""
    return ("+" if found.value > 0 else "") + nats(found.value) + _interval(found.low, found.high)


def size(found: Estimate) -> str:
    """The same without its sign; the interval's ends in order."""
    if found.value >= 0 or found.low is None or found.high is None:
        return nats(abs(found.value)) + _interval(found.low, found.high)
    return nats(-found.value) + _interval(-found.high, -found.low)


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f" ({nats(low)} to {nats(high)})"


def summaries(alarms: Sequence[Alarm], since: Sequence[Since | None]) -> list[str]:
    """One line for each alarm, for a page on several runs."""
    lines = []
    for alarm, found in zip(alarms, since, strict=True):
        said = [f"{alarm.words} at step {alarm.step:,}", alarm.done]
        if alarm.changes:
            said[-1] += f" ({'; '.join(alarm.changes)}), {alarm.cost}"
        if found is not None:
            leading = about(alarm, found)
            said.append(f"{leading.label.lower()} from then to step {found.end:,}: {signed(leading.change)}")
        lines.append(". ".join(part[:1].upper() + part[1:] for part in said) + ".")
    return lines
