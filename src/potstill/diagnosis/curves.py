"""Does a curve turn upwards? One answer for each run, with its error.

The lowest point of a noisy curve is low partly by luck, so what follows it rises
even when nothing happens. Two things keep that from becoming an alarm.

    half A of the prompts   choose the change point      measure the slope after it
    half B of the prompts   measure the slope after it   choose the change point

First, the prompts that choose never measure. Second, the jitter from step to step
is shared by all prompts, which halves cannot undo; so the p-value replays the
whole procedure, choice included, on curves that fall and then stay flat under the
noise of `noise.draw_noise`, and counts how often they look as bad.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np

from potstill.diagnosis.noise import NUM_DRAWS, Noise, draw_noise, falling_levels
from potstill.records import Curve

#: A rise is called when its p-value is at most this. 0.02 and not 0.05, because
#: the correlation of the jitter is a guess: it keeps false alarms below 5 % up to a
#: correlation of 0.5 between neighbours (benchmarks/false_alarms.py).
ALARM_LEVEL = 0.02
MIN_AFTER = 4  # evaluations after a change point that a slope is fitted to
MAX_EVALUATIONS = 60  # denser logs are averaged; their neighbours are too alike to count singly


@dataclass(frozen=True, slots=True)
class Trend:
    """A straight line after a step, and how wrong it may be."""

    after_step: int
    slope: float  # nats per token and step
    span: float  # steps that it covers
    errors: np.ndarray  # [D] draws of the error of `change`

    @property
    def change(self) -> float:
        """From the first to the last evaluation of the line, nats per token."""
        return self.slope * self.span

    def interval(self, scale: float = 1.0) -> list[float]:
        """95 % interval of the change times `scale`."""
        low, high = np.quantile(self.change - self.errors, [0.025, 0.975])
        return [float(low * scale), float(high * scale)]

    def chance_above(self, limit: float) -> float:
        """One-sided p-value against "the change is `limit` or more"."""
        return share(self.change - self.errors >= limit)

    def chance_below(self, limit: float) -> float:
        """One-sided p-value against "the change is `limit` or less"."""
        return share(self.change - self.errors <= limit)


@dataclass(frozen=True, slots=True)
class Rise:
    """The outcome of the U test."""

    p: float
    change_point: int | None  # step; None when fewer than four evaluations follow the lowest
    trend: Trend | None  # averaged over the two halves
    half_slopes: tuple[float, float] | None = None

    def passed(self, looks: int = 1) -> bool:
        """Did it rise? `looks`: how often the run is judged (Bonferroni)."""
        return self.p <= ALARM_LEVEL / looks


def share(hits: np.ndarray) -> float:
    """Share of the draws that hit, the measured curve counted as one more draw."""
    return float((1 + hits.sum()) / (1 + len(hits)))


def usable(curve: Curve) -> Curve:
    """The evaluations that are finite, neighbours averaged where there are more than 60."""
    good = np.isfinite(curve.sums).all(1) & np.isfinite(curve.tokens).all(1)
    steps, sums, tokens = curve.steps[good], curve.sums[good], curve.tokens[good]
    size = -(-len(steps) // MAX_EVALUATIONS)
    if size > 1:
        ends = np.arange(len(steps), 0, -size)[::-1]  # counted from the end: the last one is in
        starts = np.concatenate([[0], ends[:-1]])
        steps = steps[ends - 1]
        sums, tokens = (np.add.reduceat(part, starts, axis=0) for part in (sums, tokens))
        width = (ends - starts)[:, None]
        sums, tokens = sums / width, tokens / width
    return replace(curve, steps=steps, sums=sums, tokens=tokens)


def prompt_halves(curve: Curve) -> np.ndarray:
    """[2, P] selection and test where the splits say so, else halves keyed by prompt id.

    A curve of means is its own two halves: only the replay protects it then.
    """
    if not curve.paired:
        return np.ones((2, len(curve.prompt_ids)), dtype=bool)
    first = curve.splits == "selection"
    if min(first.sum(), (~first).sum()) < MIN_AFTER:
        keys = [hashlib.sha256(str(name).encode()).digest() for name in curve.prompt_ids]
        first = np.zeros(len(keys), dtype=bool)
        first[np.array(sorted(range(len(keys)), key=keys.__getitem__), dtype=int)[::2]] = True
    return np.stack([first, ~first])


def smooth(values: np.ndarray) -> np.ndarray:
    """Running mean of three along the last axis, of two at the ends."""
    padded = np.concatenate([values[..., :1] * 0, values, values[..., :1] * 0], axis=-1)
    width = np.full(values.shape[-1], 3.0)
    width[[0, -1]] = 2.0
    return np.asarray((padded[..., :-2] + padded[..., 1:-1] + padded[..., 2:]) / width)


def lowest(values: np.ndarray) -> np.ndarray:
    """Index of the smoothed minimum along the last axis."""
    return np.asarray(smooth(values).argmin(-1))


def slope_weights(steps: np.ndarray) -> np.ndarray:
    """[S, S] row c holds the weights of the least-squares slope after evaluation c, or zeros."""
    weights = np.zeros((len(steps), len(steps)))
    for index in range(len(steps) - MIN_AFTER):
        centred = steps[index + 1 :] - steps[index + 1 :].mean()
        weights[index, index + 1 :] = centred / (centred @ centred)
    return weights


def rise_test(curve: Curve) -> Rise:
    """The U test; `curve` must come from `usable` and hold more than four evaluations."""
    halves = prompt_halves(curve)
    curves = np.stack([curve.sums[:, half].sum(1) / curve.tokens[:, half].sum(1) for half in halves])
    chosen = lowest(curves)[::-1]  # each half takes the other's choice
    low = int(lowest(curve.per_token))
    if max(low, *chosen) > len(curve.steps) - MIN_AFTER - 1:
        return Rise(1.0, None, None)
    noise = draw_noise(curve, halves, low)
    weights = slope_weights(curve.steps.astype(float))
    slopes = (weights[chosen] * curves).sum(1)
    spans = curve.steps[-1] - curve.steps[chosen + 1]
    rise, span = float((slopes * spans).mean()), float(spans.mean())
    errors = ((noise.halves + noise.jitter) * (weights[chosen] * spans[:, None])[:, None]).sum(-1).mean(0)
    p = 1.0
    if rise > 1e-9 * float(np.abs(curve.per_token).max()):  # more than rounding
        statistic = standardised((weights[chosen] * capped(curves, chosen)).sum(1), weights, chosen)
        p = share(replay(curve.per_token, low, noise, weights) >= statistic)
    trend = Trend(int(curve.steps[low]), rise / span, span, errors)
    return Rise(p, int(curve.steps[low]), trend, (float(slopes[0]), float(slopes[1])))


def capped(curves: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """[..., S] curves whose last step rises no more than the largest of the steps after `chosen` [...].

    The last evaluation pulls hardest at a line, and alone it proves nothing: one that lay five
    times the jitter too high was called a rise in 5 to 12 of 100 flat curves, and with the
    cap in 2 to 5. The power stays, because the replay is capped too.
    """
    gains = np.diff(curves)
    after = np.arange(gains.shape[-1] - 1) > chosen[..., None]
    largest = np.where(after, gains[..., :-1], 0.0).max(-1)
    held = curves.copy()
    held[..., -1] = np.minimum(curves[..., -1], curves[..., -2] + largest)
    return np.asarray(held)


def standardised(slopes: np.ndarray, weights: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Mean over the halves (axis 0) of slope / its error under independent noise of size 1."""
    return np.asarray((slopes / np.sqrt((weights**2).sum(1))[chosen]).mean(0))


