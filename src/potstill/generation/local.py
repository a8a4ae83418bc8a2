"""Sampling from a model in this process.

Transformers' `generate` does the batching and the key-value cache; we only decide
which token comes next, by inverse CDF from the keyed uniform of that position.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import GenerationConfig, LogitsProcessor

from potstill.config.data import Sampling
from potstill.generation.base import Request, plan_batches, uniforms
from potstill.records import Completion, History, Provenance


class KeyedDraw(LogitsProcessor):  # type: ignore[misc]
    """Leaves one token standing: the one that this position's uniform number draws.

    Its probabilities are softmax(logits / temperature) over the top-p set. The
    log-prob of each draw is kept, since it is the sampler's own law.
    """

    def __init__(self, numbers: Tensor, sampling: Sampling):
        self.numbers = numbers  # [B, positions] float64
        self.sampling = sampling
        self.log_probs: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        probabilities = tempered(scores, self.sampling)
        cumulative = probabilities.cumsum(-1)
        # Scaled by the last value, so that rounding never leaves a number beyond the end.
        number = self.numbers[:, len(self.log_probs)].to(scores.device) * cumulative[:, -1]
        drawn = torch.searchsorted(cumulative, number[:, None], right=True)
        drawn = drawn.clamp(max=scores.shape[1] - 1)
        self.log_probs.append(probabilities.gather(1, drawn).log().squeeze(1))
        return torch.full_like(scores, -torch.inf).scatter(1, drawn, 0.0)


def tempered(scores: Tensor, sampling: Sampling) -> Tensor:
    """[B, V] logits -> [B, V] float64 probabilities, not renormalised after top-p."""
    if sampling.sampling_temperature == 0:
        return nn.functional.one_hot(scores.argmax(-1), scores.shape[1]).double()
    probabilities = torch.softmax(scores.double() / sampling.sampling_temperature, dim=-1)
    if sampling.top_p < 1:
        ordered, where = probabilities.sort(dim=-1, descending=True)
        beyond = ordered.cumsum(-1) - ordered >= sampling.top_p
        probabilities = probabilities.masked_fill(torch.zeros_like(beyond).scatter(1, where, beyond), 0)
        probabilities = probabilities / probabilities.sum(-1, keepdim=True)
    return probabilities


def end_ids(model: Any, tokenizer: Any) -> set[int]:
    """All tokens that end a completion of this model."""
    listed = model.generation_config.eos_token_id
    several = listed if isinstance(listed, list) else [listed]
    return {int(i) for i in [*several, tokenizer.eos_token_id] if i is not None}


@dataclass(frozen=True)
class LocalSampler:
    """Samples from a Transformers model in this process."""

    model: Any  # a Transformers model
    tokenizer: Any
    fingerprint: str
    revision: str | None
    provenance: Provenance
    sampling: Sampling
    seed: int
    stream: str  # names the purpose, so that training and held-out draws never coincide
    bf16: bool = False  # compute under autocast (a student with fp32 weights)
    slots: int = 32  # completions at work at once

    def generate(self, requests: Sequence[Request]) -> Iterator[Completion]:
        """Each completion as soon as it is whole."""
        for batch in plan_batches(requests, self.slots):
            yield from self.sample(batch)

    @torch.no_grad()
    def sample(self, requests: Sequence[Request]) -> list[Completion]:
        """One completion for each request, ids as sampled, end token included where one came."""
        device = next(self.model.parameters()).device
        ids, mask = _left_pad([r.prompt for r in requests], _pad_id(self.tokenizer), device)
        limit = self.sampling.max_new_tokens
        numbers = np.stack([uniforms(self.seed, self.stream, r.prompt_id, r.index, limit) for r in requests])
        draw = KeyedDraw(torch.from_numpy(numbers), self.sampling)
        ends = end_ids(self.model, self.tokenizer)
        settings = GenerationConfig(
            max_new_tokens=limit,
            do_sample=False,
            eos_token_id=sorted(ends),
            pad_token_id=_pad_id(self.tokenizer),
            bos_token_id=getattr(self.model.config, "bos_token_id", None),
            decoder_start_token_id=getattr(self.model.config, "decoder_start_token_id", None),
        )
        with self._precision(device):
            output = self.model.generate(
                inputs=ids, attention_mask=mask, generation_config=settings, logits_processor=[draw]
            )
        start = 1 if self.model.config.is_encoder_decoder else ids.shape[1]
        log_probs = torch.stack(draw.log_probs, 1).tolist()
        rows = output[:, start:].tolist()
        return [self._finish(*each, ends) for each in zip(requests, rows, log_probs, strict=True)]

    def _precision(self, device: torch.device) -> AbstractContextManager[Any]:
        return torch.autocast(device.type, dtype=torch.bfloat16) if self.bf16 else nullcontext()

    def _finish(self, request: Request, ids: list[int], log_probs: list[float], ends: set[int]) -> Completion:
        length = next((i + 1 for i, token in enumerate(ids) if token in ends), len(ids))
        ended = ids[length - 1] in ends
        sampling = self.sampling.model_dump() | {"seed": self.seed, "stream": self.stream}
        return Completion(
            request.prompt_id,
            request.index,
            tuple(ids[:length]),
            self.tokenizer.decode(ids[:length], skip_special_tokens=True),
            "stop" if ended else "length",
            History(self.provenance, self.fingerprint, self.revision, sampling, depth=1),
            tuple(round(value, 6) for value in log_probs[:length]),
        )


def _pad_id(tokenizer: Any) -> int:
    pad = tokenizer.pad_token_id
    return int(tokenizer.eos_token_id if pad is None else pad)


def _left_pad(prompts: list[tuple[int, ...]], pad: int, device: torch.device) -> tuple[Tensor, Tensor]:
    longest = max(len(prompt) for prompt in prompts)
    ids = [[pad] * (longest - len(p)) + list(p) for p in prompts]
    mask = [[0] * (longest - len(p)) + [1] * len(p) for p in prompts]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)
