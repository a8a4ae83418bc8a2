"""Parts of a log: its later evaluations, some of its prompts, what it would hold without an oracle."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from potstill.records import Curve


def later(curve: Curve, since: int) -> Curve:
    """The evaluations from a step on."""
    return _at(curve, curve.steps >= since)


def until(curve: Curve, step: int) -> Curve:
    """The evaluations up to a step."""
    return _at(curve, curve.steps <= step)


def finite(curve: Curve) -> Curve:
    """The evaluations at which every prompt has a number."""
    return _at(curve, np.isfinite(curve.sums).all(1) & np.isfinite(curve.tokens).all(1))


def _at(curve: Curve, kept: np.ndarray) -> Curve:
    return replace(curve, steps=curve.steps[kept], sums=curve.sums[kept], tokens=curve.tokens[kept])


def without_oracle(curves: Mapping[str, Curve]) -> dict[str, Curve]:
    """What would have been measured without an oracle: its samples are references then."""
    seen = {name: curves[name] for name in ("proxy", "training_loss", "verifier_failure") if name in curves}
    if "reference_nll" in curves:
        seen["golden"] = replace(curves["reference_nll"], name="golden")
    return seen


def seen_by_alarm(prompt_ids: np.ndarray, count: int) -> np.ndarray:
    """[P] True for the prompts that an alarm with `on_alarm.alarm_prompts` looks at: the first `count` by hash."""
    keys = [hashlib.sha256(f"alarm {name}".encode()).digest() for name in prompt_ids.tolist()]
    seen = np.zeros(len(keys), dtype=bool)
    seen[sorted(range(len(keys)), key=keys.__getitem__)[:count]] = True
    return seen


def fewer_prompts(curve: Curve, count: int) -> Curve:
    """The curve on the prompts that the alarm looks at; a curve of means as it is."""
    if not curve.paired:
        return curve
    return of_prompts(curve, seen_by_alarm(curve.prompt_ids, count))


def of_prompts(curve: Curve, kept: np.ndarray) -> Curve:
    """The curve on some of its prompts. `kept`: [P] bool."""
    teacher = None if curve.teacher is None else curve.teacher[kept]
    return replace(
        curve, sums=curve.sums[:, kept], tokens=curve.tokens[:, kept], prompt_ids=curve.prompt_ids[kept],
        splits=curve.splits[kept], teacher=teacher,
    )  # fmt: skip
