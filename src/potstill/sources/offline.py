"""Offline: rows that exist before training, visited once an epoch in a keyed order.

A batch mixes streams of rows, by who wrote them, in the shares of the data plan.
Which stream the n-th row of the run comes from is read off a golden-ratio sequence,
whose shares are right over any stretch, not only on average; which row of the
stream, off a keyed permutation. So all follows from (seed, plans, step).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from potstill.records import DataPlan

GOLDEN = (5**0.5 - 1) / 2


def permutation(seed: int, stream: str, epoch: int, size: int) -> np.ndarray:
    """The order of one epoch; keyed, so that any epoch can be asked for at any time."""
    key = hashlib.sha256(f"{seed}|order|{stream}|{epoch}".encode()).digest()[:16]
    return np.random.Generator(np.random.Philox(key=int.from_bytes(key, "little"))).permutation(size)


class OfflineSource:
    """Follows data plans over fixed rows."""

    def __init__(self, streams: Mapping[str, Sequence[int]], seed: int, batch_rows: int, plan: DataPlan):
        self.streams = {name: list(rows) for name, rows in sorted(streams.items()) if rows}
        self.seed, self.batch_rows = seed, batch_rows
        self.plans: list[DataPlan] = []
        self._orders: dict[str, tuple[int, np.ndarray]] = {}
        self._counted: tuple[int, np.ndarray] = (0, np.zeros(len(self.streams), dtype=np.int64))
        self.replan(plan)

    @property
    def plan(self) -> DataPlan:
        return self.plans[-1]

    def replan(self, plan: DataPlan) -> None:
        """Follow `plan` from its `from_step` on; what earlier steps took stays as it was."""
        empty = [name for name in plan.fractions if name not in self.streams]
        if empty:
            raise ValueError(
                f"the data plan wants {', '.join(empty)} rows and there are none. Give data.prompts.reference "
                "for reference rows and data.completions for others, or change source.fractions."
            )
        if self.plans and plan.from_step < self.plan.from_step:
            raise ValueError(f"plan {plan.version} starts before the plan in force")
        self.plans.append(plan)
        self._counted = (0, np.zeros(len(self.streams), dtype=np.int64))

    def rows(self, step: int) -> list[int]:
        """Global row ids of optimiser step `step`."""
        chosen: list[int] = []
        taken = self._taken(step)
        wanted = np.bincount(self._streams_at(step), minlength=len(self.streams))
        for i, (name, stream) in enumerate(self.streams.items()):
            for position in range(int(taken[i]), int(taken[i] + wanted[i])):
                epoch, place = divmod(position, len(stream))
                chosen.append(stream[int(self._order(name, epoch)[place])])
        return chosen

    def epoch(self, step: int) -> float:
        """Mean passes before `step` over the streams in use."""
        taken = self._taken(step)
        passes = [taken[i] / len(s) for i, (n, s) in enumerate(self.streams.items()) if n in self.plan.fractions]
        return float(sum(passes) / len(passes))

    def _streams_at(self, step: int) -> np.ndarray:
        """[batch_rows] which stream each row of a step comes from."""
        plan = [p for p in self.plans if p.from_step <= step][-1]
        shares = np.cumsum([plan.fractions.get(name, 0.0) for name in self.streams])
        numbers = (np.arange(step * self.batch_rows, (step + 1) * self.batch_rows) + 0.5) * GOLDEN % 1
        return np.minimum(np.searchsorted(shares, numbers, side="right"), len(shares) - 1)

    def _taken(self, step: int) -> np.ndarray:
        """[streams] rows taken from each before `step`."""
        at, counts = self._counted if self._counted[0] <= step else (0, np.zeros_like(self._counted[1]))
        for earlier in range(at, step):
            counts = counts + np.bincount(self._streams_at(earlier), minlength=len(self.streams))
        self._counted = (step, counts)
        return counts

    def _order(self, name: str, epoch: int) -> np.ndarray:
        kept = self._orders.get(name)
        if kept is None or kept[0] != epoch:
            kept = (epoch, permutation(self.seed, name, epoch, len(self.streams[name])))
            self._orders[name] = kept
        return kept[1]
