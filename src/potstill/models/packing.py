"""Rows laid end to end instead of padded to one length.

A padded batch computes every row at the length of the longest. Here the real
tokens of several rows share a bin, their positions starting at 0 with every row;
told no attention mask, Transformers takes each restart for a new sequence and lets
nobody look across it. Which rows share a bin follows from their lengths alone, and
what comes out is in the order of the padded batch, so that nothing downstream knows.

Letters: B rows, T positions of the padded batch, N counted positions, D hidden width,
K bins, L positions of the fullest bin.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from potstill.batch import TokenBatch
from potstill.models.load import ModelError

#: Rows of the check: two bins of two rows, one of them with a rest to fill.
CHECKED_LENGTHS = (3, 7, 2, 5)
CHECKED_CAPACITY = 9


@dataclass(frozen=True)
class Packed:
    """A batch in bins, and where its counted positions are now."""

    input_ids: Tensor  # [K, L] int64
    position_ids: Tensor  # [K, L] int64, from 0 at the start of every row
    counted: Tensor  # [N] int64, places in the flattened [K * L], row by row as in the padded batch


def fill_bins(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Rows by bin, as few bins as first-fit-decreasing needs, filled as evenly as they go.

    The fullest bin decides how long all are computed, so the longest rows first go to the
    emptiest bin; only if that overfills one does first-fit's own choice stay. A row longer
    than `capacity` is not cut: the longest one raises the capacity for all.
    """
    capacity = max(capacity, *lengths)
    tight = _first_fit(lengths, capacity)
    even: list[list[int]] = [[] for _ in tight]
    fills = [0] * len(tight)
    for row in _longest_first(lengths):
        place = fills.index(min(fills))
        even[place].append(row)
        fills[place] += lengths[row]
    return even if max(fills) <= capacity else tight


def _longest_first(lengths: Sequence[int]) -> list[int]:
    return sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))


def _first_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    bins: list[list[int]] = []
    room: list[int] = []
    for row in _longest_first(lengths):
        place = next((k for k, free in enumerate(room) if lengths[row] <= free), len(bins))
        if place == len(bins):
            bins.append([])
            room.append(capacity)
        bins[place].append(row)
        room[place] -= lengths[row]
    return bins


def pack(batch: TokenBatch, capacity: int) -> Packed:
    """Lay the real tokens of all rows into bins; padding may be on either side."""
    real = batch.attention_mask.bool()  # [B, T]
    device, lengths = real.device, real.sum(1).tolist()
    bins = fill_bins(lengths, capacity)
    fills = [sum(lengths[row] for row in rows) for rows in bins]
    width = max(fills)
    starts = [0] * len(lengths)
    for k, rows in enumerate(bins):
        place = k * width
        for row in rows:
            starts[row] = place
            place += lengths[row]
    # What is left of a bin is a row of its own, of token 0: it looks at itself alone, and nobody at it.
    rest = torch.arange(width, device=device) - torch.tensor(fills, device=device)[:, None]
    positions = rest.clamp(min=0).flatten()
    ids = torch.zeros_like(positions)
    within = batch.attention_mask.cumsum(1) - 1  # [B, T] position in its row
    places = torch.tensor(starts, device=device)[:, None] + within
    ids[places[real]] = batch.input_ids[real]
    positions[places[real]] = within[real]
    return Packed(ids.view(-1, width), positions.view(-1, width), places[batch.counted])


def packed_hidden(decoder: Any, batch: TokenBatch, capacity: int) -> Tensor:
    """Last hidden states of the counted positions, [N, D], row by row, computed in bins."""
    packed = pack(batch, capacity)
    output = decoder(input_ids=packed.input_ids, attention_mask=None, position_ids=packed.position_ids, use_cache=False)
    hidden: Tensor = output.last_hidden_state.flatten(0, 1)[packed.counted]
    return hidden


def refuse_encoder_decoder(model: Any) -> None:
    """Raises ModelError: two stacks, and T5 has no positions that could start again."""
    if model.config.is_encoder_decoder:
        raise ModelError(
            f"{type(model).__name__} is an encoder-decoder, whose rows cannot be packed: cross-attention would need "
            "the same bins on both sides, and T5 counts distances between tokens, which know no new start. "
            "Set training.pack_tokens to null."
        )


@torch.no_grad()
def verify_packing(model: Any) -> None:
    """Compare rows in bins with the same rows alone.

    Raises ModelError for a model that looks across the start of a row: one that carries a
    state along, or whose attention does not read positions. Weights, modes and random
    numbers stay as they are. A fault that shows in long rows only is not seen here.
    """
    refuse_encoder_decoder(model)
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        error, allowed = _difference(model)
    finally:
        for module in training:
            module.training = True
    if not error <= allowed:
        raise ModelError(
            f"{type(model).__name__} with {model.config._attn_implementation!r} attention computes something else "
            f"when rows lie end to end (hidden states differ by {error:.2g} of their size, rounding allows "
            f"{allowed:.2g}): it looks across the start of a row. Set training.pack_tokens to null."
        )


def _difference(model: Any) -> tuple[float, float]:
    """(largest difference of a position's hidden states relative to their size, what rounding may make of it)."""
    decoder, device = model.get_decoder(), next(model.parameters()).device
    longest = max(CHECKED_LENGTHS)
    everything = 1 + torch.arange(len(CHECKED_LENGTHS) * longest, device=device).view(-1, longest)
    ids = everything % model.get_input_embeddings().weight.shape[0]
    mask = (torch.arange(longest, device=device) < torch.tensor(CHECKED_LENGTHS, device=device)[:, None]).long()
    names = ("",) * len(CHECKED_LENGTHS)
    batch = TokenBatch(ids * mask, mask, ids * mask, mask.bool(), ("corpus",) * len(names), names)
    found = packed_hidden(decoder, batch, CHECKED_CAPACITY)
    alone = [
        decoder(input_ids=row[None, :n], position_ids=torch.arange(n, device=device)[None], use_cache=False)
        for row, n in zip(ids, CHECKED_LENGTHS, strict=True)
    ]
    expected = torch.cat([output.last_hidden_state[0] for output in alone])
    error = (found - expected).float().norm(dim=-1) / expected.float().norm(dim=-1)
    # Half of the digits: rounding takes a few of them, and a row that sees another keeps hardly one.
    return float(error.max()), float(torch.finfo(expected.dtype).eps ** 0.5)
