"""What a source can plan with: the rows that exist, and the prompts that can be answered anew.

A data plan speaks of the first so many prompts and of so many completions of each. The
prompts stand in an order keyed by the seed, so that fewer of them are a fair sample.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from potstill.records import DataPlan
from potstill.sources.base import keyed


@dataclass(frozen=True)
class Known:
    """A row that exists: its id, its prompt, and which completion of it this is."""

    row: int
    prompt_id: str
    index: int


@dataclass
class Catalog:
    """Rows by stream, and prompts. Rows may be added; their order is that of their ids."""

    rows: dict[str, list[Known]]
    prompts: Sequence[str]

    @classmethod
    def of(cls, rows: Mapping[str, Sequence[int]], num_prompts: int | None = None) -> Catalog:
        """For rows without prompts of interest: row i answers prompt i."""
        known = {name: [Known(i, str(i), 0) for i in ids] for name, ids in rows.items() if len(ids)}
        ids = {entry.prompt_id for entries in known.values() for entry in entries}
        return cls(known, sorted(ids, key=int)[:num_prompts])

    def chosen_prompts(self, plan: DataPlan) -> list[str]:
        """The prompts of the plan."""
        return list(self.prompts[: plan.num_prompts])

    def chosen_rows(self, stream: str, plan: DataPlan) -> list[int]:
        """The rows of a stream that the plan uses."""
        prompts = set(self.chosen_prompts(plan))
        most = plan.completions_per_prompt if stream == "teacher" else None
        return [
            known.row
            for known in self.rows.get(stream, [])
            if known.prompt_id in prompts and (most is None or known.index < most)
        ]


def prompt_order(ids: Sequence[str], seed: int) -> list[str]:
    """The prompts in an order keyed by the seed; it does not depend on the order of `ids`."""
    ordered = sorted(ids)
    return [ordered[i] for i in keyed(seed, "prompts").permutation(len(ordered))]
