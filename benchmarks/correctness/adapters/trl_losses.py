"""TRL: the losses of GKDTrainer and of DistillationTrainer, through their own training steps."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import hf
import torch
import transformers
from protocol import Entry, World, backward, main
from trl.experimental.gkd import GKDTrainer
from trl.trainer.distillation_trainer import DistillationTrainer, _chunked_divergence_loss


def gkd(world: World, beta: float, temperature: float) -> list[list[float]]:
    """`transformers.Trainer.training_step` around GKDTrainer.compute_loss, on every micro-batch."""
    counts, losses = hf.counts(world), []
    for rank in world:
        made = hf.trainer(GKDTrainer, counts, len(rank), beta=beta, temperature=temperature)
        items = made._get_num_items_in_batch([hf.inputs(batch) for batch in rank], torch.device("cpu"))
        losses.append([])
        for batch in rank:
            made.teacher_model = hf.Table(batch.teacher)
            # GKDTrainer.training_step first draws whether to sample; the step itself is its parent's.
            step = transformers.Trainer.training_step
            losses[-1].append(float(step(made, hf.Table(batch.student), hf.inputs(batch), items)))
    return losses


def gkd_alone(world: World, beta: float, temperature: float) -> list[list[float]]:
    """The static method with its temperature argument, divided by the labels of its own batch."""
    return [
        [
            backward(
                GKDTrainer.generalized_jsd_loss(
                    batch.student[:, :-1], batch.teacher[:, :-1], batch.labels[:, 1:], beta, temperature
                )
            )
            for batch in rank
        ]
        for rank in world
    ]


def distillation(world: World, beta: float, temperature: float) -> list[list[float]]:
    """DistillationTrainer: num_items over the whole step of all ranks, divided by the number of ranks."""
    items = torch.tensor(sum(hf.counts(world))).clamp(min=1.0) / len(world)
    return [
        [
            backward(
                _chunked_divergence_loss(
                    batch.hidden[:, :-1], batch.teacher_hidden[:, :-1], batch.head, batch.teacher_head,
                    batch.counted.long(), beta, num_items_in_batch=items, temperature=temperature,
                )[0]
            )
            for batch in rank
        ]
        for rank in world
    ]  # fmt: skip


BETAS: dict[str, Any] = {"forward_kl": 0, "reverse_kl": 1, "jsd": 0.5}
REFUSES = "the trainer refuses: its constructor raises ValueError where the two vocab_size differ"
NOT_ALONE = "the function alone divides by its own batch unless the caller passes num_items_in_batch; see the row above"
ENTRIES = [
    Entry(
        "GKDTrainer", "trl.experimental.gkd.GKDTrainer.compute_loss", BETAS, gkd,
        called_as="transformers.Trainer.training_step -> GKDTrainer.compute_loss(num_items_in_batch=...)",
        notes={"temperature": "`GKDConfig.temperature` is documented as the temperature for sampling"},
        not_offered={"vocabulary": REFUSES},
    ),
    Entry(
        "generalized_jsd_loss", "trl.experimental.gkd.GKDTrainer.generalized_jsd_loss", BETAS, gkd_alone,
        called_as="generalized_jsd_loss(student_logits, teacher_logits, labels, beta, temperature)",
        not_offered={"accumulation": NOT_ALONE, "two_ranks": NOT_ALONE},
    ),
    Entry(
        "DistillationTrainer", "trl.trainer.distillation_trainer._chunked_divergence_loss", BETAS, distillation,
        differentiates="hidden", not_offered={"vocabulary": REFUSES},
        called_as="_chunked_divergence_loss(..., num_items_in_batch=all ranks' tokens / ranks), as compute_loss does",
    ),
]  # fmt: skip

if __name__ == "__main__":
    assert DistillationTrainer.loss_is_scaled_for_ga is True  # training_step divides no further
    names = ("trl", "transformers")
    main("TRL", {name: version(name) for name in names}, ENTRIES)
