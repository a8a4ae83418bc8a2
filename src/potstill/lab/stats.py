"""Intervals over seeds, and the power law that a healthy curve follows.

A handful of seeds is all that an experiment has, so means come with Student's t and
shares with Clopper and Pearson. A training loss or proxy that falls as C t^-a is a
straight line on two logarithmic axes; `power_law` fits the line to the early part and
says from which epoch on the curve leaves it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LEVEL = 0.95
MIN_FITTED = 6  # evaluations under the line: with four, a band of three sigma would be 19 residuals wide
MIN_LATE = 4  # evaluations after them
STAYS = 2  # evaluations outside the band, up to the last, that make a break
SIGMA_FLOOR = 0.005  # of log L: half a per cent of the value, below which no scatter is believed
SLOPE_FLOOR = 0.05  # of the exponent: smaller departures count as none


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over seeds with its interval; the interval is infinite where one value knows no scatter."""

    mean: float
    low: float
    high: float
    n: int

    def as_list(self) -> list[float | None]:
        """[mean, low, high] for JSON, None for an infinite end."""
        return [value if math.isfinite(value) else None for value in (self.mean, self.low, self.high)]


def paired(differences: Sequence[float]) -> Estimate:
    """Mean of per-seed values (or paired differences) with Student's t interval at 95 %.

    One value gives an infinite interval; none, or one that is not finite, a ValueError.
    """
    values = np.asarray(differences, dtype=float)
    if len(values) == 0 or not np.isfinite(values).all():
        raise ValueError(f"expected at least one finite value, found {list(differences)}; leave the others out")
    mean, num = float(values.mean()), len(values)
    if num < 2:
        return Estimate(mean, -math.inf, math.inf, num)
    half = student_quantile((1 + LEVEL) / 2, num - 1) * float(values.std(ddof=1)) / math.sqrt(num)
    return Estimate(mean, mean - half, mean + half, num)


def clopper_pearson(hits: int, n: int, level: float = LEVEL) -> Estimate:
    """A share of `n` seeds with its exact interval (Clopper and Pearson 1934)."""
    if not 0 <= hits <= n or n == 0:
        raise ValueError(f"expected 0 <= hits <= n and n > 0, found hits={hits}, n={n}")
    from scipy.special import betaincinv

    tail = (1 - level) / 2
    low = 0.0 if hits == 0 else float(betaincinv(hits, n - hits + 1, tail))
    high = 1.0 if hits == n else float(betaincinv(hits + 1, n - hits, 1 - tail))
    return Estimate(hits / n, low, high, n)


def student_quantile(probability: float, freedom: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(freedom, probability))


# -- the power law --------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PowerLaw:
    """L = C t^-a, fitted to the early part of a curve, and where the curve leaves it."""

    constant: float  # C, the unit of the values
    exponent: float  # a
    sigma: float  # scatter of log L around the line
    fitted_until: float  # epoch
    epochs: np.ndarray  # [S]
    fitted: np.ndarray  # [S] the law at `epochs`, the unit of the values
    band: np.ndarray  # [S] half-width for log L: the law times exp(-band) to exp(+band)
    late_exponent: float  # Theil-Sen slope of the last third, with the sign of `exponent`
    break_epoch: float | None


@dataclass(frozen=True, slots=True)
class NoFit:
    """Why there is no power law."""

    reason: str


