"""Potstill: the objective over tiny tables of logits, and over hidden states and a head, as its trainer divides.

`sums_of` is the one call into the loss; everything else is the trainer's: weights from
`Objective.weigh`, the count from `Objective.denominator` over all ranks, one division.
Gradients are summed over the processes, as the hook of `potstill.training.parallel` does.
"""

from __future__ import annotations

from importlib.metadata import version
from types import SimpleNamespace
from typing import Any, cast

import torch
from protocol import Batch, Entry, World, backward, main
from torch import Tensor

from potstill.batch import TokenBatch
from potstill.config.objective import ObjectiveConfig
from potstill.config.terms import ForwardKL, JensenShannon, ReverseKL
from potstill.head import Head
from potstill.losses.fused import weighted_sums
from potstill.losses.objective import Objective
from potstill.models.vocabulary import Alignment
from potstill.targets import Dense, FinalHidden, TeacherTargets
from potstill.training.stages import _refuse_narrow_teacher

EVERYONE = ("teacher",)
TERMS: dict[str, Any] = {
    "forward_kl": lambda t: ForwardKL(kind="forward_kl", weight=1.0, on=EVERYONE, divergence_temperature=t),
    "reverse_kl": lambda t: ReverseKL(kind="reverse_kl", weight=1.0, on=EVERYONE, divergence_temperature=t),
    "jsd": lambda t: JensenShannon(
        kind="jensen_shannon", weight=1.0, on=EVERYONE, teacher_weight=0.5, divergence_temperature=t
    ),
}


def sums_of(
    hidden: Tensor, head: Head, ids: Tensor, token_weights: dict[str, Tensor], targets: TeacherTargets,
    objective: Objective,
) -> Tensor:  # fmt: skip
    """The weighted, undivided sum over all terms of one micro-batch."""
    return weighted_sums(hidden, head, ids, token_weights, targets, objective, objective.weights()).total


def token_batch(batch: Batch) -> TokenBatch:
    """What `collate` makes: everything stands where the output stands that it is for."""
    counted = batch.counted
    labels = torch.where(counted, batch.labels[:, 1:], 0)
    names = tuple(str(row) for row in batch.rows)
    return TokenBatch(batch.ids[:, :-1], batch.mask[:, :-1], labels, counted, EVERYONE * len(names), names)


def align(batch: Batch, objective: Objective) -> Alignment:
    """As `potstill.models.vocabulary.align` answers for one vocabulary in heads of these widths.

    What training refuses before its first step is refused here by the same function.
    """
    theirs, ours = len(batch.teacher_head), len(batch.head)
    found = Alignment(None if theirs == ours else min(theirs, ours), ours)
    _refuse_narrow_teacher(cast(Any, SimpleNamespace(objective=objective.config)), found)
    return found


def step(world: World, kind: str, temperature: float, fused: bool) -> list[list[float]]:
    """One optimiser step: count everything first, then a backward pass for each micro-batch."""
    objective = Objective(ObjectiveConfig(terms=(TERMS[kind](temperature),)))
    prepared = [[objective.weigh(token_batch(batch)) for batch in rank] for rank in world]
    denominator = sum(objective.denominator(rank) for rank in prepared)
    losses = []
    for rank, ready in zip(world, prepared, strict=True):
        losses.append([])
        for batch, tokens in zip(rank, ready, strict=True):
            weights = {name: value[tokens.counted] for name, value in tokens.token_weights.items()}
            ids = tokens.target_ids[tokens.counted]
            given = from_hidden if fused else from_logits
            hidden, head, targets = given(batch, tokens.counted, align(batch, objective))
            total = sums_of(hidden, head, ids, weights, targets, objective)
            losses[-1].append(backward(total / denominator))
    return losses


def from_hidden(batch: Batch, counted: Tensor, found: Alignment) -> tuple[Tensor, Head, TeacherTargets]:
    """Hidden states and heads of both models, as ScoredModel and LocalTeacher give them."""
    teacher = batch.teacher_hidden[:, :-1][counted]
    said = FinalHidden(teacher, Head(batch.teacher_head), "cases", found.student_width, found.shared)
    return batch.hidden[:, :-1][counted], Head(batch.head), said


def from_logits(batch: Batch, counted: Tensor, found: Alignment) -> tuple[Tensor, Head, TeacherTargets]:
    """Logits, through a head that is the identity, so that the gradient is that of the logits."""
    student = batch.student[:, :-1][counted]
    width, shared = found.student_width, found.shared
    teacher = batch.teacher[:, :-1][counted].float()[:, :shared]
    missing = teacher.new_full((len(teacher), width - teacher.shape[-1]), -torch.inf)
    identity = torch.eye(width, dtype=student.dtype)
    return student, Head(identity), Dense(torch.cat([teacher, missing], -1), "cases")


def on_logits(world: World, kind: str, temperature: float) -> list[list[float]]:
    """Differentiated by logits."""
    return step(world, kind, temperature, False)


def on_hidden(world: World, kind: str, temperature: float) -> list[list[float]]:
    """Differentiated by hidden states and head."""
    return step(world, kind, temperature, True)


KINDS = {kind: kind for kind in TERMS}
CALLED = "Objective.weigh and .denominator over all ranks, weighted sums of each micro-batch / that count"
ENTRIES = [
    Entry("Objective on logits", "potstill.losses.Objective", KINDS, on_logits, called_as=CALLED, sums_over_ranks=True),
    Entry(
        "Objective on hidden states", "potstill.losses.Objective", KINDS, on_hidden, differentiates="hidden",
        called_as=CALLED, sums_over_ranks=True,
    ),
]  # fmt: skip

if __name__ == "__main__":
    main("Potstill", {"potstill": version("potstill")}, ENTRIES)
