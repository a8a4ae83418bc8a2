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

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from potstill.batch import TeacherTargets, TokenBatch
from potstill.config.objective import ObjectiveConfig
from potstill.config.terms import (
    AnyTerm,
    CrossEntropy,
    ForwardKL,
    JensenShannon,
    LogitMSE,
    ReverseKL,
    SkewForwardKL,
    SkewReverseKL,
    TotalVariation,
)
from potstill.losses import divergences
from potstill.losses.weighting import entropy_weights, known_weights


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

        Weights that depend on what the teacher says are not known yet; `values` gives them.
        """
        counted = batch.counted.float()
        if self.config.normalise == "sequence":
            counted = counted / counted.sum(1, keepdim=True).clamp(min=1)
        for term in self.terms:
            rows = torch.tensor([who in term.on for who in batch.provenance], device=counted.device)
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

    def values(
        self, logits: Tensor, target_ids: Tensor, targets: TeacherTargets | None, start: int, stop: int
    ) -> dict[str, Tensor]:
        """Term -> [n] values for the counted positions start to stop; logits fp32 [n, V], ids [n].

        In nats, but for total variation (a probability) and logit MSE (squared logits).
        Raises ValueError where a term needs the teacher and the batch has no targets.
        """
        both = _Distributions(logits, targets, start, stop)
        return {term.name: _value(term, both, target_ids) for term in self.terms}

    def teacher_weights(self, targets: TeacherTargets | None, start: int, stop: int) -> dict[str, Tensor]:
        """Term -> [n] further token weights that the teacher's distributions decide; few terms have any."""
        found = {}
        for term in self.terms:
            rule = term.token_weighting
            if rule is not None and rule.kind == "teacher_entropy":
                if targets is None:
                    raise _no_targets(term)
                found[term.name] = entropy_weights(rule, targets.log_probs(start, stop, 1.0))
        return found

    def total(self, sums: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
        """The weighted sum of the terms' undivided sums."""
        return torch.stack([weights[name] * value for name, value in sums.items()]).sum()


class _Distributions:
    """Log-probs of both models at every temperature that some term asks for, each computed once."""

    def __init__(self, logits: Tensor, targets: TeacherTargets | None, start: int, stop: int):
        self.logits, self.targets, self.start, self.stop = logits, targets, start, stop
        self._student: dict[float, Tensor] = {}
        self._teacher: dict[float, Tensor] = {}

    def student(self, temperature: float) -> Tensor:
        if temperature not in self._student:
            logits = self.logits if temperature == 1 else self.logits / temperature
            self._student[temperature] = torch.log_softmax(logits, dim=-1)
        return self._student[temperature]

    def teacher(self, temperature: float, term: AnyTerm) -> Tensor:
        if self.targets is None:
            raise _no_targets(term)
        if temperature not in self._teacher:
            self._teacher[temperature] = self.targets.log_probs(self.start, self.stop, temperature)
        return self._teacher[temperature]


def _value(term: AnyTerm, both: _Distributions, target_ids: Tensor) -> Tensor:
    if isinstance(term, CrossEntropy):
        return divergences.cross_entropy(both.student(1.0), target_ids)
    if isinstance(term, LogitMSE):
        return divergences.logit_mse(both.teacher(1.0, term), both.student(1.0))
    temperature = term.divergence_temperature
    p, q = both.teacher(temperature, term), both.student(temperature)
    match term:
        case ForwardKL():
            value = divergences.forward_kl(p, q)
        case ReverseKL():
            value = divergences.reverse_kl(p, q)
        case JensenShannon():
            value = divergences.jensen_shannon(p, q, term.teacher_weight, term.normalised)
        case SkewForwardKL():
            value = divergences.skew_forward_kl(p, q, term.teacher_share)
        case SkewReverseKL():
            value = divergences.skew_reverse_kl(p, q, term.student_share)
        case TotalVariation():
            value = divergences.total_variation(p, q)
    return value if term.scale == 1 else term.scale * value


def _no_targets(term: AnyTerm) -> ValueError:
    return ValueError(f"the term {term.name} needs the teacher's targets and the batch has none")
