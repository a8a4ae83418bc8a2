"""The one source: streams of rows in the shares that the data plan says.

After every step the number of rows taken from each stream is its share of all rows since
the plan began, rounded up or down: never a whole row off. Which row of a stream comes
next, the stream knows. So all follows from (seed, plans, step), and an offline source is
one whose streams all exist before training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from potstill.records import DataPlan
from potstill.sources.base import FRESH, Planned, keyed
from potstill.sources.catalog import Catalog
from potstill.sources.streams import Visits

ONLINE = ("online_teacher", "online_student")
STREAMS = ("teacher", "reference", "corpus", *ONLINE, "replay")


@dataclass(frozen=True)
class ReplayRule:
    """How rows of `online_student` are drawn again: from its latest so many, none older than so many steps."""

    capacity_rows: int
    max_staleness_steps: int | None = None


class _Before(NamedTuple):
    """What went before a step: rows by stream, as the plan in force counts them and as they were taken.

    The two differ where a replay had nothing to draw from yet and fresh rows stood in.
    """

    quota: dict[str, int]
    taken: dict[str, int]


class MixtureSource:
    """Follows data plans over a catalog's rows and prompts."""

    def __init__(self, catalog: Catalog, seed: int, batch_rows: int, plan: DataPlan, replay: ReplayRule | None = None):
        self.catalog, self.seed, self.batch_rows, self.replay = catalog, seed, batch_rows, replay
        self.plans: list[DataPlan] = []
        self._fixed: dict[str, Visits[int]] = {}
        self._fresh: dict[str, Visits[str]] = {}
        self._states = [_Before({}, dict.fromkeys(STREAMS, 0))]  # before step 0, 1, ...
        self.replan(plan)

    @property
    def plan(self) -> DataPlan:
        return self.plans[-1]

    def replan(self, plan: DataPlan) -> None:
        """Follow `plan` from its `from_step` on; what earlier steps took stays as it was.

        Raises ValueError: a stream without rows, a plan that starts before the one in force.
        """
        if self.plans and plan.from_step < self.plan.from_step:
            raise ValueError(f"plan {plan.version} starts before the plan in force")
        taken = self.taken(plan.from_step) if self.plans else self._states[0].taken
        for name in plan.fractions:
            self._follow(name, plan, taken)
        self.plans.append(plan)
        del self._states[plan.from_step + 1 :]

    def _follow(self, name: str, plan: DataPlan, taken: Mapping[str, int]) -> None:
        if name in ONLINE:
            prompts = self.catalog.chosen_prompts(plan)
            self._fresh.setdefault(name, Visits(name, self.seed)).follow(prompts, taken[name])
        elif name == "replay":
            if self.replay is None:
                raise ValueError("the data plan wants replay rows, and the source was given no rule for them")
        else:
            rows = self.catalog.chosen_rows(name, plan)
            if not rows:
                raise ValueError(
                    f"the data plan wants {name} rows and there are none. Give data.prompts.reference "
                    "for reference rows and data.completions for others, or change source.fractions."
                )
            self._fixed.setdefault(name, Visits(name, self.seed)).follow(rows, taken[name])

    def planned(self, step: int) -> list[Planned]:
        """Rows of optimiser step `step`, stream by stream."""
        before, after = self.taken(step), self.taken(step + 1)
        found = []
        for name in STREAMS:
            for position in range(before[name], after[name]):
                found.append(Planned(name, self._row(name, position, step)))
        return found

    def taken(self, step: int) -> dict[str, int]:
        """Rows taken from each stream before `step`."""
        while len(self._states) <= step:
            self._states.append(self._next(len(self._states) - 1))
        return self._states[step].taken

    def prompt_of(self, row: int) -> str:
        """The prompt of a fresh row."""
        number, position = divmod(row, FRESH)
        return self._fresh[ONLINE[number - 1]].at(position)

    def epoch(self, step: int) -> float:
        """Mean passes before `step` over the streams in use, replay not counted."""
        taken = self.taken(step)
        walks: dict[str, Visits] = {**self._fixed, **self._fresh}
        passes = [walks[name].passes(taken[name]) for name in self.plan.fractions if name != "replay"]
        return float(sum(passes) / max(1, len(passes)))

    def _next(self, step: int) -> _Before:
        """The state after `step`, from that before it."""
        before = self._states[step]
        plan = [p for p in self.plans if p.from_step <= step][-1]
        quota = dict(before.quota) if plan.from_step < step else dict.fromkeys(plan.fractions, 0)
        taken = dict(before.taken)
        nothing_to_replay = "replay" in plan.fractions and not self._window(step)
        for _ in range(self.batch_rows):
            name = next_in_turn(plan.fractions, quota)
            quota[name] += 1
            taken["online_student" if name == "replay" and nothing_to_replay else name] += 1
        return _Before(quota, taken)

    def _row(self, name: str, position: int, step: int) -> int:
        if name in ONLINE:
            return (1 + ONLINE.index(name)) * FRESH + position
        if name == "replay":
            window = self._window(step)
            return (
                FRESH * (1 + ONLINE.index("online_student"))
                + window[int(keyed(self.seed, "replay", position).integers(len(window)))]
            )
        return self._fixed[name].at(position)

    def _window(self, step: int) -> range:
        """Positions of `online_student` that may be drawn again at `step`."""
        assert self.replay is not None
        last = self.taken(step)["online_student"]
        first = max(0, last - self.replay.capacity_rows)
        if self.replay.max_staleness_steps is not None:
            oldest = max(0, step - self.replay.max_staleness_steps)
            first = max(first, self.taken(oldest)["online_student"])
        return range(first, last)


def next_in_turn(shares: Mapping[str, float], counts: Mapping[str, int]) -> str:
    """Which stream gets the next row, so that every count stays within one of its share of all rows.

    Of the streams that are far enough behind, the one that would be too far behind soonest
    (Tijdeman 1980, "The chairman assignment problem": off by at most 1 - 1/(2k - 2) for k streams).
    """
    margin = 1 / max(2, 2 * len(shares) - 2)
    rows = sum(counts.values()) + 1
    lag = {name: share * rows - counts[name] for name, share in shares.items()}
    ready = [name for name in shares if lag[name] >= margin - 1e-9] or list(shares)
    return min(ready, key=lambda name: (round((1 - margin - lag[name]) / shares[name], 9), name))
