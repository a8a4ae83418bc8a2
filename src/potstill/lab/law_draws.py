"""How sure a law is: the same fit on many data sets that could have been measured.

The grid is designed, so its inputs stay where they are and only residuals are drawn anew
(Efron and Tibshirani 1993, section 9.5): each group of points (a cell, or one teacher's
students at all weights) gets another group's residuals, with a random sign. They are
widened for the coefficients that were spent and, by Student's t, for how few groups
there are. Differences share their twin, an error that no residual shows; so seeds are
drawn anew as well, all cells together, and every mean moves with them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from potstill.lab.law_choice import Fitted, Points
from potstill.lab.stats import student_quantile

DRAWS = 200
NORMAL_975 = 1.959964


@dataclass(frozen=True, slots=True)
class SeedScatter:
    """What differences bring along: values by seed, and the degrees of freedom between groups."""

    by_seed: np.ndarray  # [C, S], NaN where a seed is missing
    freedom: int  # groups less the coefficients that tell them apart


def draws_of(fitted: Fitted, points: Points, scatter: SeedScatter | None = None, seed: int = 0) -> np.ndarray:
    """[DRAWS, P] coefficients, each row fitted to one redrawn data set."""
    rng = np.random.default_rng(seed)
    candidate = fitted.candidate
    predicted = candidate.predict(fitted.theta, points.at)
    table = residual_table(points.groups, candidate.residuals(points.values, predicted))
    groups = len(points.values) if scatter is None else int(points.groups.max()) + 1
    factor = widening(groups, groups - candidate.form.size if scatter is None else scatter.freedom)
    found = np.empty((DRAWS, candidate.form.size))
    for index in range(DRAWS):
        moved = factor * redrawn(table, points.groups, rng)
        if scatter is not None:
            moved = moved + seed_deviation(scatter.by_seed, rng)
        found[index] = candidate.fit(points.at, candidate.moved(predicted, moved), fitted.theta)
    return found


def widening(groups: int, freedom: int) -> float:
    """What residuals are multiplied by: spent degrees of freedom, and Student's t over the normal quantile."""
    return math.sqrt(groups / freedom) * student_quantile(0.975, freedom) / NORMAL_975


def residual_table(groups: np.ndarray, residuals: np.ndarray) -> list[np.ndarray]:
    """The residuals of each group, in the order of the points."""
    return [residuals[groups == group] for group in range(int(groups.max()) + 1)]


def redrawn(table: list[np.ndarray], groups: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """[n] residuals: every group takes those of a random one, with a random sign; longer groups repeat them."""
    found = np.empty(len(groups))
    for group, own in enumerate(table):
        taken = table[int(rng.integers(len(table)))]
        found[groups == group] = rng.choice((-1.0, 1.0)) * np.resize(taken, len(own))
    return found


def seed_deviation(by_seed: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """[C] how far the mean of redrawn seeds lies from the mean of all; 0 with one seed."""
    seeds = by_seed.shape[1]
    if seeds < 2:
        return np.zeros(len(by_seed))
    drawn = by_seed[:, rng.integers(seeds, size=seeds)]
    mean = np.nanmean(by_seed, axis=1)
    seen = ~np.isnan(drawn)
    total = np.where(seen, drawn, 0.0).sum(1)
    redrawn_mean = np.where(seen.any(1), total / np.maximum(seen.sum(1), 1), mean)
    return np.asarray((redrawn_mean - mean) * math.sqrt(seeds / (seeds - 1)))
