"""Sampling from a model in this process.

Decoder-only models are sampled in slots (see `slots.py`). Encoder-decoders, and decoders
that compute something else there than in their plain forward pass, go in batches. Which
token comes next is decided by the keyed number of its position either way.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from potstill.config.data import Sampling
from potstill.generation.base import Request, plan_batches, uniforms
from potstill.generation.batches import in_batches
from potstill.generation.forward import Trial, trial
from potstill.generation.slots import Row, Slots
from potstill.generation.weights import Weights, working_weights
from potstill.records import Completion, History, Provenance

#: What was found about a model (with autocast, or without), and what was said about it; once is enough.
_FOUND: WeakKeyDictionary[Any, dict[bool, Trial]] = WeakKeyDictionary()
_SAID: WeakKeyDictionary[Any, set[str]] = WeakKeyDictionary()


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
    depth: int = 1  # generations of models between people's text and these completions
    terms: str | None = None  # under which what the model says may be used, for the completions' history
    note: Callable[[str], None] = logging.getLogger(__name__).info  # told what concerns speed and memory, once a model

    def generate(self, requests: Sequence[Request]) -> Iterator[Completion]:
        """Each completion as soon as it is whole, ids as sampled, end token included where one came.

        Between two completions the model is as the caller left it; only what is in flight is lost when
        the caller stops.
        """
        if not requests:
            return
        ends, pad = end_ids(self.model, self.tokenizer), _pad_id(self.tokenizer)
        rows = self._rows(requests)
        weights = working_weights(self.model, self.bf16, self._say)
        if self._in_slots(weights, max(len(row.request.prompt) + row.limit for row in rows)):
            whole = Slots(self.model, weights, self.sampling, ends, rows, self.slots).run()
        else:
            whole = in_batches(self.model, weights, self.sampling, ends, pad, rows, self.slots)
        for row in whole:
            yield self._finish(row, ends)

    def _rows(self, requests: Sequence[Request]) -> list[Row]:
        """In an order that the requests alone decide: prompts of like length beside each other."""
        rows = []
        for request in (request for batch in plan_batches(requests, self.slots) for request in batch):
            limit = min(self.sampling.max_new_tokens, request.max_new_tokens or self.sampling.max_new_tokens)
            rows.append(Row(request, limit, uniforms(self.seed, self.stream, request.prompt_id, request.index, limit)))
        return rows

    def _in_slots(self, weights: Weights, longest: int) -> bool:
        if self.model.config.is_encoder_decoder:
            return False
        found = _FOUND.setdefault(self.model, {})
        if weights.autocast not in found:
            found[weights.autocast] = trial(self.model, weights)
        reason = found[weights.autocast].against(self.model, longest)
        if reason is not None:
            self._say(f"{type(self.model).__name__} is sampled in batches, not in slots, which is slower: {reason}")
        return reason is None

    def _say(self, text: str) -> None:
        said = _SAID.setdefault(self.model, set())
        if text not in said:
            said.add(text)
            self.note(text)

    def _finish(self, row: Row, ends: set[int]) -> Completion:
        request = row.request
        sampling = self.sampling.model_dump() | {"seed": self.seed, "stream": self.stream}
        if request.max_new_tokens is not None:
            sampling["max_new_tokens"] = row.limit
        history = History(
            self.provenance, self.fingerprint, self.revision, sampling, depth=self.depth,
            terms=self.terms, strategy=request.strategy, asked=request.asked,
        )  # fmt: skip
        return Completion(
            request.prompt_id,
            request.index,
            tuple(row.ids),
            self.tokenizer.decode(row.ids, skip_special_tokens=True),
            "stop" if row.ids[-1] in ends else "length",
            history,
            tuple(round(value, 6) for value in row.log_probs),
        )


def _pad_id(tokenizer: Any) -> int:
    pad = tokenizer.pad_token_id
    return int(tokenizer.eos_token_id if pad is None else pad)
