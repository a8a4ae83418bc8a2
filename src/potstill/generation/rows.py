"""Keys and values of the rows at work, in place.

Every row of the cache belongs to one completion. It starts at 0, without padding before
it, and has a length of its own; what lies beyond is never looked at. Memory is taken for
all rows at once and grows by doubling, one layer after the other.

Letters: S rows of the cache, n of them at work, L positions there is room for.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import Cache


class RowCache(Cache):  # type: ignore[misc]
    """A Transformers cache whose rows are written where they lie.

    Before each forward pass, `fill` or `extend` says where its keys and values go.
    """

    def __init__(self, rows: int, room: int):
        super().__init__(layers=[])
        self.rows, self.room = rows, room
        self.keys: list[Tensor] = []  # [S, H_kv, L, D] for each layer
        self.values: list[Tensor] = []
        self.first, self.count, self.start = 0, 0, 0
        self.lengths: Tensor | None = None  # [n] positions that the rows have, while they are extended
        self.visible = 0
        self.places: dict[int, Tensor] = {}

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Nothing, as far as a model may care: positions are said outright."""
        return 0

    def fill(self, first: int, count: int, start: int) -> None:
        """The next pass writes rows first to first + count, from position `start` on."""
        self.first, self.count, self.start, self.lengths = first, count, start, None

    def extend(self, lengths: Tensor, visible: int) -> None:
        """The next pass writes one position of each row at work: position lengths[i] of row i.

        `visible` is the greatest length afterwards.
        """
        self.lengths, self.visible, self.places = lengths, visible, {}

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Write, and hand back all that the queries may look at."""
        if layer_idx == len(self.keys):
            self.keys.append(self._room_for(key_states))
            self.values.append(self._room_for(value_states))
        keys, values = self.keys[layer_idx], self.values[layer_idx]
        if self.lengths is not None:
            return self._append(keys, key_states), self._append(values, value_states)
        end = self.start + key_states.shape[2]
        rows = slice(self.first, self.first + self.count)
        keys[rows, :, self.start : end] = key_states
        values[rows, :, self.start : end] = value_states
        if self.start == 0:
            return key_states, value_states
        return keys[rows, :, :end], values[rows, :, :end]

    def _append(self, cached: Tensor, states: Tensor) -> Tensor:
        n, heads, _, width = states.shape
        if heads not in self.places:
            assert self.lengths is not None
            row = torch.arange(n * heads, device=cached.device) * self.room
            self.places[heads] = row + self.lengths.to(cached.device).repeat_interleave(heads)
        flat = cached.view(-1, width)
        flat.index_copy_(0, self.places[heads], states.reshape(-1, width).to(cached.dtype))
        return cached[:n, :, : self.visible]

    def _room_for(self, states: Tensor) -> Tensor:
        """Zeros, because what is masked is still multiplied by 0."""
        device = states.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else states.dtype
        return states.new_zeros((self.rows, states.shape[1], self.room, states.shape[3]), dtype=dtype)

    def reserve(self, room: int) -> None:
        """Room for at least so many positions."""
        if room <= self.room:
            return
        self.room = max(room, 2 * self.room)
        for tensors in (self.keys, self.values):
            for i, old in enumerate(tensors):
                new = old.new_zeros((*old.shape[:2], self.room, old.shape[3]))
                new[:, :, : old.shape[2]] = old
                tensors[i] = new

    def copy_row(self, source: int, target: int, length: int) -> None:
        """Put the first `length` positions of a row into another row."""
        for tensor in (*self.keys, *self.values):
            tensor[target, :, :length] = tensor[source, :, :length]

    def take(self, row: int, length: int) -> list[tuple[Tensor, Tensor]]:
        """A copy of the first `length` positions of a row: [H_kv, length, D] keys and values by layer."""
        layers = zip(self.keys, self.values, strict=True)
        return [(keys[row, :, :length].clone(), values[row, :, :length].clone()) for keys, values in layers]

    def put(self, kept: list[tuple[Tensor, Tensor]], first: int, count: int) -> None:
        """Write what `take` gave to the start of rows first to first + count."""
        rows = slice(first, first + count)
        for layer, (keys, values) in enumerate(kept):
            self.keys[layer][rows, :, : keys.shape[1]] = keys
            self.values[layer][rows, :, : values.shape[1]] = values
