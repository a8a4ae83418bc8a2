"""Completions in slots: whenever one ends, the next prompt takes its place.

A batch is as slow as its longest completion. Here every row at work is a completion of its
own age. Rows at work lie side by side, so that a row that ended costs nothing any more:
the last row moves to its place. New prompts are read a few at a time, once an eighth of
the slots is free, and whatever all prompts of a call begin with is computed once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from potstill.config.data import Sampling
from potstill.generation.attention import attending
from potstill.generation.base import Request
from potstill.generation.draw import draw
from potstill.generation.forward import Forward
from potstill.generation.weights import Weights

#: New prompts are read when at least this share of the slots is free.
FREE_SHARE = 8
#: At most so many tokens of new prompts are computed at once, padding included.
PROMPT_TOKENS = 4096
#: A shorter common beginning is not worth a pass of its own.
SHORTEST_SHARED = 8
#: Positions that there is room for at first, beyond the longest prompt.
FIRST_ROOM = 64


@dataclass
class Row:
    """A completion at work."""

    request: Request
    limit: int  # most tokens it may get
    numbers: np.ndarray  # [limit] its keyed uniforms
    ids: list[int] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)

    @property
    def cached(self) -> int:
        """Positions whose keys are kept: all but the newest token's."""
        return len(self.request.prompt) + len(self.ids) - 1


class Slots:
    """At most `slots` completions at a time, until all are whole."""

    def __init__(
        self, model: Any, weights: Weights, sampling: Sampling, ends: set[int], waiting: Sequence[Row], slots: int
    ):
        self.model, self.weights, self.sampling, self.ends = model, weights, sampling, ends
        self.slots, self.waiting = min(slots, len(waiting)), deque(waiting)
        self.rows: list[Row] = []
        prompts = [row.request.prompt for row in waiting]
        self.shared = shared_beginning(prompts)
        self.beginning: list[tuple[Tensor, Tensor]] = []
        room = min(max(len(p) for p in prompts) + FIRST_ROOM, max(len(r.request.prompt) + r.limit for r in waiting))
        self.forward = Forward(model, weights, self.slots, room)

    def run(self) -> Iterator[Row]:
        """Each row once it is whole. Outside of the steps the model has its own weights and attention."""
        while self.waiting or self.rows:
            with torch.no_grad(), self.weights.computing(), attending(self.model):
                whole: list[Row] = []
                while not whole:
                    whole = self.admit() if self._should_admit() else self.step()
            yield from whole

    def _should_admit(self) -> bool:
        free = self.slots - len(self.rows)
        return bool(self.waiting) and (not self.rows or free * FREE_SHARE >= self.slots)

    def admit(self) -> list[Row]:
        """Read prompts into the free slots and draw their first tokens; returns the rows that are whole already."""
        if self.shared and not self.beginning:
            self.forward.prompts(0, [self.shared], 0)
            self.beginning = self.forward.cache.take(0, len(self.shared))
        first, new = len(self.rows), self._next_rows()
        prompts = list(dict.fromkeys(row.request.prompt for row in new))
        # The rows of a prompt lie after all first ones, so that what is computed lies side by side.
        leaders = {prompt: first + i for i, prompt in enumerate(prompts)}
        start = len(self.shared)
        self.forward.cache.put(self.beginning, first, len(prompts))
        hidden = self.forward.prompts(first, [prompt[start:] for prompt in prompts], start)
        lead = [next(row for row in new if row.request.prompt == prompt) for prompt in prompts]
        others = [row for row in new if not any(row is one for one in lead)]
        self.rows += [*lead, *others]
        for i, row in enumerate(others, start=first + len(lead)):
            self.forward.cache.copy_row(leaders[row.request.prompt], i, len(row.request.prompt))
        where = [leaders[row.request.prompt] - first for row in self.rows[first:]]
        return self._draw(hidden[torch.tensor(where, device=hidden.device)], first)

    def _next_rows(self) -> list[Row]:
        """As many waiting rows as there are slots, within the limit of tokens (one at least)."""
        new: list[Row] = []
        longest, different = 0, set[tuple[int, ...]]()
        while self.waiting and len(self.rows) + len(new) < self.slots:
            prompt = self.waiting[0].request.prompt
            longest, different = max(longest, len(prompt) - len(self.shared)), different | {prompt}
            if new and longest * len(different) > PROMPT_TOKENS:
                break
            new.append(self.waiting.popleft())
        return new

    def step(self) -> list[Row]:
        """One more token for every row at work; returns the rows that are whole now."""
        hidden = self.forward.tokens([row.ids[-1] for row in self.rows], [row.cached for row in self.rows])
        return self._draw(hidden, 0)

    def _draw(self, hidden: Tensor, first: int) -> list[Row]:
        """Draw for the rows from `first` on; whole rows leave."""
        rows = self.rows[first:]
        numbers = torch.tensor([row.numbers[len(row.ids)] for row in rows], dtype=torch.float64)
        ids, log_probs = draw(self.forward.scores(hidden), numbers.to(hidden.device), self.sampling)
        for row, token, log_prob in zip(rows, ids.tolist(), log_probs.tolist(), strict=True):
            row.ids.append(token)
            row.log_probs.append(log_prob)
        whole = [row for row in rows if row.ids[-1] in self.ends or len(row.ids) == row.limit]
        self._close_gaps(first)
        return whole

    def _close_gaps(self, first: int) -> None:
        """Drop whole rows; each gap takes the last row that is still at work."""
        i = first
        while i < len(self.rows):
            row = self.rows[i]
            if row.ids[-1] not in self.ends and len(row.ids) < row.limit:
                i += 1
                continue
            last = self.rows.pop()
            if last is not row:
                self.rows[i] = last
                self.forward.cache.copy_row(len(self.rows), i, last.cached)


def shared_beginning(prompts: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """The tokens that all prompts begin with, where they are worth a pass of their own.

    Each prompt keeps at least its last token to itself, since that is where the first draw is made.
    """
    low, high = min(prompts), max(prompts)  # in the order of words in a dictionary: all others lie between
    most = min(len(prompt) for prompt in prompts) - 1
    same = next((i for i in range(most) if low[i] != high[i]), most)
    return low[:same] if len(prompts) > 1 and same >= SHORTEST_SHARED else ()
