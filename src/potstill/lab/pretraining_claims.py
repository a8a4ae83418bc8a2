"""The four claims of Lu and Liu 2026 (arXiv 2605.23857), each tested on the cells at hand.

A claim is reproduced or not where intervals over seeds say so after correction for how many
were looked at (Bonferroni), and not decidable otherwise. A downstream task counts by its
accuracy only where the twin beats chance by two standard errors; else its likelihood margin
stands in. A weak teacher is one that predicts held-out text no better than the twin.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from potstill.lab.pretraining import teacher_name
from potstill.lab.pretraining_reading import OUTSIDE, Cell, unit_of
from potstill.lab.stats import LEVEL, student_quantile

REPRODUCED, NOT_REPRODUCED, UNDECIDED = "reproduced", "not reproduced", "not decidable"
#: Nats per token below which a gain is no gain that anybody trains a teacher for.
SMALL = 0.005


@dataclass(frozen=True)
class Claim:
    """A claim, and what became of it."""

    number: int
    name: str
    statement: str
    status: str
    why: str


@dataclass(frozen=True)
class Bound:
    """A mean over seeds with an interval for one of `looks`."""

    mean: float
    low: float
    high: float

    def words(self) -> str:
        if not math.isfinite(self.low):
            return f"{self.mean:+.3f} (one seed)"
        return f"{self.mean:+.3f} ({self.low:+.3f} to {self.high:+.3f})"


def bound(values: Sequence[float], looks: int = 1) -> Bound:
    """Student's t over seeds at 1 - 0.05 / looks."""
    mean, n = float(np.mean(values)), len(values)
    if n < 2:
        return Bound(mean, -math.inf, math.inf)
    quantile = student_quantile(1 - (1 - LEVEL) / (2 * looks), n - 1)
    half = quantile * float(np.std(values, ddof=1)) / math.sqrt(n)
    return Bound(mean, mean - half, mean + half)


