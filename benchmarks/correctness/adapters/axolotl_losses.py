"""Axolotl: the KD integration's loss, with as many teacher tokens as there are columns.

Its targets are the teacher's top-k log-probabilities, softened and normalised by the data
pipeline; with k equal to the vocabulary they are the whole distribution, and the loss is
the divergence itself.
"""

from __future__ import annotations

from importlib.metadata import version
from types import SimpleNamespace
from typing import Any

import hf
import torch
import transformers
from axolotl.integrations.kd.kernels.liger import LigerFusedLinearKLTopKLogprobLoss
from axolotl.integrations.kd.topk_logprob.forward_kl import loss as topk_loss
from axolotl.integrations.kd.trainer import AxolotlKDTrainer
from protocol import Batch, Entry, World, backward, main
from torch import Tensor


def targets(batch: Batch, teacher: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """(ids, log-probabilities, mask), each [B, T, K], standing where the output stands that they are for."""
    found = torch.log_softmax(teacher.float() / temperature, -1)
    ids = torch.arange(found.shape[-1]).expand(found.shape).contiguous()
    counted = torch.nn.functional.pad(batch.counted, (0, 1))
    return ids, found, counted[..., None].expand(found.shape).int().contiguous()


class Student(hf.Table):
    """Answers with hidden states; the head that compute_loss looks up is the case's."""

    def __init__(self, batch: Batch):
        super().__init__(batch.hidden)
        self.lm_head = SimpleNamespace(weight=batch.head)

    def forward(self, **inputs: Any) -> SimpleNamespace:
        return SimpleNamespace(hidden_states=(self.answer,))


def kd_trainer(world: World, beta: float, temperature: float) -> list[list[float]]:
    """`transformers.Trainer.training_step` around AxolotlKDTrainer.compute_loss, on every micro-batch."""
    loss = LigerFusedLinearKLTopKLogprobLoss(0.0, 1.0, temperature, beta, compiled=False, compute_ce_loss=False)
    counts, losses = hf.counts(world), []
    for rank in world:
        made = hf.trainer(AxolotlKDTrainer, counts, len(rank), _kd_loss_fn=loss)
        items = made._get_num_items_in_batch([hf.inputs(batch) for batch in rank], torch.device("cpu"))
        losses.append([])
        for batch in rank:
            teacher = batch.teacher_hidden.float() @ batch.teacher_head.float().T
            names = ("target_token_ids", "target_logprobs", "target_mask")
            inputs = hf.inputs(batch) | dict(zip(names, targets(batch, teacher, temperature), strict=True))
            losses[-1].append(float(transformers.Trainer.training_step(made, Student(batch), inputs, items)))
    return losses


def alone(world: World, parameter: Any, temperature: float) -> list[list[float]]:
    """The function of topk_logprob, with num_items_in_batch as its arguments offer."""
    items = sum(int(batch.counted.sum()) for rank in world for batch in rank)
    out = []
    for rank in world:
        out.append([])
        for batch in rank:
            ids, found, mask = targets(batch, batch.teacher, temperature)
            out[-1].append(backward(topk_loss(batch.student, ids, found, mask, items, temperature)))
    return out


NO_HEAD = "the teacher is known by token ids and log-probabilities; it has no columns"
BETAS: dict[str, Any] = {"forward_kl": 0.0, "reverse_kl": 1.0, "jsd": 0.5}
ENTRIES = [
    Entry(
        "AxolotlKDTrainer", "axolotl.integrations.kd.trainer.AxolotlKDTrainer.compute_loss", BETAS,
        kd_trainer, differentiates="hidden", not_offered={"vocabulary": NO_HEAD},
        called_as="transformers.Trainer.training_step -> AxolotlKDTrainer.compute_loss, kd_ce_alpha 0, kd_alpha 1, "
        "k = V, not compiled",
        notes={"t_squared": "a comment in the source says that the loss is scaled by T squared"},
    ),
    Entry(
        "topk_logprob.loss", "axolotl.integrations.kd.topk_logprob.forward_kl.loss", {"forward_kl": None}, alone,
        not_offered={"vocabulary": NO_HEAD, "two_ranks": "the caller passes num_items_in_batch"},
        called_as="loss(student_logits, ids, logprobs, mask, num_items_in_batch, kd_temperature), k = V; "
        "num_items_in_batch of all ranks",
    ),
]  # fmt: skip

if __name__ == "__main__":
    main("Axolotl", {name: version(name) for name in ("axolotl", "liger-kernel", "transformers")}, ENTRIES)
