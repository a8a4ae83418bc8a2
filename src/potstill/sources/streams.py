"""The streams that a source mixes: each is an endless sequence of rows, by position.

`Visits` walks round a fixed list in an order keyed by the epoch. What it walks round may
change with the data plan (more completions, other prompts): then a new segment begins, and
what was taken before stays as it was. Over row ids that is an offline stream; over prompt
ids it is an online one, whose n-th row is a completion that nobody has sampled before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np

from potstill.sources.base import permutation

T = TypeVar("T")


@dataclass(frozen=True)
class _Segment(Generic[T]):
    start: int  # the first position that it serves
    items: tuple[T, ...]
    key: str


@dataclass
class Visits(Generic[T]):
    """Items in a keyed order, every epoch each once."""

    name: str
    seed: int
    segments: list[_Segment[T]] = field(default_factory=list)
    _orders: dict[str, tuple[int, np.ndarray]] = field(default_factory=dict)

    def follow(self, items: Sequence[T], position: int) -> None:
        """Walk round `items` from `position` on; nothing changes where they are the same as before."""
        if self.segments and self.segments[-1].items == tuple(items):
            return
        number = len(self.segments)
        key = self.name if number == 0 else f"{self.name}#{number}"
        self.segments.append(_Segment(position, tuple(items), key))

    def at(self, position: int) -> T:
        """The item at a position."""
        segment = next(s for s in reversed(self.segments) if s.start <= position)
        epoch, place = divmod(position - segment.start, len(segment.items))
        return segment.items[int(self._order(segment, epoch)[place])]

    def passes(self, position: int) -> float:
        """Passes before `position`, over the items of each segment."""
        ends = [s.start for s in self.segments[1:]] + [position]
        spans = zip(self.segments, ends, strict=True)
        return sum((max(0, min(end, position) - s.start)) / len(s.items) for s, end in spans)

    def _order(self, segment: _Segment[T], epoch: int) -> np.ndarray:
        kept = self._orders.get(segment.key)
        if kept is None or kept[0] != epoch:
            kept = (epoch, permutation(self.seed, segment.key, epoch, len(segment.items)))
            self._orders[segment.key] = kept
        return kept[1]
