"""The slow, obvious twin of sampling: one request at a time, Transformers' `generate`, a whole CDF in float64."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, LogitsProcessor

from potstill.config.data import Sampling
from potstill.generation.base import Request, uniforms


def tempered(scores: Tensor, sampling: Sampling) -> Tensor:
    """[B, V] logits -> [B, V] float64 probabilities of the sampler's law."""
    if sampling.sampling_temperature == 0:
        return nn.functional.one_hot(scores.argmax(-1), scores.shape[1]).double()
    probabilities = torch.softmax(scores.double() / sampling.sampling_temperature, dim=-1)
    if sampling.top_p < 1:
        ordered, where = probabilities.sort(dim=-1, descending=True)
        beyond = ordered.cumsum(-1) - ordered >= sampling.top_p
        probabilities = probabilities.masked_fill(torch.zeros_like(beyond).scatter(1, where, beyond), 0)
        probabilities = probabilities / probabilities.sum(-1, keepdim=True)
    return probabilities


def plain_draw(scores: Tensor, numbers: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """Inverse CDF over the whole vocabulary: ids [B] and log-probs [B]."""
    law = tempered(scores, sampling)
    drawn = (law.cumsum(-1) <= numbers[:, None]).sum(-1).clamp(max=scores.shape[1] - 1)
    return drawn, law.gather(1, drawn[:, None]).squeeze(1).log()


class PlainDraw(LogitsProcessor):
    """Leaves the drawn token standing."""

    def __init__(self, numbers: Tensor, sampling: Sampling):
        self.numbers, self.sampling = numbers, sampling
        self.log_probs: list[float] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        drawn, log_probs = plain_draw(scores, self.numbers[len(self.log_probs)][None], self.sampling)
        self.log_probs.append(log_probs.item())
        return torch.full_like(scores, -torch.inf).scatter(1, drawn[:, None], 0.0)


@torch.no_grad()
def slow_generate(
    model: Any, requests: Sequence[Request], sampling: Sampling, ends: set[int], seed: int, stream: str
) -> dict[tuple[str, int], tuple[tuple[int, ...], list[float]]]:
    """Token ids and log-probs by (prompt id, index)."""
    answers = {}
    for request in requests:
        limit = min(sampling.max_new_tokens, request.max_new_tokens or sampling.max_new_tokens)
        numbers = torch.from_numpy(uniforms(seed, stream, request.prompt_id, request.index, limit))
        draw = PlainDraw(numbers, sampling)
        settings = GenerationConfig(
            max_new_tokens=limit, do_sample=False, eos_token_id=sorted(ends), pad_token_id=0, bos_token_id=1
        )
        ids = torch.tensor([request.prompt])
        output = model.generate(
            inputs=ids, attention_mask=torch.ones_like(ids), generation_config=settings, logits_processor=[draw]
        )
        key = (request.prompt_id, request.index)
        answers[key] = (tuple(output[0, ids.shape[1] :].tolist()), draw.log_probs)
    return answers
