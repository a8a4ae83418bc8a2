"""Attention for rows of different lengths, over keys that stay where they are.

Several query heads share a key head in most models. Told a mask, Transformers copies the
keys for every query head, the whole cache at every token. Here the query heads of a group
are laid beside each other instead, as if they were several positions that see the same.

A mask says True where a query may look: keys 0 to its own position, or the last few of
them where a layer has a window. What a layer asks for beyond that is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

NAME = "potstill_slots"

#: What layers say besides, without meaning anything else to be computed.
HARMLESS = {
    "cache_position", "cu_seq_lens_k", "cu_seq_lens_q", "is_causal", "layer_idx", "max_length_k", "max_length_q",
    "output_attentions", "output_hidden_states", "position_ids", "use_cache",
}  # fmt: skip


#: Windows that layers told since somebody last cleared this.
told_windows: set[int] = set()


class UnknownAttention(ValueError):
    """A model's attention does what this one does not know."""


def grouped_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """query [B, H, Q, D], key and value [B, H_kv, L, D], mask [B or 1, 1, Q, L] bool -> [B, Q, H, D].

    Without a mask the queries are the last positions of plain causal rows, Q = L.
    Raises UnknownAttention: an argument that asks for something else.
    """
    unknown = sorted(name for name, said in others.items() if said is not None and name not in HARMLESS)
    if unknown or dropout:
        raise UnknownAttention(f"attention with {', '.join(unknown) or 'dropout'}")
    if sliding_window is not None:
        told_windows.add(sliding_window)
    rows, heads, queries, width = query.shape
    groups = heads // key.shape[1]
    if attention_mask is None and (sliding_window is None or key.shape[2] <= sliding_window):
        output = nn.functional.scaled_dot_product_attention(
            query, key, value, is_causal=True, scale=scaling, enable_gqa=groups > 1
        )
        return output.transpose(1, 2).contiguous(), None
    mask = _within(_causal(query, key) if attention_mask is None else attention_mask, sliding_window)
    beside = query.reshape(rows, -1, groups * queries, width)
    mask = mask.expand(rows, 1, queries, -1).repeat(1, 1, groups, 1) if groups > 1 else mask
    output = nn.functional.scaled_dot_product_attention(beside, key, value, attn_mask=mask, scale=scaling)
    return output.reshape(rows, heads, queries, -1).transpose(1, 2).contiguous(), None


def _causal(query: Tensor, key: Tensor) -> Tensor:
    size = (query.shape[2], key.shape[2])
    return torch.ones(size, dtype=torch.bool, device=query.device).tril()[None, None]


def _within(mask: Tensor, window: int | None) -> Tensor:
    """Only the last `window` keys that each query may look at."""
    length = mask.shape[-1]
    if window is None or length <= window:
        return mask
    own = mask.sum(-1, keepdim=True) - 1  # keys start at 0, so their count tells the position
    return mask & (torch.arange(length, device=mask.device) > own - window)


AttentionInterface.register(NAME, grouped_attention)


@contextmanager
def attending(model: nn.Module) -> Iterator[None]:
    """The model with the attention above; its own comes back whatever happens."""
    configs: dict[int, Any] = {}
    for module in model.modules():
        if isinstance(module, PreTrainedModel):
            configs[id(module.config)] = module.config
    own = [(config, config._attn_implementation_internal) for config in configs.values()]
    try:
        for config, _ in own:
            config._attn_implementation_internal = NAME
        yield
    finally:
        for config, name in own:
            config._attn_implementation_internal = name
