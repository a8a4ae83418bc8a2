"""The numbers on the page: means over held-out prompts, with bootstrap intervals.

Prompts are what is redrawn, the same ones at every step and for the teacher, so
that a difference between two steps is a paired one. How hard a prompt is then
cancels out, and that is most of the noise.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from potstill.records import Curve

Series = tuple[np.ndarray, np.ndarray]  # steps, values

RESAMPLES = 2000
FEWEST_PROMPTS = 8  # below this a bootstrap says nothing about other prompts

LABELS = {
    "proxy": ("Proxy", "distance from the teacher: the run's own objective"),
    "proxy_fkl": ("Proxy, forward KL", "KL(teacher || student) at temperature 1"),
    "golden": ("Golden", "the signal that is not the teacher's"),
    "proxy_rkl": ("Proxy, reverse KL", "KL(student || teacher) on the student's own samples"),
    "proxy_js": ("Proxy, Jensen-Shannon", "of whole completions, on samples of both; spread over their tokens"),
    "golden_rkl": ("Golden, reverse KL", "KL(student || oracle) on the student's own samples"),
    "golden_js": ("Golden, Jensen-Shannon", "of whole completions, on samples of both; spread over their tokens"),
    "verifier_failure": ("Verifier", "share of answers that fail it; not nats"),
}


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value in nats per token with its 95 % interval, where there is one."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One quantity before and after, and against the teacher."""

    label: str
    meaning: str
    steps: tuple[int, int]  # of the first and the last evaluation; series may have clocks of their own
    first: Estimate
    best: Estimate | None
    last: Estimate
    change: Estimate  # last - first
    teacher: Estimate | None
    beyond: Estimate | None  # last - teacher: below zero, the student is the better one


def reported(curve: Curve) -> Curve:
    """What the page shows: the test split (all prompts where it is too small), finite evaluations.

    The test split chose nothing; `selection` may have chosen a temperature or a step.
    """
    keep = curve.splits == "test"
    if keep.sum() < FEWEST_PROMPTS:
        keep = np.ones(curve.prompt_ids.size, dtype=bool)
    finite = np.isfinite(curve.sums).all(axis=1) & np.isfinite(curve.tokens).all(axis=1)
    return replace(
        curve,
        steps=curve.steps[finite],
        sums=curve.sums[finite][:, keep],
        tokens=curve.tokens[finite][:, keep],
        prompt_ids=curve.prompt_ids[keep],
        splits=curve.splits[keep],
        teacher=None if curve.teacher is None else curve.teacher[keep],
    )


def teacher_value(curve: Curve) -> float | None:
    """The teacher's own nats per token, over the tokens of the last evaluation."""
    return None if curve.teacher is None else float(curve.teacher.sum() / curve.tokens[-1].sum())


def redraws(curve: Curve, seed: int = 0) -> np.ndarray | None:
    """[R, P] how often each prompt is drawn; None where prompts cannot be redrawn."""
    num_prompts = curve.prompt_ids.size
    if not curve.paired or num_prompts < FEWEST_PROMPTS:
        return None
    odds = np.full(num_prompts, 1 / num_prompts)
    return np.random.default_rng(seed).multinomial(num_prompts, odds, size=RESAMPLES)


def band(curve: Curve) -> tuple[np.ndarray, np.ndarray] | None:
    """Lower and upper end of the 95 % interval at every step, nats per token, [S] each."""
    drawn = redraws(curve)
    if drawn is None:
        return None
    low, high = np.percentile((drawn @ curve.sums.T) / (drawn @ curve.tokens.T), [2.5, 97.5], axis=0)
    return low, high


def estimate(
    curve: Curve, sums: np.ndarray, tokens: np.ndarray, less: tuple[np.ndarray, np.ndarray] | None = None
) -> Estimate:
    """sum(sums) / sum(tokens), minus the same of `less`, over the same redrawn prompts."""
    value = float(sums.sum() / tokens.sum())
    value -= float(less[0].sum() / less[1].sum()) if less else 0.0
    drawn = redraws(curve)
    if drawn is None:
        return Estimate(value)
    means = (drawn @ sums) / (drawn @ tokens)
    if less:
        means = means - (drawn @ less[0]) / (drawn @ less[1])
    low, high = np.percentile(means, [2.5, 97.5])
    return Estimate(value, float(low), float(high))


def before_after(curve: Curve, best_step: int | None) -> Row:
    """First evaluation, the best step, last evaluation, and the teacher where it has a value."""
    sums, tokens = curve.sums, curve.tokens
    inner = np.flatnonzero(curve.steps[1:-1] == best_step) + 1
    teacher = beyond = None
    if curve.teacher is not None:
        teacher = estimate(curve, curve.teacher, tokens[-1])
        beyond = estimate(curve, sums[-1], tokens[-1], (curve.teacher, tokens[-1]))
    label, meaning = LABELS[curve.name]
    return Row(
        label,
        meaning,
        (int(curve.steps[0]), int(curve.steps[-1])),
        first=estimate(curve, sums[0], tokens[0]),
        best=estimate(curve, sums[inner[0]], tokens[inner[0]]) if inner.size else None,
        last=estimate(curve, sums[-1], tokens[-1]),
        change=estimate(curve, sums[-1], tokens[-1], (sums[0], tokens[0])),
        teacher=teacher,
        beyond=beyond,
    )


def columns(lines: Sequence[Mapping[str, Any]], prefix: str) -> dict[str, Series]:
    """Every column whose key starts with `prefix`, by the rest of its key, in order of name."""
    keys = sorted({key for line in lines for key in line if key.startswith(prefix)})
    found = {key.removeprefix(prefix): column(lines, key) for key in keys}
    return {name: series for name, series in found.items() if series[0].size}


def column(lines: Iterable[Mapping[str, Any]], key: str) -> Series:
    """Steps and finite values of one key of metrics.jsonl; lines without it are passed over."""
    pairs = [(line["step"], line[key]) for line in lines if "step" in line and line.get(key) is not None]
    table = np.array(pairs, dtype=np.float64).reshape(-1, 2)
    table = table[np.isfinite(table).all(axis=1)]
    return table[:, 0], table[:, 1]


def thinned(steps: np.ndarray, values: np.ndarray, limit: int = 600) -> Series:
    """At most `limit` points: means over neighbours, so that a page stays small and quick."""
    if steps.size <= limit:
        return steps, values
    parts = np.array_split(np.arange(steps.size), limit)
    return tuple(np.array([series[part].mean() for part in parts]) for series in (steps, values))  # type: ignore[return-value]
