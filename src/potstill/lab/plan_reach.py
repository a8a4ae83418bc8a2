"""How far a plan reaches beyond what was measured, in factors and in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from potstill.lab.amounts import short
from potstill.lab.ledger import Size
from potstill.lab.plan_models import Known, Teacher
from potstill.lab.predictions import Doubtful

TOLERANCE = 1.02  # a rounded 1M is inside a grid that ends at 0.99M


def reach(
    known: Known,
    measures: Sequence[str],
    student: Size,
    tokens: float,
    teacher: Teacher,
    gaps: Sequence[Doubtful],
    plain_tokens: float,
) -> list[str]:
    """One line for each input outside of the grid; none where everything lies inside."""
    span = known.law(measures[0], "difference")["range"]
    lines = [
        beyond("the student's body", student.body, span["body_parameters"], "students with a teacher"),
        beyond("the student's tokens", tokens, span["tokens"], "students with a teacher"),
    ]
    on = known.entries[measures[0]]["set_of_gap"]
    law = known.law(on, "supervised")
    if law.get("status") == "fitted":
        plain: Mapping[str, list[float]] = law["range"]
        if known.measured_twin(on, student, tokens) is None:
            lines.append(beyond("the student's body", student.body, plain["body_parameters"], "plain models"))
            lines.append(beyond("the student's tokens", tokens, plain["tokens"], "plain models"))
        if known.teacher_loss(on, teacher, 1) is None:
            lines.append(beyond("the teacher's body", teacher.size.body, plain["body_parameters"], "plain models"))
            lines.append(beyond("the teacher's tokens", teacher.tokens, plain["tokens"], "plain models"))
        if plain_tokens > tokens:
            lines.append(beyond("the tokens at equal FLOPs", plain_tokens, plain["tokens"], "plain models"))
    for name, gap in zip(measures, gaps, strict=True):
        lines.append(gap_beyond(name, gap.value, known.law(name, "difference")["range"]["x"]))
    return list(dict.fromkeys(line for line in lines if line))


def beyond(what: str, value: float, span: Sequence[float], whose: str) -> str:
    """Words for a value outside of [low, high], empty inside."""
    low, high = span
    if value > TOLERANCE * high:
        return f"{what}, {short(value)}: {value / high:.3g} times the most of the measured {whose} ({short(high)})"
    if value * TOLERANCE < low:
        factor = low / value
        return f"{what}, {short(value)}: {factor:.3g} times less than the least of the measured {whose} ({short(low)})"
    return ""


def gap_beyond(name: str, gap: float, span: Sequence[float]) -> str:
    """The gap x may be negative, so it has no factor: nats, and the width of what was measured."""
    low, high = span
    past = max(low - gap, gap - high)
    if past <= 0.02 * (high - low):
        return ""
    width = f" ({past / (high - low):.2g} times the measured width)" if high > low else ""
    side = "stronger" if gap < low else "weaker"
    return (
        f"{name}: the teacher is {past:.2g} nats {side} beside the twin than any measured one{width}: "
        f"x = {gap:.2f}, measured {low:.2f} to {high:.2f}"
    )
