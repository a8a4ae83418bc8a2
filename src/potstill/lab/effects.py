"""An effect: one number per seed, its interval, and on which side it has to lie.

Three outcomes, never two. An effect is *met* where its whole 95 % interval lies on the
wanted side. It is *against* where the interval, all of it, falls short of the smallest
effect that counts (2 % of the gain of the arm that it is compared with, the share that
verdicts take for none): then the effect is absent, and known to be. Anything else is
*undecided*, and so is everything with fewer than three seeds.

Shares of seeds (how many passed the U test) have their own two rules. *Rises* is met
where the Clopper-Pearson interval lies above the 5 % of false alarms that the test
promises and half of the seeds is not ruled out. It is never against: a test that does
not pass may only have been too weak. *Never rises* is met where none passed, against
where the share lies above the false alarms; a single one among five could be one of
those, and is undecided.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from potstill.lab.cells import Cell
from potstill.lab.measures import COUNTS_SHARE, gain
from potstill.lab.stats import Estimate, clopper_pearson, paired

MIN_SEEDS = 3
FALSE_ALARMS = 0.05  # what the U test promises to stay below
MOST = 0.5

Outcome = Literal["met", "against", "undecided", "reported"]
Side = Literal["above", "below"]
Measure = Callable[[Cell], float | None]
NATS = "nats per sequence"


@dataclass(frozen=True, slots=True)
class Effect:
    """A number per seed and what became of it; `reported` effects decide nothing."""

    name: str
    words: str
    unit: str
    per_seed: Mapping[int, float]
    estimate: Estimate | None  # None where no seed has it
    wanted: str
    outcome: Outcome
    missing: tuple[str, ...] = ()  # what it would need: arms, or what an arm lacks

    @property
    def needed(self) -> bool:
        return self.outcome != "reported"

    def to_json(self) -> dict[str, Any]:
        """As in results.json; `met` is false for against and null for the others; no interval is null."""
        mean, low, high = (None, None, None) if self.estimate is None else self.estimate.as_list()
        return {
            "name": self.name,
            "words": self.words,
            "per_seed": {str(seed): value for seed, value in self.per_seed.items()},
            "mean": mean,
            "interval": None if low is None or high is None else [low, high],
            "wanted": self.wanted,
            "met": {"met": True, "against": False}.get(self.outcome),
            "unit": self.unit,
            "outcome": self.outcome,
        }


@dataclass(frozen=True, slots=True)
class Want:
    """On which side of `limit` an effect has to lie, and how large one is that counts."""

    side: Side
    limit: float = 0.0
    counts: float = 0.0
    note: str = ""

    @property
    def words(self) -> str:
        return f"{self.side} {self.limit:.3g}" + (f" ({self.note})" if self.note else "")

    def outcome(self, estimate: Estimate) -> Outcome:
        """The rule of this module, for means."""
        if estimate.n < MIN_SEEDS:
            return "undecided"
        sign = 1.0 if self.side == "above" else -1.0
        low, high = sorted((sign * (estimate.low - self.limit), sign * (estimate.high - self.limit)))
        if low > 0:
            return "met"
        return "against" if high <= self.counts else "undecided"


class Arms:
    """The cells of an experiment by arm and seed."""

    def __init__(self, cells: Iterable[Cell]):
        self._cells: dict[str, dict[int, Cell]] = {}
        for cell in sorted(cells, key=lambda cell: cell.seed):
            seeds = self._cells.setdefault(cell.arm, {})
            if cell.seed in seeds:
                raise ValueError(
                    f"arm {cell.arm} has two cells of seed {cell.seed}: {seeds[cell.seed].run}, {cell.run}"
                )
            seeds[cell.seed] = cell

    def names(self) -> list[str]:
        """The arms that have a cell."""
        return list(self._cells)

    def has(self, arm: str) -> bool:
        return arm in self._cells

    def cells(self, arm: str) -> dict[int, Cell]:
        """Seed to cell; empty where the arm was not run."""
        return self._cells.get(arm, {})

    def values(self, arm: str, measure: Measure) -> dict[int, float]:
        """The measure on each seed that has it."""
        found = {seed: measure(cell) for seed, cell in self.cells(arm).items()}
        return {seed: value for seed, value in found.items() if value is not None}

    def counts(self, arm: str, series: str) -> float:
        """The smallest effect that counts: 2 % of the arm's mean gain, nats per sequence."""
        gains = list(self.values(arm, lambda cell: gain(cell, series)).values())
        return COUNTS_SHARE * math.fsum(gains) / len(gains) if gains else 0.0


