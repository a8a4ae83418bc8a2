"""What a measured curve could have been instead.

Two things move a curve that mean nothing. The held-out prompts are a sample:
another draw of prompts would give another curve. And every evaluation sees the
weights of one moment: step jitter moves all prompts together, and neighbouring
evaluations are alike. `draw_noise` draws both, many times.

Prompts are redrawn by a paired bootstrap: one random weight per prompt, the same
at all steps. Jitter is a stationary AR(1) series around a trend that falls in
steps and then follows a line. Its strength, its correlation and whether it grows or
shrinks along the run are unknown, and with 10 to 40 evaluations they stay unknown, so
each draw takes its own three from what the residuals allow: correlations from 0 to
0.8, strong ones less likely, and growth from a fourth to fourfold, none most likely.

Blocks of residuals were tried first. On flat curves whose jitter had correlation
0.5 they called a rise in 12 to 18 of 100 runs where 5 were promised: a block of
three knows too little of what comes before and after it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from potstill.records import Curve

#: Draws of every bootstrap. 1,000 puts the Monte Carlo error of p = 0.05 at 0.007.
NUM_DRAWS = 1000
CORRELATIONS = np.linspace(0.0, 0.8, 9)
#: Before the curve is seen. Powers 0 and 2 of (1 - correlation) were tried too: at equal
#: false alarms they find about as many rises, and 2 is worse where jitter is very correlated.
PRIOR = 1 - CORRELATIONS
#: Jitter may grow or shrink along the run, up to fourfold: the learning rate changes, and so does
#: the curve's level. Taken for constant, jitter that grew fourfold called a rise in 7 to 10 of
#: 100 flat runs, and now in 4 or 5. That costs 1 to 5 of 100 rises that are hard to see.
GROWTHS = np.log(4) * np.linspace(-1, 1, 5)
GROWTH_PRIOR = np.array([1, 2, 3, 2, 1]) / 9
#: Levels of the fall closer to its end than so many tail errors are one level. Luck draws
#: steps through a flat curve, and fitting them makes the jitter look smaller than it is:
#: with a prior of power 2, 6.8 % false alarms became 5.5 %.
SAME_LEVEL = 3.0


@dataclass(frozen=True, slots=True)
class Noise:
    """Draws of how far a curve could lie from the truth, nats per token."""

    halves: np.ndarray  # [2, D, S] from redrawn prompts, for each half of them
    jitter: np.ndarray  # [D, S] from step to step, shared by both halves
    shares: np.ndarray  # [2] each half's share of the counted tokens

    def pooled(self) -> np.ndarray:
        """[D, S] the error of the curve over all prompts."""
        return np.asarray(np.tensordot(self.shares, self.halves, axes=1) + self.jitter)


def keyed_generator(*key: str) -> np.random.Generator:
    """A generator that depends on its key alone, not on what was drawn before."""
    words = hashlib.sha256("\x1f".join(key).encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(words[:16], "little")))


def draw_noise(curve: Curve, halves: np.ndarray, start: int) -> Noise:
    """Noise of `curve`, taking it to fall up to evaluation `start` and to follow a line after.

    `halves` [2, P] marks the prompts of each half.
    """
    rng = keyed_generator(curve.name, *map(str, curve.steps), *map(str, curve.prompt_ids))
    prompts = np.stack([redraw_prompts(curve, half, rng) for half in halves])
    tokens = np.array([curve.tokens[:, half].sum() for half in halves])
    return Noise(prompts, draw_jitter(curve.per_token, start, rng), tokens / tokens.sum())


def redraw_prompts(curve: Curve, half: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """[D, S] Bayesian bootstrap (Rubin 1981) over one half's prompts, minus the measured curve.

    The plain bootstrap is too sure of itself with few prompts; the factor widens it
    to Student's t. Means without prompts have no such draws: their prompt error is unknown, and
    the verdict says "unpaired, weak".
    """
    if not curve.paired:
        return np.zeros((NUM_DRAWS, len(curve.steps)))
    sums, tokens = curve.sums[:, half], curve.tokens[:, half]
    weights = rng.standard_exponential((NUM_DRAWS, sums.shape[1]))
    drawn = (weights @ sums.T) / (weights @ tokens.T) - sums.sum(1) / tokens.sum(1)
    num = sums.shape[1]
    return np.asarray(drawn * np.sqrt((num + 1) / rng.chisquare(num - 1, (NUM_DRAWS, 1))))


def draw_jitter(values: np.ndarray, start: int, rng: np.random.Generator) -> np.ndarray:
    """[D, S] jitter, each row with its own correlation, growth and strength."""
    design = trend_design(values, start)
    chance, squares = jitter_posterior(values, design)
    free = design.shape[0] - design.shape[1]
    pick = rng.choice(chance.size, NUM_DRAWS, p=chance.ravel())
    strength = np.sqrt(squares.ravel()[pick] / rng.chisquare(free, NUM_DRAWS))
    which_correlation, which_growth = np.unravel_index(pick, chance.shape)
    correlation = CORRELATIONS[which_correlation]
    fresh = rng.standard_normal((NUM_DRAWS, len(values)))
    fresh[:, 1:] *= np.sqrt(1 - correlation**2)[:, None]
    for step in range(1, len(values)):
        fresh[:, step] += correlation * fresh[:, step - 1]
    return np.asarray(fresh * growth_scales(len(values))[which_growth] * strength[:, None])


def jitter_posterior(values: np.ndarray, design: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[C, G] probability and whitened residual sum of squares for `CORRELATIONS` and `GROWTHS`.

    The restricted likelihood with the variance profiled out: it does not mistake
    what the trend has swallowed for calm.
    """
    free = design.shape[0] - design.shape[1]
    assert free > 0, "the trend leaves nothing to measure jitter with; fit it to more evaluations"
    calm = np.column_stack([design, values]) / growth_scales(len(values))[:, :, None]  # [G, S, K + 1]
    both = np.stack([[whiten(rows, correlation) for rows in calm] for correlation in CORRELATIONS])
    basis, upper = np.linalg.qr(both[..., :-1])
    column = both[..., -1:]
    residual = (column - basis @ (np.swapaxes(basis, -1, -2) @ column))[..., 0]
    squares = np.maximum((residual**2).sum(-1), 1e-30)
    # The growths change no determinant: their scales multiply to 1.
    determinant = (len(values) - 1) * np.log(1 - CORRELATIONS**2) / 2
    swallowed = np.log(np.abs(np.diagonal(upper, axis1=-2, axis2=-1))).sum(-1)
    logs = -determinant[:, None] - swallowed - free / 2 * np.log(squares)
    chance = np.exp(logs - logs.max()) * np.outer(PRIOR, GROWTH_PRIOR)
    return chance / chance.sum(), squares


