"""Experiments that never happened, with known answers: cells in which the paper's findings hold, fail or are absent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from curve_simulator import shape_of, simulate

from potstill.lab.cells import Cell, RiseSummary, rise_of

EPOCHS, EVERY, PER_EPOCH = 48, 3, 16
STEPS = tuple(range(0, EPOCHS * PER_EPOCH + 1, EVERY * PER_EPOCH))
FEW_STEPS = tuple(range(0, 3 * PER_EPOCH + 1, PER_EPOCH // 2))
ARMS = (
    "offline", "oracle_as_teacher", "online_teacher", "online_student", "mixture_10", "prompts_fifth", "prompts_half",
    "completions_4", "few_epochs", "small_teacher", "small_student", "reverse_kl", "reverse_kl_online",
    "jensen_shannon",
)  # fmt: skip
#: arm -> (golden's rise, golden's low, proxy at the end, proxy's late change, training loss at the end)
HOLDS = {
    "offline": (0.5, 16.4, 10.0, 0.0, 5.0),
    "oracle_as_teacher": (0.0, 9.9, 9.9, -0.3, 4.9),
    "online_teacher": (0.0, 13.9, 6.9, -0.5, 6.9),
    "online_student": (0.0, 14.2, 7.2, -0.5, 7.2),
    "mixture_10": (0.0, 15.6, 8.6, -0.3, 6.0),
    "prompts_fifth": (1.5, 17.5, 10.4, 0.0, 4.6),
    "prompts_half": (0.9, 16.8, 10.1, 0.0, 4.8),
    "completions_4": (0.2, 14.8, 7.9, -0.2, 6.3),
    "few_epochs": (0.0, 18.0, 13.0, -0.5, 13.0),
    "small_teacher": (0.6, 17.0, 10.0, 0.0, 5.0),
    "small_student": (0.4, 17.9, 11.0, 0.0, 6.0),
    "reverse_kl": (0.7, 17.0, 9.0, 0.0, 5.0),
    "reverse_kl_online": (0.0, 14.5, 7.0, -0.3, 6.9),
    "jensen_shannon": (0.5, 17.2, 3.0, 0.0, 1.0),
}
#: The same experiment in which each finding is contradicted.
FAILS = HOLDS | {
    "oracle_as_teacher": (0.5, 16.4, 10.0, 0.0, 4.9),
    "online_teacher": (0.6, 16.5, 10.0, 0.6, 6.9),
    "online_student": (0.6, 16.5, 10.0, 0.6, 6.9),
    "mixture_10": (0.5, 16.4, 10.0, 0.0, 5.0),
    "prompts_fifth": (0.5, 16.4, 10.0, 0.0, 5.0),
    "completions_4": (0.5, 16.4, 10.0, 0.0, 5.0),
    "few_epochs": (0.9, 18.0, 13.0, 0.5, 13.0),
    "small_teacher": (0.0, 16.0, 9.0, 0.0, 5.0),
}
World = dict[str, tuple[float, float, float, float, float]]


def curve(start: float, low: float, late: float, num: int) -> np.ndarray:
    """Falls to `low` by the middle, then changes by `late` along a line."""
    time = np.linspace(0, 1, num)
    fall = np.where(time < 0.5, np.exp(-9 * time), 0.0)
    return np.asarray(low + (start - low) * fall + late * np.maximum(0, 2 * time - 1))


def cell(arm: str, seed: int, given: tuple[float, float, float, float, float], noise: float = 0.05) -> Cell:
    """A cell of a world; the seed's own level is shared by all arms, `noise` is not."""
    rise, low, proxy_end, late, loss_end = given
    steps = FEW_STEPS if arm == "few_epochs" else STEPS
    shared = np.random.default_rng(seed).normal(0, 0.5)
    rng = np.random.default_rng([seed, sum(map(ord, arm))])
    own = shared + rng.normal(0, noise)
    change = rise + rng.normal(0, noise) if rise else -0.4
    proxy = curve(17.0, proxy_end - late, late, len(steps)) + own
    return Cell(
        arm=arm,
        seed=seed,
        run=f"steps/distil-{arm}-s{seed}/run",
        epochs=3 if arm == "few_epochs" else EPOCHS,
        steps_per_epoch=PER_EPOCH,
        verdict="hacking" if rise else "healthy",
        confidence=0.9,
        steps=steps,
        proxy=tuple(proxy.tolist()),
        golden=tuple((curve(23.8, low, change, len(steps)) + own).tolist()),
        training_loss=(None, *(curve(17.0, loss_end, 0.0, len(steps)) + own).tolist()[1:]),
        proxy_fkl=tuple(proxy.tolist()),
        teacher_golden=15.0 + shared,
        rise=RiseSummary(0.001, steps[len(steps) // 2], change, (change - 0.1, change + 0.1)) if rise else None,
        seconds=60.0,
    )


def world(given: World, seeds: Sequence[int] = (3, 4, 5, 6, 7), noise: float = 0.05) -> list[Cell]:
    return [cell(arm, seed, numbers, noise) for seed in seeds for arm, numbers in given.items()]


def null_cells(num: int, shape: str) -> list[Cell]:
    """Measured curves in which nothing rises and no arm differs, each with the real U test."""
    found = []
    for index in range(num):
        series = {
            name: simulate(shape_of(shape, len(STEPS), 0.0), index, name=name, prompts=64, correlation=0.3)
            for name in ("golden", "proxy", "training_loss")
        }
        means = {name: tuple(one.sums.mean(1).tolist()) for name, one in series.items()}
        found.append(
            Cell(
                arm="any", seed=index, run="", epochs=len(STEPS) - 1, steps_per_epoch=10, verdict="healthy",
                confidence=0.5, steps=tuple(range(0, 10 * len(STEPS), 10)), proxy_fkl=means["proxy"],
                rise=rise_of(series), **means,
            )
        )  # fmt: skip
    return found


def null_world(pool: Sequence[Cell], seed: int, num_seeds: int = 5) -> list[Cell]:
    """`num_seeds` seeds of every arm, drawn from the same pool."""
    chosen = np.random.default_rng(seed).permutation(len(pool))[: num_seeds * len(ARMS)]
    places = [(arm, s) for arm in ARMS for s in range(num_seeds)]
    return [replace(pool[index], arm=arm, seed=s) for index, (arm, s) in zip(chosen, places, strict=True)]
