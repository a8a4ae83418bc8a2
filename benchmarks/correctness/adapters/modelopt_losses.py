"""NVIDIA Model Optimizer: KDTrainer's loss through its own training step, and the class by itself."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import hf
import torch
from modelopt.torch.distill.losses import LogitsDistillationLoss
from modelopt.torch.distill.plugins.huggingface import KDTrainer
from protocol import Entry, World, backward, main
from transformers import Trainer


def kd_trainer(world: World, parameter: Any, temperature: float) -> list[list[float]]:
    """`transformers.Trainer.training_step` around KDTrainer.compute_loss, on every micro-batch."""
    counts, losses = hf.counts(world), []
    for rank in world:
        made = hf.trainer(
            KDTrainer, counts, len(rank), use_liger_kernel=False, _teacher_prepared=True, is_deepspeed_enabled=False,
            _kd_criterion=LogitsDistillationLoss(temperature=temperature, reduction="none"),
        )  # fmt: skip
        items = made._get_num_items_in_batch([hf.inputs(batch) for batch in rank], torch.device("cpu"))
        losses.append([])
        for batch in rank:
            made._teacher_model = hf.Table(batch.teacher)
            losses[-1].append(float(Trainer.training_step(made, hf.Table(batch.student), hf.inputs(batch), items)))
    return losses


def alone(world: World, reduction: str, temperature: float) -> list[list[float]]:
    """The class with its default reduction, on the counted positions only: it has no mask."""
    loss = LogitsDistillationLoss(temperature)
    return [
        [backward(loss(batch.student[:, :-1][batch.counted], batch.teacher[:, :-1][batch.counted])) for batch in rank]
        for rank in world
    ]


NO_MASK = "no mask and no count; `reduction='none'` leaves both to the caller"
ENTRIES = [
    Entry(
        "KDTrainer", "modelopt.torch.distill.plugins.huggingface.KDTrainer.compute_loss", {"forward_kl": None},
        kd_trainer, called_as="transformers.Trainer.training_step -> KDTrainer.compute_loss, without Liger",
        notes={"t_squared": "a comment in the source gives the reason for the factor"},
    ),
    Entry(
        "LogitsDistillationLoss", "modelopt.torch.distill.losses.LogitsDistillationLoss", {"forward_kl": "mean"},
        alone, called_as="LogitsDistillationLoss(temperature) on the counted positions, reduction 'mean' as by default",
        not_offered={"accumulation": NO_MASK, "two_ranks": NO_MASK, "padding": NO_MASK, "masked": NO_MASK},
        notes={"value": "its reduction is that of torch.nn.functional.kl_div, whose 'mean' is documented to divide "
                        "by the number of elements too", "t_squared": "a comment in the source gives the reason"},
    ),
]  # fmt: skip

if __name__ == "__main__":
    main("NVIDIA Model Optimizer", {name: version(name) for name in ("nvidia-modelopt", "transformers")}, ENTRIES)
