"""One pass of a model over the rows at work: new prompts, or one more token of each row.

The head is applied to the last position alone. Prompts that begin alike (the same system
message, or several completions of one prompt) share what is computed for their beginning.

Before a model is trusted to this, a few tokens are compared with its plain forward pass.

Letters: n rows, T positions, D hidden width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from potstill.generation.attention import attending, told_windows
from potstill.generation.rows import RowCache
from potstill.generation.weights import Weights
from potstill.head import Head, arithmetic
from potstill.models.scored import ScoredModel

#: The keys that may be looked at are counted in steps of this many: kernels like even lengths.
EVEN = 16
#: Prompts of the check, of tokens 1, 2, 3 ..., and how many tokens follow.
CHECKED_LENGTHS = (3, 7, 5)
CHECKED_STEPS = 2
#: Kinds of layers whose keys may be kept row by row.
KNOWN_LAYERS = {"full_attention", "sliding_attention"}
#: Scalings of positions that depend on the longest row of the batch, not on a row's own length.
SHARED_SCALINGS = {"dynamic", "longrope"}


class Forward:
    """A decoder-only model with its cache; use it only inside `Weights.computing` and `attending`."""

    def __init__(self, model: Any, weights: Weights, rows: int, room: int):
        self.decoder, self.device = model.get_decoder(), next(model.parameters()).device
        self.cache = RowCache(rows, room)
        self.rows = rows
        self.head = _head(model, weights)
        self.logits: Tensor | None = None

    def prompts(self, first: int, rest: Sequence[Sequence[int]], start: int) -> Tensor:
        """Last hidden states [n, D] of new rows, from row `first` on; their `start` tokens before are cached."""
        count, longest = len(rest), max(len(ids) for ids in rest)
        ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rest], device=self.device)
        position = torch.arange(start, start + longest, device=self.device)
        mask = None
        if start:
            mask = (torch.arange(start + longest, device=self.device) <= position[:, None])[None, None]
        self.cache.reserve(start + longest)
        self.cache.fill(first, count, start)
        hidden = self._pass(ids, position[None].expand(count, -1), mask)
        last = torch.tensor([len(row) - 1 for row in rest], device=self.device)
        return hidden[torch.arange(count, device=self.device), last]

    def tokens(self, ids: Sequence[int], lengths: Sequence[int]) -> Tensor:
        """Hidden states [n, D] of one more token for each row at work; row i had lengths[i] positions."""
        longest = max(lengths) + 1
        self.cache.reserve(longest)
        visible = min(-(-longest // EVEN) * EVEN, self.cache.room)
        position = torch.tensor(lengths, device=self.device)
        mask = torch.arange(visible, device=self.device) <= position[:, None]
        self.cache.extend(position, visible)
        return self._pass(torch.tensor(ids, device=self.device)[:, None], position[:, None], mask[:, None, None])[:, 0]

    def scores(self, hidden: Tensor) -> Tensor:
        """[n, D] -> the model's logits [n, V] in fp32 or wider, in a buffer that the next call uses again."""
        how = arithmetic(self.head.weight, logits_fp32=hidden.is_cuda)
        if self.logits is None or self.logits.dtype != how.logits:
            self.logits = hidden.new_empty((self.rows, self.head.width), dtype=how.logits)
        return self.head.finish(self.head.raw(hidden, self.logits[: len(hidden)], how.products))

    def _pass(self, ids: Tensor, position_ids: Tensor, mask: Tensor | None) -> Tensor:
        output = self.decoder(
            input_ids=ids, attention_mask=mask, position_ids=position_ids, past_key_values=self.cache, use_cache=True
        )
        hidden: Tensor = output.last_hidden_state
        return hidden


def _head(model: Any, weights: Weights) -> Head:
    head = ScoredModel(model).head()
    return head if weights.head is None else replace(head, weight=weights.head)


