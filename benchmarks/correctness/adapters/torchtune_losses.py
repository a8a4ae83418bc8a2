"""torchtune: the six classes of kd_losses.py, and the division of its knowledge distillation recipe."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import torch
from protocol import Batch, Entry, World, backward, main
from torch import Tensor
from torchtune import training
from torchtune.modules.loss import (
    CEWithChunkedOutputLoss,
    ForwardKLLoss,
    ForwardKLWithChunkedOutputLoss,
    ReverseKLLoss,
    ReverseKLWithChunkedOutputLoss,
    SymmetricKLLoss,
    SymmetricKLWithChunkedOutputLoss,
)

CHUNKS = 8


def shifted(batch: Batch) -> Tensor:
    """Labels as `_loss_step` of the recipe shifts them: one ignored label is appended, no logit is cut off."""
    return torch.hstack((batch.labels[:, 1:], torch.full((len(batch.rows), 1), -100)))


def plain(kind: type) -> Callable[[Batch], Tensor]:
    """The unchunked classes: everything flat."""

    def loss(batch: Batch) -> Tensor:
        student, teacher = (part.reshape(-1, part.size(-1)) for part in (batch.student, batch.teacher))
        return kind()(student, teacher, shifted(batch).reshape(-1))

    return loss


def chunked(kind: type) -> Callable[[Batch], Tensor]:
    """The chunked ones: logits cut along the tokens, as the transformer's output layer cuts them."""

    def loss(batch: Batch) -> Tensor:
        student, teacher = (list(part.chunk(CHUNKS, dim=1)) for part in (batch.student, batch.teacher))
        return kind(CHUNKS)(student, teacher, shifted(batch))

    return loss


def alone(loss: Callable[[Batch], Tensor]) -> Callable[[World, Any, float], list[list[float]]]:
    """Every micro-batch for itself."""
    return lambda world, parameter, temperature: [[backward(loss(batch)) for batch in rank] for rank in world]


def recipe(world: World, parameter: Any, temperature: float) -> list[list[float]]:
    """The lines of `train` in recipes/knowledge_distillation_distributed.py, with kd_ratio 1.

    current_loss = (1 - kd_ratio) * class_loss + kd_ratio * kd_loss; current_loss.backward();
    at the end of a step scale_grads(model, world_size / num_tokens of all ranks), which with one
    process is what the single-device recipe does.
    """
    kd_loss, class_loss, kd_ratio = chunked(ForwardKLWithChunkedOutputLoss), CEWithChunkedOutputLoss(CHUNKS), 1.0
    losses, num_tokens = [], 0
    for rank in world:
        losses.append([])
        for batch in rank:
            num_tokens += int((batch.labels != class_loss.ignore_index).sum())
            hard = class_loss(list(batch.student.chunk(CHUNKS, dim=1)), shifted(batch))
            soft = kd_loss(batch)
            losses[-1].append(float(soft.detach()))
            backward((1 - kd_ratio) * hard + kd_ratio * soft)
    leaves = torch.nn.Module()
    for number, leaf in enumerate(batch.student for rank in world for batch in rank):
        leaves.register_parameter(str(number), torch.nn.Parameter(leaf.detach()))
        leaves.get_parameter(str(number)).grad = leaf.grad
    training.scale_grads(leaves, torch.tensor(len(world) / num_tokens))
    return losses


COUNTS = "the class divides by the labels of its own call (`normalize=False` gives the sum); see the recipe's row"
NO_T = "no temperature argument"
NOT = {"accumulation": COUNTS, "two_ranks": COUNTS, "temperature": NO_T, "t_squared": NO_T}
WHERE = "torchtune.modules.loss."


def entry(kind: type, divergence: str, is_chunked: bool) -> Entry:
    """The entry of one class."""
    called = "(chunks of student, chunks of teacher, labels)" if is_chunked else "(student, teacher, labels)"
    return Entry(
        kind.__name__, WHERE + kind.__name__, {divergence: None}, alone((chunked if is_chunked else plain)(kind)),
        temperature=False, not_offered=NOT, called_as=f"{kind.__name__}(){called}, as the recipe's _loss_step",
    )  # fmt: skip


ENTRIES = [
    entry(ForwardKLLoss, "forward_kl", False),
    entry(ReverseKLLoss, "reverse_kl", False),
    entry(SymmetricKLLoss, "symmetric_kl", False),
    entry(ForwardKLWithChunkedOutputLoss, "forward_kl", True),
    entry(ReverseKLWithChunkedOutputLoss, "reverse_kl", True),
    entry(SymmetricKLWithChunkedOutputLoss, "symmetric_kl", True),
    Entry(
        "knowledge_distillation recipe", "recipes/knowledge_distillation_distributed.py, lines of train()",
        {"forward_kl": None}, recipe, temperature=False, not_offered={"temperature": NO_T, "t_squared": NO_T},
        called_as="current_loss.backward() on each micro-batch, then scale_grads(world_size / num_tokens); kd_ratio 1",
    ),
]  # fmt: skip

if __name__ == "__main__":
    main("torchtune", {name: version(name) for name in ("torchtune", "torchao")}, ENTRIES)
