"""The objective: named per-token terms, their weights, and the numbers to divide by.

    loss = sum over terms of weight * (sum over counted tokens of w_t * value_t) / denominator

The denominator is global: all counted tokens of the optimiser step, over all
micro-batches and processes, known before the first backward. Nothing below the
training loop divides, so how a batch is cut cannot change the gradient. A rule that
weighs tokens changes w_t and never the denominator.

A divergence at temperature T is multiplied by T squared: softening divides its
gradient by about T squared, and the factor keeps a term's weight meaning the same
at every T (Hinton, Vinyals and Dean 2015, section 2). The gradient of a softened
forward KL with respect to the student's logits is then T (q_T - p_T).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from potstill.batch import TokenBatch
from potstill.config.objective import ObjectiveConfig
from potstill.config.terms import AnyTerm
from potstill.losses.weighting import known_weights


@dataclass(frozen=True)
class Objective:
    """What is minimised; built from its configuration, holds no state."""

    config: ObjectiveConfig

    @property
    def terms(self) -> tuple[AnyTerm, ...]:
        return self.config.active

    @property
    def names(self) -> list[str]:
        return [term.name for term in self.terms]

    @property
    def needs_teacher(self) -> bool:
        return self.config.needs_teacher_targets

    def weights(self, step: int = 0, steps: int = 1) -> dict[str, float]:
        """Term -> its weight at `step` of `steps`, counted from 0."""
        progress = step / max(1, steps - 1)
        return {term.name: term.weight_at(progress) for term in self.terms}

    def weigh(self, batch: TokenBatch) -> TokenBatch:
        """Fill `batch.token_weights`: which tokens each term counts, and how much, [B, T] fp32.

        Weights that depend on what the teacher says are not known yet; the head finds them.
        """
        counted = batch.counted.float()
        if self.config.normalise == "sequence":
            counted = counted / counted.sum(1, keepdim=True).clamp(min=1)
        for term in self.terms:
            rows = torch.tensor([term.applies_to(who) for who in batch.provenance], device=counted.device)
            weights = counted * rows[:, None]
            if term.token_weighting is not None:
                weights = weights * known_weights(term.token_weighting, batch)
            batch.token_weights[term.name] = weights
        return batch

    def denominator(self, batches: Iterable[TokenBatch]) -> int:
        """This process's share of the global denominator: counted tokens, or rows that have any."""
        if self.config.normalise == "sequence":
            return sum(int(batch.counted.any(1).sum()) for batch in batches)
        return sum(batch.num_counted for batch in batches)
