"""Runs that never happened, with a known answer: curves with prompt noise and step jitter.

The sizes are those of a small trial, in nats per sequence of 32 tokens: golden
falls from 23.4 to 16 and may then rise by 0.5; prompts differ by 5 in level and by
1 in what the run does to them; jitter moves all prompts by 0.1 from one evaluation
to the next, alike to its neighbour by `correlation`.
"""

from __future__ import annotations

import numpy as np

from potstill.records import Curve

TOKENS = 32


def shape_of(
    shape: str, evaluations: int, rise: float, turn: float = 0.5, time: np.ndarray | None = None
) -> np.ndarray:
    """The true golden curve. `u`: turns at `turn` of the run, then rises by `rise`.

    `time` [S] in 0 to 1: when it is evaluated; evenly where not given. Of the shapes that
    never rise, `plateau` falls in a line and stands from `turn` on, `secular` falls by
    7.1 at first and by 0.3 all through, and `slow` falls by 0.5 in all.
    """
    time = np.linspace(0, 1, evaluations) if time is None else time
    return {
        "flat": np.full(evaluations, 16.0),
        "power": 16 + 7.4 * (1 + 40 * time) ** -0.7,
        "exponential": 16 + 7.4 * np.exp(-6 * time),
        "steps": 16 + 7.4 * np.floor(4 * (1 - time)) / 4,
        "plateau": 16 + 7.4 * np.maximum(0, 1 - time / turn),
        "secular": 16 + 7.1 * np.exp(-10 * time) + 0.3 * (1 - time),
        "slow": 16 + 0.5 * (1 - time),
        "u": 16 + 7.4 * np.exp(-5 / turn * time) + rise * np.maximum(0, time - turn) / (1 - turn),
    }[shape]


def times_of(spacing: str, evaluations: int) -> np.ndarray:
    """[S] when evaluations happen, 0 to 1. `early`: every gap is wider than the one before, in all tenfold."""
    gaps = np.geomspace(1, 10, evaluations - 1) if spacing == "early" else np.ones(evaluations - 1)
    return np.concatenate([[0.0], np.cumsum(gaps) / gaps.sum()])


def jitter_series(rng: np.random.Generator, num: int, correlation: float) -> np.ndarray:
    """A stationary AR(1) series of variance 1."""
    series = rng.standard_normal(num)
    for index in range(1, num):
        series[index] = correlation * series[index - 1] + np.sqrt(1 - correlation**2) * series[index]
    return series


def simulate(
    truth: np.ndarray,
    seed: int,
    *,
    name: str = "golden",
    prompts: int = 256,
    jitter: float = 0.1,
    correlation: float = 0.0,
    drift: float = 1.0,
    interaction: float = 1.0,
    heavy: bool = False,
    jitter_end: float | None = None,
    outlier: float = 0.0,
    outlier_at: float = 1.0,
    time: np.ndarray | None = None,
) -> Curve:
    """A measured curve around `truth` [S] (nats per sequence).

    `jitter_end`: the jitter at the end where it grows or shrinks, evenly in its logarithm.
    `outlier`: added to the one evaluation nearest to `outlier_at` of the run. `time` [S]: 0 to 1,
    when the evaluations happen; neighbours are alike by `correlation` whatever lies between them.
    """
    rng = np.random.default_rng([seed, len(name)])
    num = len(truth)
    time = np.linspace(0, 1, num) if time is None else time
    strength = jitter * ((jitter if jitter_end is None else jitter_end) / jitter) ** time if jitter else 0.0
    shared = strength * jitter_series(rng, num, correlation)
    if heavy:
        shared = shared * np.sqrt(3 / rng.chisquare(3, num))  # Student t with 3 degrees of freedom
    shared[round(outlier_at * (num - 1))] += outlier
    levels = truth[:, None] * (1 + 0.3 * rng.standard_normal(prompts))
    own = drift * np.outer(time, rng.standard_normal(prompts)) + interaction * rng.standard_normal((num, prompts))
    response = shared[:, None] * (1 + 0.5 * rng.standard_normal(prompts))
    tokens = rng.integers(TOKENS // 2, TOKENS * 3 // 2, prompts)
    return Curve(
        name=name,
        steps=np.round(10 * (num - 1) * time).astype(int),
        sums=(levels + own + response) * tokens / TOKENS,
        tokens=np.tile(tokens, (num, 1)).astype(float),
        prompt_ids=np.array([f"p{index:04d}" for index in range(prompts)]),
        splits=np.array(["selection", "test"])[np.arange(prompts) % 2],
    )
