"""What a log without an oracle says about hacking, as pure numbers.

A student that is hacked still gets better on what it has seen, no longer on what it has not, and
worse on what somebody else wrote. The three are read off one evaluation grid, the same for every
cadence: the last four octaves of steps (from a sixteenth of the run so far to now), at most 16
evaluations, denser ones averaged.

    early   evaluations from an eighth to a half of the run so far
    late    from a half of it on
    gain    what proxy has lost since an eighth of the run, at least a tenth of its level: the unit of
            the references' features

All features are dimensionless: steps may be counted in epochs, and both losses may be given in
bits or per sequence. Each depends on evaluations up to its own only, so a run watched live gives
the same numbers as one replayed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from potstill.diagnosis.views import finite
from potstill.records import Curve

MIN_EVALUATIONS = 8  # after step 0, and again on the grid
MAX_EVALUATIONS = 16  # on the grid
OCTAVES = 4  # of steps, that the grid reaches back
MIN_LATE, MIN_EARLY = 4, 3
STEEPEST = -1e-3  # log-log slope: a training loss that falls less cannot be followed
LEAST_GAIN = 0.1  # of proxy's level: a smaller gain is no unit to measure in
LATEST_START = 0.1  # of an eighth of the run: how much later the first evaluation may lie
ROUNDING = 1e-3  # steps this close to a window's edge are inside


@dataclass(frozen=True, slots=True)
class Log:
    """What the detector sees, on common evaluations after step 0. S evaluations, P and Q prompts."""

    steps: np.ndarray  # [S] float64
    training: np.ndarray  # [S] mean training loss since the evaluation before
    proxy: np.ndarray  # [S] nats per token
    reference_sums: np.ndarray | None = None  # [S, Q]
    reference_tokens: np.ndarray | None = None  # [S, Q]

    def first(self, num: int) -> Log:
        """The log as it was after `num` evaluations."""
        return self.rows(np.arange(num))

    def rows(self, kept: np.ndarray) -> Log:
        sums, tokens = self.reference_sums, self.reference_tokens
        return Log(
            self.steps[kept], self.training[kept], self.proxy[kept],
            None if sums is None else sums[kept], None if tokens is None else tokens[kept],
        )  # fmt: skip


def read_log(training: Curve, proxy: Curve, references: Curve | None) -> Log:
    """The three curves on the evaluations that all have; what is not finite is left out."""
    training, proxy = finite(training), finite(proxy)
    losses = training_since(training, proxy.steps)
    kept = (proxy.steps > 0) & np.isfinite(losses)
    if references is None:
        return Log(proxy.steps[kept].astype(float), losses[kept], proxy.per_token[kept])
    references = finite(references)
    kept &= np.isin(proxy.steps, references.steps)
    where = np.searchsorted(references.steps, proxy.steps[kept])
    return Log(
        proxy.steps[kept].astype(float), losses[kept], proxy.per_token[kept],
        references.sums[where], references.tokens[where],
    )  # fmt: skip


def training_since(training: Curve, steps: np.ndarray) -> np.ndarray:
    """[S] mean of the training losses logged after the step before and up to each of `steps`; NaN where none."""
    ends = np.searchsorted(training.steps, steps, side="right")
    starts = np.concatenate([[0], ends[:-1]])
    total = np.concatenate([[0.0], np.cumsum(training.per_token)])
    number = ends - starts
    return np.asarray(np.where(number > 0, (total[ends] - total[starts]) / np.maximum(number, 1), np.nan))


def grid(log: Log) -> Log:
    """The last four octaves of steps, in at most 16 evaluations: neighbours averaged, counted from the end."""
    recent = log.rows(np.flatnonzero(log.steps >= log.steps[-1] / 2**OCTAVES * (1 - ROUNDING)))
    num = len(recent.steps)
    size = -(-num // MAX_EVALUATIONS)
    if size == 1:
        return recent
    ends = np.arange(num, 0, -size)[::-1]
    starts = np.concatenate([[0], ends[:-1]])

    def mean(values: np.ndarray) -> np.ndarray:
        counts = (ends - starts).reshape(-1, *[1] * (values.ndim - 1))
        return np.asarray(np.add.reduceat(values, starts, axis=0) / counts)

    sums, tokens = recent.reference_sums, recent.reference_tokens
    return Log(
        recent.steps[ends - 1], mean(recent.training), mean(recent.proxy),
        None if sums is None else mean(sums), None if tokens is None else mean(tokens),
    )  # fmt: skip


def why_not(log: Log) -> str | None:
    """Why no feature can be measured at the last evaluation of `log`; None when all can."""
    if len(log.steps) < MIN_EVALUATIONS:
        return f"{len(log.steps)} common evaluations after step 0, at least {MIN_EVALUATIONS} are needed"
    seen = grid(log)
    if seen.steps[0] > seen.steps[-1] / 8 * (1 + LATEST_START):
        return f"the log begins at step {seen.steps[0]:.0f}, after an eighth of its {seen.steps[-1]:.0f} steps"
    early, late = windows(seen.steps)
    if len(seen.steps) < MIN_EVALUATIONS or early.sum() < MIN_EARLY or late.sum() < MIN_LATE:
        return (
            f"{len(seen.steps)} evaluations in the last {OCTAVES} octaves of steps, {int(late.sum())} of them in the "
            f"second half of the run; at least {MIN_EVALUATIONS} and {MIN_LATE} are needed: evaluate evenly"
        )
    if min(seen.training.min(), seen.proxy.min()) <= 0:
        return "training loss and proxy must be positive: a distance, not a difference of two"
    return None


def windows(steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[S] early, [S] late; both hold the evaluation in the middle."""
    last = steps[-1]
    early = (steps >= last / 8 * (1 - ROUNDING)) & (steps <= last / 2 * (1 + ROUNDING))
    return early, steps >= last / 2 * (1 - ROUNDING)