def judge_claims(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """All four, on the main grid of the first student's size; [] without cells."""
    main = [cell for cell in cells if not cell.variant]
    if not main:
        return []
    grid = evened([cell for cell in main if cell.size == main[0].size])
    outside = OUTSIDE if OUTSIDE in grid[0].measures else next((m for m in grid[0].measures if is_outside(m)), "")
    claims = [weak_teachers_help(grid, outside), stronger_is_not_better(grid), pure_loses(grid),
              generalisation_first(grid, outside)]  # fmt: skip
    return [asdict(claim) for claim in claims]


def evened(cells: Sequence[Cell]) -> list[Cell]:
    """The cells cut to the seeds that all of them have: of a stopped grid some have more, and pairs need both.

    Where they share none, those cells stay that have the seed of most.
    """
    shared = set.intersection(*(set(cell.seeds) for cell in cells))
    if not shared:
        shared = {Counter(seed for cell in cells for seed in cell.seeds).most_common(1)[0][0]}
    cut = [replace(c, pairs=tuple(pair for pair in c.pairs if pair[0].model.seed in shared)) for c in cells]
    return [cell for cell in cut if cell.pairs]


def is_outside(measure: str) -> bool:
    return unit_of(measure)[0] == "out"


def weak(cell: Cell) -> bool:
    return cell.gap >= 0


def by_name(cell: Cell) -> str:
    return f"{teacher_name(cell.teacher.model.size, cell.teacher.model.tokens)} at {cell.weight:g}"


def weak_teachers_help(grid: Sequence[Cell], outside: str) -> Claim:
    """Mixed with the corpus, a teacher no better than the student improves it."""
    name, said = "weak teachers help", "A weak teacher improves the student when its loss is mixed with the corpus's."
    cells = [cell for cell in grid if weak(cell) and cell.weight < 1]
    if not cells:
        return Claim(1, name, said, UNDECIDED, "No teacher of the grid is weaker than the twin, mixed with the corpus.")
    told, states = [], []
    measures = ["held_out", *([outside] if outside else []), *counted(grid)]
    looks = len(cells) * len(measures)
    for measure in measures:
        gains = {by_name(cell): bound(cell.gains(measure), looks) for cell in cells}
        best = max(gains, key=lambda key: gains[key].mean)
        wins = [key for key, found in gains.items() if found.low > 0]
        small = SMALL if "nats per token" in unit_of(measure)[1] else 0.0
        states.append(REPRODUCED if wins else NOT_REPRODUCED if all(g.high < small for g in gains.values())
                      else UNDECIDED)  # fmt: skip
        sure = f" ({'; '.join(f'{key}, {gains[key].words()}' for key in wins)})" if wins else ""
        told.append(
            f"{label(measure)}: best {best}, gain {gains[best].words()}, sure in {len(wins)} of {len(cells)}{sure}"
        )
    status = REPRODUCED if REPRODUCED in states else UNDECIDED if UNDECIDED in states else NOT_REPRODUCED
    return Claim(1, name, said, status, f"{'; '.join(told)}. Intervals corrected for {looks} looks.")


def stronger_is_not_better(grid: Sequence[Cell]) -> Claim:
    """Pushing the teacher further, by size or tokens, saturates or reverses the gain."""
    name, said = "stronger is not always better", "A stronger teacher can give less than a weaker one, or no more."
    best = best_cells(grid, "held_out")
    pushes = [(low, high) for low in best for high in best if is_push(low, high)]
    if not pushes:
        return Claim(2, name, said, UNDECIDED, "No two teachers differ in size or tokens alone.")
    told, reversed_, improved, worse = [], 0, 0, 0
    for low, high in pushes:
        change = [b - a for a, b in zip(low.gains("held_out"), high.gains("held_out"), strict=True)]
        found = bound(change, len(pushes))
        reversed_ += found.high < 0
        worse += found.high < 0 and high.gap > low.gap
        improved += found.low > 0
        told.append(f"{by_name(low)} to {by_name(high)}: {found.words()}")
    ranked = sorted(best, key=lambda cell: cell.gap)
    strongest, top = ranked[0], max(best, key=lambda cell: float(np.mean(cell.gains("held_out"))))
    status = REPRODUCED if reversed_ else NOT_REPRODUCED if improved == len(pushes) else UNDECIDED
    if status == UNDECIDED and top is not strongest:
        # The top one is picked among all, so each of the others is a look.
        ahead = [a - b for a, b in zip(top.gains("held_out"), strongest.gains("held_out"), strict=True)]
        lead = bound(ahead, len(best) - 1)
        told.append(f"the strongest is {by_name(strongest)}, the best {by_name(top)}, by {lead.words()}")
        status = REPRODUCED if lead.low > 0 else UNDECIDED
    why = f"In-domain gain of one push at the best weight of each, in nats per token: {'; '.join(told)}."
    # More parameters or tokens is what the paper calls stronger; a push may all the same make a teacher predict worse.
    hurt = f"{reversed_} hurt" + (f" ({worse} of these made the teacher's own loss worse)" if reversed_ else "")
    return Claim(2, name, said, status, f"{improved} pushes help, {hurt}, of {len(pushes)}. {why}")


def pure_loses(grid: Sequence[Cell]) -> Claim:
    """With a weak teacher, learning from it alone is worse than mixing."""
    name, said = "pure distillation loses", "With a weak teacher, pure distillation (weight 1) is worse than mixing."
    pure = {cell.key: cell for cell in grid if cell.weight == 1 and weak(cell)}
    mixed = {cell.key: cell for cell in best_cells([c for c in grid if c.weight < 1], "held_out")}
    both = [(pure[key], mixed[key]) for key in pure if key in mixed]
    if not both:
        return Claim(3, name, said, UNDECIDED, "No weak teacher was tried both mixed and at weight 1.")
    looks = sum(cell.weight < 1 and cell.key in pure for cell in grid)  # the best mixture is picked among several
    losses = {
        by_name(m): bound([a - b for a, b in zip(m.gains("held_out"), p.gains("held_out"), strict=True)], looks)
        for p, m in both
    }
    lost = sum(found.low > 0 for found in losses.values())
    won = sum(found.high < 0 for found in losses.values())
    status = REPRODUCED if lost == len(both) else NOT_REPRODUCED if won else UNDECIDED
    told = "; ".join(f"{key} over weight 1: {found.words()}" for key, found in losses.items())
    return Claim(3, name, said, status, f"In-domain, sure for {lost} of {len(both)} weak teachers. {told}.")


def generalisation_first(grid: Sequence[Cell], outside: str) -> Claim:
    """Out of domain and downstream gain in more cells, and more, than in-domain."""
    name = "generalisation gains first"
    said = "Out-of-domain and downstream figures improve more readily than in-domain ones."
    if not outside:
        return Claim(4, name, said, UNDECIDED, "No out-of-domain set was measured.")
    mixed = [cell for cell in grid if cell.weight < 1] or list(grid)
    lead = bound(np.mean([np.subtract(c.gains(outside), c.gains("held_out")) for c in mixed], axis=0).tolist())
    only_out = sum(np.mean(c.gains(outside)) > 0 >= np.mean(c.gains("held_out")) for c in mixed)
    only_in = sum(np.mean(c.gains("held_out")) > 0 >= np.mean(c.gains(outside)) for c in mixed)
    told = [
        f"over {len(mixed)} mixed cells the out-of-domain gain exceeds the in-domain one by {lead.words()} nats per "
        f"token; {only_out} cells gain out of domain alone, {only_in} in-domain alone"
    ]
    for measure in counted(grid):
        ups = sum(np.mean(cell.gains(measure)) > 0 for cell in mixed)
        gain = bound(np.mean([cell.gains(measure) for cell in mixed], axis=0).tolist())
        told.append(f"{label(measure)} is better in {ups} of {len(mixed)}, mean {gain.words()}")
    ids = sum(np.mean(cell.gains("held_out")) > 0 for cell in mixed)
    told.append(f"in-domain is better in {ids} of {len(mixed)}")
    status = REPRODUCED if lead.low > 0 else NOT_REPRODUCED if lead.high < 0 else UNDECIDED
    return Claim(4, name, said, status, f"{'; '.join(told)}. The status is that of the out-of-domain part.")


def counted(grid: Sequence[Cell]) -> list[str]:
    """The downstream measures that count: accuracy where the twins beat chance, else the margin."""
    found = []
    twins = [twin for cell in grid for _, twin in cell.pairs]
    for name in twins[0].measures["choices"]:
        beats = all(twin.measures["choices"][name]["beats_chance"] for twin in twins)
        measure = f"{name} accuracy" if beats else f"{name} margin"
        found.append(measure if measure in grid[0].measures else f"{name} surprise")
    return found


def best_cells(grid: Sequence[Cell], measure: str) -> list[Cell]:
    """For every student's size and teacher, the cell of the largest mean gain."""
    found: dict[tuple[str, str], Cell] = {}
    for cell in grid:
        other = found.get(cell.key)
        if other is None or np.mean(cell.gains(measure)) > np.mean(other.gains(measure)):
            found[cell.key] = cell
    return list(found.values())


def is_push(low: Cell, high: Cell) -> bool:
    """Whether the second teacher differs from the first by more size or more tokens, and by nothing else."""
    a, b = low.teacher, high.teacher
    larger = b.facts["parameters"] > a.facts["parameters"] and b.model.tokens == a.model.tokens
    longer = b.model.size == a.model.size and b.model.tokens > a.model.tokens
    return larger or longer


def label(measure: str) -> str:
    return {"held_out": "in-domain"}.get(measure, measure)