def growth_scales(evaluations: int) -> np.ndarray:
    """[G, S] the jitter's size along the run for each of `GROWTHS`; it is 1 in the middle."""
    return np.asarray(np.exp(np.outer(GROWTHS, np.linspace(-0.5, 0.5, evaluations))))


def whiten(rows: np.ndarray, correlation: float) -> np.ndarray:
    """Rows of an AR(1) series turned into independent ones of the same variance."""
    scaled = (rows[1:] - correlation * rows[:-1]) / np.sqrt(1 - correlation**2)
    return np.vstack([rows[:1], scaled])


def trend_design(values: np.ndarray, start: int) -> np.ndarray:
    """[S, K] one column per level of the falling part, then a constant and a slope after `start`."""
    tail = values[start + 1 :]
    line = np.column_stack([np.ones(len(tail)), np.linspace(-1, 1, len(tail))])
    residual = tail - line @ np.linalg.lstsq(line, tail, rcond=None)[0]
    spread = float(np.sqrt(residual @ residual / max(len(tail) - 2, 1)))
    fit, sizes = falling_levels(values[: start + 1])
    level = np.repeat(np.arange(len(sizes)), sizes)
    level = np.minimum(level, level[fit <= fit[-1] + SAME_LEVEL * spread].min())
    num_levels = int(level[-1]) + 1
    design = np.zeros((len(values), num_levels + 2))
    design[np.arange(start + 1), level] = 1
    design[start + 1 :, num_levels:] = line
    return design


def falling_levels(values: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """Isotonic regression, non-increasing (pool adjacent violators): the fit and its levels' sizes."""
    levels: list[tuple[float, int]] = []
    for value in values.tolist():
        level, size = value, 1
        while levels and levels[-1][0] <= level:
            above, number = levels.pop()
            level, size = (above * number + level * size) / (number + size), number + size
        levels.append((level, size))
    sizes = [size for _, size in levels]
    return np.repeat([level for level, _ in levels], sizes), sizes
