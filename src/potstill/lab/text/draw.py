"""Random choices that stay the same from one Python to the next.

Only `random()` and seeding by a string are promised to be stable across versions of Python, so every choice here
is made of these two. A document is drawn from its own dice, named by corpus, seed and number: any document can be
made without those before it.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Sequence
from itertools import accumulate
from random import Random
from typing import TypeVar

Item = TypeVar("Item")


class Dice:
    """The random numbers of one document."""

    def __init__(self, name: str, seed: int, index: int) -> None:
        self.random = Random(f"{name}|{seed}|{index}").random

    def pick(self, items: Sequence[Item]) -> Item:
        """One of the items, all equally likely."""
        return items[int(self.random() * len(items))]

    def whole(self, low: int, high: int) -> int:
        """A whole number from `low` to `high`, both possible."""
        return low + int(self.random() * (high - low + 1))

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self.random() < probability

    def some(self, items: Sequence[Item], count: int) -> list[Item]:
        """`count` different items in random order; all of them where there are fewer."""
        left = list(items)
        chosen = []
        for _ in range(min(count, len(left))):
            at = int(self.random() * len(left))
            left[at], left[-1] = left[-1], left[at]
            chosen.append(left.pop())
        return chosen

    def weighted(self, cumulative: Sequence[float]) -> int:
        """An index, drawn by weights given as their running sums."""
        return bisect(cumulative, self.random() * cumulative[-1])


def zipf(count: int, shift: float = 3.0) -> list[float]:
    """Running sums of the weights 1 / (rank + shift): some words are common, most are rare."""
    return list(accumulate(1.0 / (rank + shift) for rank in range(count)))
