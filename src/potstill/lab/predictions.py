"""Numbers with their doubt, from laws that were fitted: one value and two hundred others that could be true.

A prediction for a model that nobody trained gets two kinds of doubt: the law's own
(its bootstraps), and what the law missed on cells that it had not seen (its left-out
residuals, drawn with a random sign). A measured number has neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from potstill.lab.law_choice import Candidate, Curved, Straight
from potstill.lab.law_forms import DIFFERENCE_FORMS, FORMS

Law = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Doubtful:
    """A value and its draws [n]; both in the same unit."""

    value: float
    draws: np.ndarray

    def __sub__(self, other: Doubtful) -> Doubtful:
        return Doubtful(self.value - other.value, self.draws - other.draws)

    def interval(self) -> dict[str, float]:
        """Value and 95 % interval, for JSON."""
        low, high = np.quantile(self.draws, (0.025, 0.975))
        return {"value": self.value, "low": float(low), "high": float(high)}

    def below_zero(self) -> float:
        """The share of draws under 0; half of those that are exactly 0."""
        return float((self.draws < 0).mean() + 0.5 * (self.draws == 0).mean())


def certain(value: float, count: int) -> Doubtful:
    return Doubtful(value, np.full(count, value))


def draws_in(law: Law) -> int:
    return len(law["draws"])


def candidate_of(law: Law) -> Candidate:
    """The form that a law has. Raises ValueError for one that this version does not know."""
    name = law["form"]
    if name in DIFFERENCE_FORMS:
        return Straight(DIFFERENCE_FORMS[name])
    if name in FORMS:
        return Curved(FORMS[name])
    raise ValueError(f"the law has the form {name!r}, which is not known here; fit the laws again from the results")


def supervised_loss(law: Law, body: float, tokens: float, rng: np.random.Generator | None) -> Doubtful:
    """L(N, D), nats per token; `rng` adds what the law missed on cells left out, None the law's mean alone."""
    form, centre = candidate_of(law), law["centre"]
    at = {"size": np.log([body / centre["size"]]), "tokens": np.log([tokens / centre["tokens"]])}
    value = float(form.predict(np.array(law["theta"]), at)[0])
    draws = form.predict(np.array(law["draws"]), at)[:, 0]
    return Doubtful(value, draws if rng is None else draws * np.exp(misses(law, rng)))


def difference(law: Law, gap: Doubtful, weight: float, body: float, missed: np.ndarray) -> Doubtful:
    """d of a student of so many body parameters at each draw's own gap; `missed` [n] is added, see `misses`."""
    form = candidate_of(law)
    if not isinstance(form, Straight):
        raise ValueError(f"expected a law of differences, found the form {law['form']!r}")
    count = len(law["draws"])
    theta = np.array(law["draws"], dtype=float).reshape(count, form.form.size)
    size = np.log(body / law["centre"]["size"]) if form.form.sized else 0.0
    features = form.form.features({"gap": gap.draws, "weight": np.full(count, weight), "size": np.full(count, size)})
    one = {"gap": np.array([gap.value]), "weight": np.array([weight]), "size": np.array([size])}
    value = float(form.predict(np.array(law["theta"], dtype=float), one)[0])
    return Doubtful(value, (theta * features).sum(1) + missed)


def misses(law: Law, rng: np.random.Generator) -> np.ndarray:
    """[n] residuals of points that the law had not seen, drawn anew with random signs."""
    count = len(law["draws"])
    return np.asarray(rng.choice(np.array(law["left_out"]), count) * rng.choice((-1.0, 1.0), count))
