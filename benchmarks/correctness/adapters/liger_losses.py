"""Liger Kernel: the chunked loss in plain torch, and the Triton losses under Triton's interpreter.

Liger has no trainer; its losses return a mean over the labels of the tensors they are given.
Set TRITON_INTERPRET=1 where there is no GPU: the same kernels, run by Triton's own interpreter.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import torch
from liger_kernel.chunked_loss import LigerFusedLinearJSDLoss
from liger_kernel.transformers import LigerFusedLinearKLDivLoss, LigerJSD
from liger_kernel.transformers.fused_linear_jsd import LigerFusedLinearJSD
from protocol import Batch, Entry, World, backward, main
from torch import Tensor

BETAS: dict[str, Any] = {"forward_kl": 0.0, "reverse_kl": 1.0, "jsd": 0.5}
NO_COUNT = "a function without a trainer: it divides by the labels of its own call, and takes no other count"
ONE_V = {"vocabulary": "the documented shapes have one V for both"}
LOG_PROBS = "takes log-probabilities; what made them is the caller's"
ALONE = {"accumulation": NO_COUNT, "two_ranks": NO_COUNT}


def flat(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Student's and teacher's hidden states and labels, shifted as the documentation's example does."""
    student, teacher = (part[:, :-1].flatten(0, 1).contiguous() for part in (batch.hidden, batch.teacher_hidden))
    return student, teacher, batch.labels[:, 1:].reshape(-1).contiguous()


def each(world: World, value: Callable[[Batch], Tensor]) -> list[list[float]]:
    """The backward pass of every micro-batch's value; the losses, by rank."""
    return [[backward(value(batch)) for batch in rank] for rank in world]


def through_heads(world: World, loss: Callable[..., Tensor]) -> list[list[float]]:
    """For losses that take both models' hidden states and heads."""

    def value(batch: Batch) -> Tensor:
        student, teacher, labels = flat(batch)
        return loss(student, batch.head, teacher, batch.teacher_head, labels)

    return each(world, value)


def chunked(world: World, beta: float, temperature: float) -> list[list[float]]:
    """weight_hard_loss 0, so that the distillation loss stands alone; compiled or not are the same code."""
    return through_heads(world, LigerFusedLinearJSDLoss(0.0, 1.0, beta, temperature=temperature, compiled=False))


def fused(world: World, beta: float, temperature: float) -> list[list[float]]:
    """As modelopt's KDTrainer and the documentation call it."""
    return through_heads(world, LigerFusedLinearJSD(jsd_beta=beta, temperature=temperature))


def fused_kl(world: World, parameter: Any, temperature: float) -> list[list[float]]:
    """The teacher as softened probabilities, its documented target."""
    loss = LigerFusedLinearKLDivLoss(temperature=temperature)

    def value(batch: Batch) -> Tensor:
        student, teacher, labels = flat(batch)
        target = torch.softmax((teacher @ batch.teacher_head.T).float() / temperature, -1)
        return loss(student, batch.head, target, labels)

    return each(world, value)


def jsd(world: World, beta: float, temperature: float) -> list[list[float]]:
    """Log-probabilities in, as documented; the log_softmax is the caller's."""
    loss = LigerJSD(beta=beta)

    def value(batch: Batch) -> Tensor:
        student, teacher = (part[:, :-1].flatten(0, 1) for part in (batch.student, batch.teacher))
        labels = batch.labels[:, 1:].reshape(-1).contiguous()
        return loss(torch.log_softmax(student, -1), torch.log_softmax(teacher, -1), labels)

    return each(world, value)


INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
HOW = " (Triton kernel, run by Triton's interpreter)" if INTERPRETED else " (Triton kernel)"
ENTRIES = [
    Entry(
        "LigerFusedLinearJSDLoss", "liger_kernel.chunked_loss.LigerFusedLinearJSDLoss", BETAS, chunked,
        differentiates="hidden", not_offered=ALONE,
        called_as="LigerFusedLinearJSDLoss(0.0, 1.0, beta, temperature=T, compiled=False)",
        notes={"vocabulary": "a comment in the source says that a narrower student is padded to the teacher's width"},
    ),
    Entry(
        "LigerFusedLinearJSD", "liger_kernel.transformers.LigerFusedLinearJSD" + HOW, BETAS, fused,
        differentiates="hidden", not_offered=ALONE, called_as="LigerFusedLinearJSD(jsd_beta=beta, temperature=T)",
        excluded=ONE_V,
    ),
    Entry(
        "LigerFusedLinearKLDivLoss", "liger_kernel.transformers.LigerFusedLinearKLDivLoss" + HOW, {"forward_kl": None},
        fused_kl, differentiates="hidden", not_offered=ALONE,
        called_as="LigerFusedLinearKLDivLoss(temperature=T)(states, head, softmax(teacher / T), labels)",
        excluded=ONE_V,
    ),
    Entry(
        "LigerJSD", "liger_kernel.transformers.LigerJSD" + HOW, BETAS, jsd, temperature=False,
        not_offered=ALONE | dict.fromkeys(("temperature", "t_squared", "bf16"), LOG_PROBS),
        called_as="LigerJSD(beta)(log_softmax(student), log_softmax(teacher), shift_labels)",
        excluded=ONE_V,
    ),
]  # fmt: skip

if __name__ == "__main__":
    under = "TRITON_INTERPRET=1" if INTERPRETED else ""
    main("Liger Kernel", {name: version(name) for name in ("liger-kernel", "triton")}, ENTRIES, under)