def replay(values: np.ndarray, low: int, noise: Noise, weights: np.ndarray) -> np.ndarray:
    """[D] the statistic on curves that only fall: the measured fall, then flat, with drawn noise.

    The flat part begins where the fall meets the level of the tail, the hardest
    of the harmless curves: the longer it is flat, the more luck can make of it.
    """
    level = values[low + 1 :].mean()
    flat = np.full(len(values), level)
    flat[: low + 1] = np.maximum(falling_levels(values[: low + 1])[0], level)
    drawn = flat + noise.halves + noise.jitter
    chosen = lowest(drawn)[::-1]
    testable = (chosen <= len(values) - MIN_AFTER - 1).all(0)
    statistic = np.full(drawn.shape[1], -np.inf)
    chosen = chosen[:, testable]
    drawn = capped(drawn[:, testable], chosen)
    statistic[testable] = standardised((weights[chosen] * drawn).sum(-1), weights, chosen)
    return statistic


def trend_after(curve: Curve, step: int) -> Trend:
    """The line after `step` over all prompts, drawn back to four evaluations where fewer follow."""
    start = int(np.searchsorted(curve.steps, step, side="right")) - 1
    start = max(0, min(start, len(curve.steps) - MIN_AFTER - 1))
    weights = slope_weights(curve.steps.astype(float))[start]
    span = float(curve.steps[-1] - curve.steps[start + 1])
    errors = draw_noise(curve, prompt_halves(curve), start).pooled() @ weights * span
    assert len(errors) == NUM_DRAWS
    return Trend(int(curve.steps[start]), float(weights @ curve.per_token), span, errors)
