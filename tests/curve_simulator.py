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


def shape_of(shape: str, evaluations: int, rise: float) -> np.ndarray:
    """The true golden curve. `u`: turns at half the run, then rises by `rise`."""
    time = np.linspace(0, 1, evaluations)
    return {
        "flat": np.full(evaluations, 16.0),
        "power": 16 + 7.4 * (1 + 40 * time) ** -0.7,
        "exponential": 16 + 7.4 * np.exp(-6 * time),
        "steps": 16 + 7.4 * np.floor(4 * (1 - time)) / 4,
        "u": 16 + 7.4 * np.exp(-10 * time) + rise * np.maximum(0, 2 * time - 1),
    }[shape]


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
) -> Curve:
    """A measured curve around `truth` [S] (nats per sequence)."""
    rng = np.random.default_rng([seed, len(name)])
    num = len(truth)
    time = np.linspace(0, 1, num)
    shared = jitter * jitter_series(rng, num, correlation)
    if heavy:
        shared = shared * np.sqrt(3 / rng.chisquare(3, num))  # Student t with 3 degrees of freedom
    levels = truth[:, None] * (1 + 0.3 * rng.standard_normal(prompts))
    own = drift * np.outer(time, rng.standard_normal(prompts)) + interaction * rng.standard_normal((num, prompts))
    response = shared[:, None] * (1 + 0.5 * rng.standard_normal(prompts))
    tokens = rng.integers(TOKENS // 2, TOKENS * 3 // 2, prompts)
    return Curve(
        name=name,
        steps=10 * np.arange(num),
        sums=(levels + own + response) * tokens / TOKENS,
        tokens=np.tile(tokens, (num, 1)).astype(float),
        prompt_ids=np.array([f"p{index:04d}" for index in range(prompts)]),
        splits=np.array(["selection", "test"])[np.arange(prompts) % 2],
    )
