"""The findings of the lab as the page shows them: a word, a sentence, and every effect as a row of dots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from potstill.report.lab_arms import STATEMENTS
from potstill.report.lab_reading import to_estimate
from potstill.report.numbers import Estimate

REPRODUCED, REFUTED, OPEN = "reproduced", "not reproduced", "not decidable"
OUTCOMES = {True: "met", False: "not met", None: "not decided"}
REPORTED = "for the reader"
MARGIN = 4.0  # per cent of the drawing's width that stays free on both sides


@dataclass(frozen=True, slots=True)
class DotPlot:
    """Positions in per cent of the width: a dot a seed, the interval, the mean, and where nothing would lie."""

    dots: tuple[tuple[float, str], ...]
    zero: float
    mean: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Effect:
    """One number a seed, and what it should have been."""

    words: str
    unit: str
    estimate: Estimate | None
    values: tuple[tuple[str, float | None], ...]  # seed, value
    wanted: str
    outcome: str  # met, not met, not decided, or for the reader where nothing was wanted
    plot: DotPlot | None


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding of the paper and what this experiment says of it."""

    number: int
    statement: str
    status: str
    why: str
    effects: tuple[Effect, ...]

    @property
    def css(self) -> str:
        known = {REPRODUCED: "reproduced", REFUTED: "refuted"}
        return known.get(self.status, "undecided")


def read_findings(found: Sequence[Mapping[str, Any]] | None) -> list[Finding]:
    """The paper's seven in their order, whether or not the file speaks of them, then any others."""
    given = {int(one["number"]): one for one in found or []}
    return [_finding(number, given.get(number)) for number in sorted({*STATEMENTS, *given})]


def headline(findings: Sequence[Finding]) -> str:
    """How many of each, in one line."""
    count = {word: sum(one.status == word for one in findings) for word in (REPRODUCED, REFUTED, OPEN)}
    said = f"{count[REPRODUCED]} of {len(findings)} findings reproduced"
    rest = [f"{number} {word}" for word, number in count.items() if number and word != REPRODUCED]
    return ", ".join([said, *rest])


def _finding(number: int, found: Mapping[str, Any] | None) -> Finding:
    if found is None:
        return Finding(number, STATEMENTS[number], OPEN, "The results say nothing of it yet.", ())
    effects = tuple(_effect(one) for one in found.get("effects") or [])
    statement = str(found.get("statement") or STATEMENTS.get(number, f"Finding {number}"))
    return Finding(number, statement, str(found["status"]), str(found.get("why") or ""), effects)


def _effect(found: Mapping[str, Any]) -> Effect:
    values = tuple((str(seed), value) for seed, value in (found.get("per_seed") or {}).items())
    estimate = to_estimate([found.get("mean"), *(found.get("interval") or [])])
    outcome = REPORTED if found.get("outcome") == "reported" else OUTCOMES[found.get("met")]
    return Effect(
        words=str(found.get("words") or found["name"]),
        unit=str(found.get("unit") or ""),
        estimate=estimate,
        values=values,
        wanted="" if outcome == REPORTED else str(found.get("wanted") or ""),
        outcome=outcome,
        plot=dot_plot(values, estimate),
    )


def dot_plot(values: Sequence[tuple[str, float | None]], estimate: Estimate | None) -> DotPlot | None:
    """Where everything lies on one line that holds all of it and 0; None where there is nothing to draw."""
    known = [(seed, value) for seed, value in values if value is not None]
    ends = [estimate.value, estimate.low, estimate.high] if estimate else []
    every = [0.0, *(value for _, value in known), *(end for end in ends if end is not None)]
    left, right = min(every), max(every)
    if len(every) == 1:
        return None

    def place(value: float | None) -> float | None:
        if value is None:
            return None
        share = (value - left) / (right - left) if right > left else 0.5
        return round(MARGIN + (100 - 2 * MARGIN) * share, 2)

    dots = tuple((at, f"seed {seed}: {value:.4g}") for seed, value in known if (at := place(value)) is not None)
    mean, low, high = (place(end) for end in ends) if estimate else (None, None, None)
    return DotPlot(dots, place(0.0) or 0.0, mean, low, high)
