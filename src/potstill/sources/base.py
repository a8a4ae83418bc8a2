"""A source plans which rows feed which step; it never runs a model.

The plan is a function of (seed, DataPlans, step), so there is no reading position
to lose: a resumed run asks for the same step and gets the same rows, and every
process asks for all row ids and takes its slice. A row that does not exist yet (a
fresh completion) has an id all the same; whoever feeds the run sees to it that the
row exists before its step.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple, Protocol

import numpy as np

from potstill.records import DataPlan

#: Ids from here on belong to rows that are sampled during training.
FRESH = 1 << 40


class Planned(NamedTuple):
    """One row of a step, and the stream that it is counted under."""

    stream: str
    row: int


class Source(Protocol):
    """Rows for a step."""

    plans: list[DataPlan]  # in force one after the other, the last one now

    def planned(self, step: int) -> list[Planned]:
        """Rows of optimiser step `step` (from 0), all processes together."""
        ...

    def epoch(self, step: int) -> float:
        """How many times the rows have been seen before `step`, on average."""
        ...

    def replan(self, plan: DataPlan) -> None:
        """Follow a new plan from `plan.from_step` on."""
        ...


def keyed(*key: object) -> np.random.Generator:
    """Random numbers that belong to a key and to nothing else."""
    digest = hashlib.sha256("|".join(map(str, key)).encode()).digest()[:16]
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))


def permutation(seed: int, stream: str, epoch: int, size: int) -> np.ndarray:
    """The order of one epoch; keyed, so that any epoch can be asked for at any time."""
    return keyed(seed, "order", stream, epoch).permutation(size)
