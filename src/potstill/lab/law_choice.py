"""Which form of a law the points support: refused, left one out, chosen.

A form is refused in words where the grid cannot tell its coefficients. The others are
fitted again and again with one group left out (for a law over teachers: one teacher, with
all its students) and judged by their error on what they had not seen. The one-standard-
error rule (Breiman et al. 1984, section 3.4.3) then takes the form with the fewest
coefficients that is not worse than the best one by more than the scatter of their paired
errors: a small grid should not buy a coefficient that it cannot pay for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from potstill.lab.law_fits import fit_form, fit_line
from potstill.lab.law_forms import Columns, DifferenceForm, Form

SPARE = 3  # distinct points beyond the coefficients: fewer, and residuals say nothing


class Described(Protocol):
    """What a form says of itself."""

    @property
    def name(self) -> str: ...
    @property
    def equation(self) -> str: ...
    @property
    def needs(self) -> Mapping[str, int]: ...
    @property
    def size(self) -> int: ...


class Candidate(Protocol):
    """A form with the fitter and the scale of residuals that belong to it."""

    @property
    def form(self) -> Described: ...
    def fit(self, at: Columns, values: np.ndarray, start: np.ndarray | None) -> np.ndarray: ...
    def predict(self, theta: np.ndarray, at: Columns) -> np.ndarray: ...
    def residuals(self, values: np.ndarray, predicted: np.ndarray) -> np.ndarray: ...
    def moved(self, predicted: np.ndarray, residuals: np.ndarray) -> np.ndarray: ...


@dataclass(frozen=True, slots=True)
class Curved:
    """A form of the loss; residuals are of log L, so relative."""

    form: Form
    seed: int = 0

    def fit(self, at: Columns, values: np.ndarray, start: np.ndarray | None) -> np.ndarray:
        return fit_form(self.form, at, values, self.seed, start)[0]

    def predict(self, theta: np.ndarray, at: Columns) -> np.ndarray:
        return np.asarray(np.exp(self.form.log_loss(theta, at)))

    def residuals(self, values: np.ndarray, predicted: np.ndarray) -> np.ndarray:
        return np.asarray(np.log(values) - np.log(predicted))

    def moved(self, predicted: np.ndarray, residuals: np.ndarray) -> np.ndarray:
        """Values with these residuals around a prediction."""
        return np.asarray(predicted * np.exp(residuals))


@dataclass(frozen=True, slots=True)
class Straight:
    """A form of the difference; residuals are in the measure's unit."""

    form: DifferenceForm

    def fit(self, at: Columns, values: np.ndarray, start: np.ndarray | None) -> np.ndarray:
        return fit_line(self.form.features(at), values)

    def predict(self, theta: np.ndarray, at: Columns) -> np.ndarray:
        return np.asarray(np.einsum("...p,np->...n", theta, self.form.features(at)))

    def residuals(self, values: np.ndarray, predicted: np.ndarray) -> np.ndarray:
        return np.asarray(values - predicted)

    def moved(self, predicted: np.ndarray, residuals: np.ndarray) -> np.ndarray:
        """Values with these residuals around a prediction."""
        return np.asarray(predicted + residuals)


@dataclass(frozen=True, slots=True)
class Points:
    """What a law is fitted to. `groups` are left out together; `distinct` counts the values of each input."""

    at: Columns
    values: np.ndarray  # [n]
    groups: np.ndarray  # [n] int, from 0
    distinct: Mapping[str, int]
    points: int  # distinct inputs

    def without(self, group: int) -> tuple[Columns, np.ndarray]:
        keep = self.groups != group
        return {name: column[keep] for name, column in self.at.items()}, self.values[keep]


@dataclass(frozen=True, slots=True)
class Fitted:
    """A form on all points, and its errors on those that were left out."""

    candidate: Candidate
    theta: np.ndarray  # [P]
    left_out: np.ndarray  # [n] residuals of points that the fit had not seen
    by_group: np.ndarray  # [G] mean squared left-out residual

    @property
    def error(self) -> float:
        """Root mean square over groups."""
        return math.sqrt(float(self.by_group.mean()))


@dataclass(frozen=True, slots=True)
class Choice:
    """The chosen form, or None with the reason; and what became of each candidate, for JSON."""

    chosen: Fitted | None
    why: str
    tried: tuple[dict[str, Any], ...]


def refusal(candidate: Candidate, points: Points) -> str | None:
    """Why these points cannot carry the form, or None."""
    for name, least in candidate.form.needs.items():
        if points.distinct[name] < least:
            return f"{points.distinct[name]} different {WORDS.get(name, name)} where it takes {least}"
    if points.points < candidate.form.size + SPARE:
        return (
            f"{_count(points.points, 'point')} cannot tell {_count(candidate.form.size, 'parameter')}: "
            f"at least {candidate.form.size + SPARE} are needed"
        )
    return None


WORDS = {"size": "sizes", "tokens": "token counts", "teacher_loss": "teachers' losses", "weights": "weights"}


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


def choose(candidates: Sequence[Candidate], points: Points) -> Choice:
    """Try each candidate, fewest coefficients first in a draw; see the module for the rule."""
    fitted, tried = [], []
    for candidate in candidates:
        form = candidate.form
        entry: dict[str, Any] = {"form": form.name, "equation": form.equation, "parameters": form.size}
        why = refusal(candidate, points)
        if why is None:
            fitted.append(tried_on(candidate, points))
            tried.append(entry | {"status": "fitted", "why": None, "left_out_error": fitted[-1].error})
        else:
            tried.append(entry | {"status": "refused", "why": why, "left_out_error": None})
    if not fitted:
        reasons = "; ".join(f"{entry['form']}: {entry['why']}" for entry in tried)
        return Choice(None, f"no form can be told from {_count(points.points, 'point')} ({reasons})", tuple(tried))
    best = min(fitted, key=lambda one: one.error)
    chosen = min(
        (one for one in fitted if not clearly_worse(one, best)), key=lambda one: (one.candidate.form.size, one.error)
    )
    return Choice(chosen, why_chosen(chosen, best, len(fitted)), tuple(tried))


def tried_on(candidate: Candidate, points: Points) -> Fitted:
    """Fit on everything, then once without each group."""
    theta = candidate.fit(points.at, points.values, None)
    left_out, by_group = np.empty(len(points.values)), []
    for group in range(int(points.groups.max()) + 1):
        there = points.groups == group
        at, values = points.without(group)
        unseen = {name: column[there] for name, column in points.at.items()}
        guess = candidate.predict(candidate.fit(at, values, theta), unseen)
        left_out[there] = candidate.residuals(points.values[there], guess)
        by_group.append(float((left_out[there] ** 2).mean()))
    return Fitted(candidate, theta, left_out, np.array(by_group))


def clearly_worse(one: Fitted, best: Fitted) -> bool:
    """By more than one standard error of the paired differences of squared errors."""
    excess = one.by_group - best.by_group
    if one is best or len(excess) < 2:
        return one is not best
    return float(excess.mean()) > float(excess.std(ddof=1)) / math.sqrt(len(excess))


def why_chosen(chosen: Fitted, best: Fitted, count: int) -> str:
    """One sentence."""
    if chosen is best:
        return f"lowest error on what was left out, of {_count(count, 'form')}"
    return (
        f"fewest parameters among forms not clearly worse than {best.candidate.form.name} on what was left out "
        f"(error {chosen.error:.4g}, there {best.error:.4g})"
    )