def power_law(epochs: Sequence[float], values: Sequence[float | None]) -> PowerLaw | NoFit:
    """Fit log L = log C - a log t by least squares on the first half of log-time, and look for a break.

    No floor is subtracted: a fitted floor would hide the signal (design notes, after
    Tiapkin et al. 2025). Epoch 0 and None are skipped. Where fewer than `MIN_FITTED`
    evaluations lie in the first half, the first `MIN_FITTED` are taken.

    The break is the first evaluation after the fitted part from which the curve stays
    outside the band, on one side, up to its end (`STAYS` evaluations at least). The band
    is three sigma, as a prediction: the line's own error and the few residuals behind
    sigma widen it. Failing that, it is the first evaluation of the last third of log-time
    where the Theil-Sen slope there departs from the early one by three of its errors.
    """
    pairs = [(t, v) for t, v in zip(epochs, values, strict=True) if v is not None and t > 0]
    if any(not v > 0 or not math.isfinite(v) for _, v in pairs):
        return NoFit("a value is not above 0, and has no logarithm")
    if len(pairs) < MIN_FITTED + MIN_LATE:
        return NoFit(f"{len(pairs)} evaluations after epoch 0, at least {MIN_FITTED + MIN_LATE} are needed")
    time, loss = (np.log(column) for column in np.array(sorted(pairs), dtype=float).T)
    if (np.diff(time) <= 0).any():
        return NoFit("an epoch was measured twice")
    early = max(MIN_FITTED, int((time <= (time[0] + time[-1]) / 2).sum()))
    late = min(int(np.searchsorted(time, time[0] + 2 / 3 * (time[-1] - time[0]))), len(time) - MIN_LATE)
    line = Line.fit(time[:early], loss[:early])
    residual, band = loss - line.at(time), line.band(time)
    slope, departs = late_slope(line, time[late:], loss[late:])
    start = first_outside(residual[early:], band[early:])
    broke = early + start if start is not None else (max(early, late) if departs else None)
    return PowerLaw(
        constant=math.exp(line.at(np.zeros(1))[0]),
        exponent=-line.slope,
        sigma=line.sigma,
        fitted_until=math.exp(time[early - 1]),
        epochs=np.exp(time),
        fitted=np.exp(line.at(time)),
        band=band,
        late_exponent=-slope,
        break_epoch=None if broke is None else math.exp(time[broke]),
    )


@dataclass(frozen=True, slots=True)
class Line:
    """A least-squares line with what its predictions may be wrong by."""

    centre: float
    level: float  # at the centre
    slope: float
    spread: float  # sum of squares of x around the centre
    sigma: float
    num: int

    @staticmethod
    def fit(x: np.ndarray, y: np.ndarray) -> Line:
        centred = x - x.mean()
        spread = float(centred @ centred)
        slope, level = float(centred @ y) / spread, float(y.mean())
        scatter = math.sqrt(float(((y - level - slope * centred) ** 2).sum()) / (len(x) - 2))
        return Line(float(x.mean()), level, slope, spread, max(scatter, SIGMA_FLOOR), len(x))

    def at(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(self.level + self.slope * (x - self.centre))

    def three_sigma(self) -> float:
        """As rare as three sigma of a normal law (0.27 % on both sides), for a sigma of few residuals."""
        return student_quantile(0.5 * (1 + math.erf(3 / math.sqrt(2))), self.num - 2)

    def band(self, x: np.ndarray) -> np.ndarray:
        """[S] half-width of the band for a new observation at each x."""
        return np.asarray(
            self.three_sigma() * self.sigma * np.sqrt(1 + 1 / self.num + (x - self.centre) ** 2 / self.spread)
        )


def first_outside(residual: np.ndarray, band: np.ndarray) -> int | None:
    """Index from which the residual stays beyond the band on one side, for `STAYS` evaluations or more."""
    outside = np.sign(residual) * (np.abs(residual) > band)
    same = outside == outside[-1]
    start = len(same) - int(same[::-1].argmin()) if not same.all() else 0
    return start if outside[-1] != 0 and len(same) - start >= STAYS else None


def late_slope(line: Line, time: np.ndarray, loss: np.ndarray) -> tuple[float, bool]:
    """The Theil-Sen slope of the late part, and whether it departs from the line's."""
    first, second = np.triu_indices(len(time), 1)
    slope = float(np.median((loss[second] - loss[first]) / (time[second] - time[first])))
    centred = time - time.mean()
    error = line.sigma * math.sqrt(1 / line.spread + 1 / float(centred @ centred))
    return slope, abs(slope - line.slope) > max(SLOPE_FLOOR, line.three_sigma() * error)
