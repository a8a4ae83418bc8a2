"""A source plans which rows feed which step; it never runs a model.

The plan is a function of (seed, DataPlan, step), so there is no reading position
to lose: a resumed run asks for the same step and gets the same rows, and every
process asks for all row ids and takes its slice.
"""

from __future__ import annotations

from typing import Protocol

from potstill.records import DataPlan


class Source(Protocol):
    """Row ids for a step."""

    plans: list[DataPlan]  # in force one after the other, the last one now

    def rows(self, step: int) -> list[int]:
        """Global row ids of optimiser step `step` (from 0), all processes together."""
        ...

    def epoch(self, step: int) -> float:
        """How many times the rows have been seen before `step`, on average."""
        ...

    def replan(self, plan: DataPlan) -> None:
        """Follow a new plan from `plan.from_step` on."""
        ...