def measure(log: Log) -> dict[str, float]:
    """The features at the last evaluation of `log`, which must have passed `why_not`."""
    seen = grid(log)
    early, late = windows(seen.steps)
    time, proxy, training = np.log(seen.steps), seen.proxy, seen.training
    slope = theil_sen(time[late], np.log(training[late]))
    gain = max(before(time, proxy) - proxy.min(), LEAST_GAIN * proxy[-1])
    found = {
        "follow": theil_sen(time[late], np.log(proxy[late])) / min(slope, STEEPEST),
        "proxy_change": theil_sen(seen.steps[late], proxy[late]) * seen.steps[-1] / 2 / gain,
        "training_slope": slope,
        "proxy_bend": theil_sen(time[late], np.log(proxy[late])) - least_squares(time[early], np.log(proxy[early])),
        "proxy_gain": gain / proxy[-1],
        "training_gain": before(time, training) / training[-1] - 1,
    }
    if seen.reference_sums is not None and seen.reference_tokens is not None:
        found |= of_references(seen.steps, seen.reference_sums, seen.reference_tokens, gain)
    return {name: float(value) for name, value in found.items()}


def of_references(steps: np.ndarray, sums: np.ndarray, tokens: np.ndarray, gain: float) -> dict[str, float]:
    """Features of the NLL on references, in units of proxy's gain."""
    level = sums.sum(1) / tokens.sum(1)
    low = int(np.convolve(level, np.ones(3) / 3, "valid").argmin()) + 1
    weights = np.zeros(len(steps))
    weights[-3:] += 1 / 3
    weights[low - 1 : low + 2] -= 1 / 3
    rise, error = paired(sums, tokens, weights)
    return {
        "rise": (rise - error) / gain,
        "rise_t": rise / error if error > 0 else 0.0,
        "agreement": (before(np.log(steps), level) - level.min()) / gain,
    }


def paired(sums: np.ndarray, tokens: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    """`weights` [S] times the curve: value and standard error over prompts, nats per token."""
    size = tokens.mean(0)
    values = weights @ sums
    mean = values.sum() / size.sum()
    apart = values - mean * size
    num = len(values)
    return float(mean), float(np.sqrt((apart**2).sum() * num / (num - 1)) / size.sum())


def before(time: np.ndarray, values: np.ndarray) -> float:
    """The value at an eighth of the run so far, a line between evaluations in log steps."""
    return float(np.interp(time[-1] - np.log(8), time, values))


def least_squares(x: np.ndarray, y: np.ndarray) -> float:
    centred = x - x.mean()
    return float(centred @ y / (centred @ centred))


def theil_sen(x: np.ndarray, y: np.ndarray) -> float:
    """The median of all slopes between two points (Theil 1950, Sen 1968): one odd evaluation does not move it."""
    first, second = np.triu_indices(len(x), 1)
    return float(np.median((y[second] - y[first]) / (x[second] - x[first])))


def references_of(curves: Mapping[str, Curve], golden_kind: str) -> Curve | None:
    """The NLL on references, per prompt, where the log has it."""
    name = "golden" if golden_kind == "reference_nll" and "golden" in curves else "reference_nll"
    return curves.get(name)
