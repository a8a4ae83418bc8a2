"""The objective: named per-token terms, their weights, and the numbers to divide by.

    loss = sum over terms of weight * (sum over counted tokens of w_t * value_t) / denominator

The denominator is global: all counted tokens of the optimiser step, over all
micro-batches and processes, known before the first backward. Nothing below the
training loop divides, so how a batch is cut cannot change the gradient.

A divergence at temperature T is multiplied by T squared: softening divides its
gradient by about T squared, and the factor keeps a term's weight meaning the same
at every T (Hinton, Vinyals and Dean 2015, section 2). The gradient of a softened
forward KL with respect to the student's logits is then T (q_T - p_T).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from potstill.batch import TeacherTargets, TokenBatch
from potstill.config.objective import CrossEntropy, ForwardKL, ObjectiveConfig
from potstill.losses.divergences import cross_entropy, forward_kl

TermConfig = CrossEntropy | ForwardKL


@dataclass(frozen=True)
class Objective:
    """What is minimised; built from its configuration, holds no state."""

    config: ObjectiveConfig

    @property
    def terms(self) -> tuple[TermConfig, ...]:
        return tuple(term for term in self.config.terms if term.weight > 0)

    @property
    def needs_teacher(self) -> bool:
        return self.config.needs_teacher_targets

    @property
    def weights(self) -> dict[str, float]:
        """Term -> weight."""
        return {term.name: term.weight for term in self.terms}

    def weigh(self, batch: TokenBatch) -> TokenBatch:
        """Fill `batch.token_weights`: which tokens each term counts, and how much, [B, T] fp32."""
        counted = batch.counted.float()
        if self.config.normalise == "sequence":
            counted = counted / counted.sum(1, keepdim=True).clamp(min=1)
        for term in self.terms:
            rows = torch.tensor([who in term.on for who in batch.provenance], device=counted.device)
            batch.token_weights[term.name] = counted * rows[:, None]
        return batch

    def denominator(self, batches: Iterable[TokenBatch]) -> int:
        """This process's share of the global denominator: counted tokens, or rows that have any."""
        if self.config.normalise == "sequence":
            return sum(int(batch.counted.any(1).sum()) for batch in batches)
        return sum(batch.num_counted for batch in batches)

    def values(
        self, logits: Tensor, target_ids: Tensor, targets: TeacherTargets | None, start: int, stop: int
    ) -> dict[str, Tensor]:
        """Term -> [n] nats for the counted positions start to stop; logits fp32 [n, V], ids [n]."""
        values: dict[str, Tensor] = {}
        for term in self.terms:
            if isinstance(term, CrossEntropy):
                values[term.name] = cross_entropy(torch.log_softmax(logits, dim=-1), target_ids)
                continue
            if targets is None:
                raise ValueError(f"the term {term.name} needs the teacher's targets and the batch has none")
            temperature = term.divergence_temperature
            student = torch.log_softmax(logits / temperature, dim=-1)
            teacher = targets.log_probs(start, stop, temperature)
            values[term.name] = temperature**2 * forward_kl(teacher, student)
        return values

    def total(self, sums: dict[str, Tensor]) -> Tensor:
        """The weighted sum of the terms' undivided sums."""
        weights = self.weights
        return torch.stack([weights[name] * value for name, value in sums.items()]).sum()
