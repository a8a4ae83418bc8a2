"""Completions in batches, through Transformers' own `generate`.

For encoder-decoders, and for decoders whose attention the slots do not know. A batch takes
as long as its longest completion; what is drawn is the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor

from potstill.config.data import Sampling
from potstill.generation.draw import draw
from potstill.generation.slots import Row
from potstill.generation.weights import Weights


class KeyedDraw(LogitsProcessor):  # type: ignore[misc]
    """Leaves one token standing: the one that this position's number draws. Its log-prob is kept."""

    def __init__(self, numbers: Tensor, sampling: Sampling):
        self.numbers = numbers  # [B, positions] float64
        self.sampling = sampling
        self.log_probs: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        number = self.numbers[:, len(self.log_probs)].to(scores.device)
        drawn, log_probs = draw(scores.float().clone(), number, self.sampling)
        self.log_probs.append(log_probs)
        return torch.full_like(scores, -torch.inf).scatter(1, drawn[:, None], 0.0)


def in_batches(
    model: Any, weights: Weights, sampling: Sampling, ends: set[int], pad: int, rows: Sequence[Row], size: int
) -> Iterator[Row]:
    """Each row once its batch is whole."""
    for i in range(0, len(rows), size):
        batch = rows[i : i + size]
        with torch.no_grad(), weights.computing():
            _complete(model, sampling, ends, pad, batch)
        yield from batch


def _complete(model: Any, sampling: Sampling, ends: set[int], pad: int, rows: Sequence[Row]) -> None:
    """Fill the rows' ids and log-probs, end token included where one came."""
    ids, mask = _left_pad([row.request.prompt for row in rows], pad, model.device)
    limit = max(row.limit for row in rows)
    numbers = np.stack([np.pad(row.numbers, (0, limit - row.limit)) for row in rows])
    draws = KeyedDraw(torch.from_numpy(numbers), sampling)
    settings = GenerationConfig(
        max_new_tokens=limit,
        do_sample=False,
        eos_token_id=sorted(ends),
        pad_token_id=pad,
        bos_token_id=getattr(model.config, "bos_token_id", None),
        decoder_start_token_id=getattr(model.config, "decoder_start_token_id", None),
    )
    output = model.generate(inputs=ids, attention_mask=mask, generation_config=settings, logits_processor=[draws])
    start = 1 if model.config.is_encoder_decoder else ids.shape[1]
    log_probs = torch.stack(draws.log_probs, 1).tolist()
    for row, drawn, likely in zip(rows, output[:, start:].tolist(), log_probs, strict=True):
        length = next((i + 1 for i, token in enumerate(drawn) if token in ends), len(drawn))
        length = min(length, row.limit)
        row.ids, row.log_probs = drawn[:length], likely[:length]


def _left_pad(prompts: list[tuple[int, ...]], pad: int, device: torch.device) -> tuple[Tensor, Tensor]:
    longest = max(len(prompt) for prompt in prompts)
    ids = [[pad] * (longest - len(p)) + list(p) for p in prompts]
    mask = [[0] * (longest - len(p)) + [1] * len(p) for p in prompts]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)
