"""Rules that weigh tokens against each other within a term.

Each gives a number to every token from something that is known of it: its place in
the answer, whether it belongs to the trace or the answer, or how unsure the teacher
is. The rules use nothing of the other tokens of the batch, so that how a batch is
cut still changes nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor

from potstill.batch import TokenBatch
from potstill.config.terms import EntropyWeighting, PartWeighting, PositionWeighting

Rule = EntropyWeighting | PositionWeighting | PartWeighting


def known_weights(rule: Rule, batch: TokenBatch) -> Tensor:
    """[B, T] fp32 weights from the batch alone; ones where the teacher has to be asked."""
    if isinstance(rule, PositionWeighting):
        place = (batch.counted.cumsum(1) - 1).clamp(min=0).float()
        early = torch.exp2(-place / rule.half_life_tokens)
        return early if rule.favours == "early" else 1 - early
    if isinstance(rule, PartWeighting):
        if batch.in_trace is None:
            raise ValueError("trace and answer are weighed apart, and the rows do not say which is which")
        return torch.where(batch.in_trace, rule.trace, rule.answer)
    return torch.ones_like(batch.counted, dtype=torch.float32)


def entropy_weights(rule: EntropyWeighting, unsure: Tensor) -> Tensor:
    """[n] entropies of the teacher at temperature 1, in nats -> [n] weights between 0 and 1."""
    high = unsure / (unsure + rule.half_at_nats)
    return high if rule.favours == "high" else 1 - high