# -- the kinds of effects -------------------------------------------------------


def single(arms: Arms, arm: str, measure: Measure, name: str, words: str, want: Want | None) -> Effect:
    """A measure of one arm; `want` None only reports it."""
    return effect_of(arms, (arm,), arms.values(arm, measure), name, words, want)


def difference(arms: Arms, arm: str, base: str, measure: Measure, name: str, words: str, want: Want | None) -> Effect:
    """The measure of `arm` minus that of `base`, on the seeds that both have."""
    mine, its = arms.values(arm, measure), arms.values(base, measure)
    per_seed = {seed: mine[seed] - its[seed] for seed in mine if seed in its}
    return effect_of(arms, (arm, base), per_seed, name, words, want)


def effect_of(
    arms: Arms, used: tuple[str, ...], per_seed: Mapping[int, float], name: str, words: str, want: Want | None
) -> Effect:
    """The effect with its interval and outcome, or what is missing for it."""
    wanted = "nothing: for the reader" if want is None else want.words
    if not per_seed:
        outcome: Outcome = "reported" if want is None else "undecided"
        return Effect(name, words, NATS, {}, None, wanted, outcome, missing_for(arms, used))
    estimate = paired(list(per_seed.values()))
    outcome = "reported" if want is None else want.outcome(estimate)
    return Effect(name, words, NATS, per_seed, estimate, wanted, outcome)


def missing_for(arms: Arms, used: tuple[str, ...]) -> tuple[str, ...]:
    """Why no seed has the effect."""
    absent = tuple(f"the arm {arm} was not run" for arm in used if not arms.has(arm))
    if absent:
        return absent
    if len(used) > 1 and not set.intersection(*(set(arms.cells(arm)) for arm in used)):
        return (f"the arms {' and '.join(used)} share no seed",)
    return (f"the arm {used[0]} was not measured where it would be needed",)


def share_risen(arms: Arms, arm: str, wanted: Literal["rises", "never"]) -> Effect:
    """The share of an arm's seeds whose golden passed the U test."""
    found = {seed: cell.rose() for seed, cell in arms.cells(arm).items()}
    per_seed = {seed: float(rose) for seed, rose in found.items() if rose is not None}
    name, words = f"{arm}_u_tests", f"{arm}: share of seeds whose golden passed the test for a rise"
    text = f"above {FALSE_ALARMS:g} (false alarms)" if wanted == "rises" else "none"
    if not per_seed:
        return Effect(name, words, "share of seeds", {}, None, text, "undecided", missing_for(arms, (arm,)))
    hits, num = int(sum(per_seed.values())), len(per_seed)
    outcome = risen_outcome(hits, num) if wanted == "rises" else never_outcome(hits, num)
    if num < MIN_SEEDS:
        outcome = "undecided"
    return Effect(name, words, "share of seeds", per_seed, clopper_pearson(hits, num), text, outcome)


def risen_outcome(hits: int, num: int) -> Outcome:
    """More than false alarms explain, and not known to be fewer than half (one-sided, 5 %)."""
    many = clopper_pearson(hits, num).low > FALSE_ALARMS and clopper_pearson(hits, num, 0.9).high >= MOST
    return "met" if many else "undecided"


def never_outcome(hits: int, num: int) -> Outcome:
    if hits == 0:
        return "met"
    return "against" if clopper_pearson(hits, num).low > FALSE_ALARMS else "undecided"


def share_of_verdict(arms: Arms, arm: str, verdict: str) -> Effect:
    """The share of an arm's seeds with this verdict, for the reader."""
    per_seed = {seed: float(cell.verdict == verdict) for seed, cell in arms.cells(arm).items()}
    estimate = clopper_pearson(int(sum(per_seed.values())), len(per_seed)) if per_seed else None
    words = f"{arm}: share of seeds with the verdict {verdict}"
    missing = () if per_seed else missing_for(arms, (arm,))
    name = f"{arm}_verdict_{verdict}"
    return Effect(name, words, "share of seeds", per_seed, estimate, "nothing: for the reader", "reported", missing)