@dataclass(frozen=True)
class Trial:
    """What came out when a model was tried: why its rows cannot be computed in slots, and its windows."""

    reason: str | None
    windows: frozenset[int] = frozenset()  # that its layers tell the attention

    def against(self, model: Any, longest: int) -> str | None:
        """Why not, for rows of up to `longest` tokens; the trial itself is too short for windows."""
        window = getattr(model.config, "sliding_window", None)
        if self.reason is None and window is not None and longest > window and window not in self.windows:
            return f"its window of {window} tokens is not told to the attention"
        return self.reason


@torch.no_grad()
def trial(model: Any, weights: Weights) -> Trial:
    """Whether a model computes in slots what it computes otherwise.

    Compares logits of three rows of different lengths, from their prompt and for two tokens
    on, with the model's plain forward pass over each of them.
    """
    config = model.config
    kinds = set(getattr(config, "layer_types", None) or ()) - KNOWN_LAYERS
    if kinds:
        return Trial(f"it has layers of kind {', '.join(sorted(kinds))}")
    scaled = _scalings(getattr(config, "rope_parameters", None) or {}) & SHARED_SCALINGS
    if scaled:
        return Trial(f"its positions are scaled by {scaled.pop()}, which looks at the longest row of a batch")
    told_windows.clear()
    try:
        error, allowed = _difference(model, weights)
    except (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as fault:
        return Trial(f"{type(fault).__name__}: {fault}")
    if not error <= allowed:
        return Trial(f"its logits differ by {error:.2g} of their size there, and rounding allows {allowed:.2g}")
    return Trial(None, frozenset(told_windows))


def _scalings(rotary: dict[str, Any]) -> set[str]:
    """Kinds of scaling in a model's rotary settings, which may be given by kind of layer."""
    nested = [value for value in rotary.values() if isinstance(value, dict)]
    return {str(settings.get("rope_type")) for settings in [rotary, *nested]}


def _difference(model: Any, weights: Weights) -> tuple[float, float]:
    """(largest difference of a row's logits relative to their size, what rounding may make of it)."""
    width = model.get_input_embeddings().weight.shape[0]
    rows = [[1 + (7 * i + j) % (width - 1) for j in range(n + CHECKED_STEPS)] for i, n in enumerate(CHECKED_LENGTHS)]
    shared = 2  # the same beginning for all, as prompts have it
    rows = [rows[0][:shared] + row[shared:] for row in rows]
    found: list[list[Tensor]] = [[] for _ in rows]
    with weights.computing():
        plain = [model(input_ids=torch.tensor([row], device=model.device), use_cache=False).logits[0] for row in rows]
        with attending(model):
            forward = Forward(model, weights, len(rows), max(CHECKED_LENGTHS))
            forward.prompts(0, [rows[0][:shared]], 0)
            forward.cache.put(forward.cache.take(0, shared), 0, len(rows))
            forward_rows = [row[shared:n] for row, n in zip(rows, CHECKED_LENGTHS, strict=True)]
            _collect(found, forward.scores(forward.prompts(0, forward_rows, shared)))
            for step in range(CHECKED_STEPS):
                lengths = [n + step for n in CHECKED_LENGTHS]
                ids = [row[n] for row, n in zip(rows, lengths, strict=True)]
                _collect(found, forward.scores(forward.tokens(ids, lengths)))
    expected = torch.stack([p[n - 1 : n + CHECKED_STEPS] for p, n in zip(plain, CHECKED_LENGTHS, strict=True)])
    difference = torch.stack([torch.stack(row) for row in found]) - expected.float()
    error = difference.norm(dim=-1) / expected.float().norm(dim=-1)
    narrow = torch.bfloat16 if weights.autocast else expected.dtype
    return float(error.max()), float(torch.finfo(narrow).eps ** 0.5)


def _collect(found: list[list[Tensor]], scores: Tensor) -> None:
    for row, each in zip(found, scores.float().clone(), strict=True):
        row.append(each)
