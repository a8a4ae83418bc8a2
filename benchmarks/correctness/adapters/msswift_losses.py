"""ms-swift: the loss of GKDTrainer and its division, without Liger."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from protocol import Entry, World, backward, main
from swift.rlhf_trainers.gkd_loss import TeacherOutput
from swift.rlhf_trainers.gkd_trainer import GKDTrainer


def trainer(world: World, beta: float, temperature: float) -> list[list[float]]:
    """GKDTrainer._compute_jsd_loss, then the division of transformers.Trainer.training_step.

    The trainer's batches are lists of samples, in which transformers finds no labels to count, so
    num_items_in_batch is None and the loss is divided by the number of micro-batches.
    """
    made = GKDTrainer.__new__(GKDTrainer)
    made.beta, made.temperature, made.gkd_logits_topk = beta, temperature, None
    out = []
    for rank in world:
        out.append([])
        for batch in rank:
            # compute_loss gives the same labels twice, and rolls the teacher's copy.
            # Both models answer in fp32, as accelerate makes them under mixed precision.
            said = TeacherOutput(full_logits=batch.teacher.float(), labels=batch.labels)
            loss = made._compute_jsd_loss(batch.student.float(), said, batch.labels)
            out[-1].append(backward(loss / len(rank)))
    return out


BETAS: dict[str, Any] = {"forward_kl": 0, "reverse_kl": 1, "jsd": 0.5}
ENTRIES = [
    Entry(
        "GKDTrainer", "swift.rlhf_trainers.gkd_trainer.GKDTrainer._compute_jsd_loss", BETAS, trainer,
        called_as="GKDTrainer._compute_jsd_loss (gkd_loss / num_valid), then / micro-batches as training_step does",
    ),
]  # fmt: skip

if __name__ == "__main__":
    main("ms-swift", {name: version(name) for name in ("ms-swift", "transformers", "trl")}, ENTRIES)
