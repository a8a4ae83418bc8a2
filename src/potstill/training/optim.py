"""AdamW over fp32 weights, and a learning rate that is a function of the step."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from potstill.config.training import Optimiser


def make_optimiser(model: nn.Module, config: Optimiser) -> torch.optim.AdamW:
    """AdamW; weight decay on matrices only."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=config.learning_rate,
        betas=(config.adam_beta1, config.adam_beta2),
        eps=config.adam_epsilon,
        fused=True,  # one pass over weights and moments instead of a dozen
    )


def learning_rate(config: Optimiser, step: int, steps: int) -> float:
    """Linear warm-up to the peak, then the schedule, whose end is the last step.

    `step` counts from 0; step 0 already moves (a rate of 0 would waste it).
    """
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    progress = (step - config.warmup_steps) / max(1, steps - 1 - config.warmup_steps)
    return config.learning_rate * config.schedule.fraction(progress)


def set_learning_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    for group in optimiser.param_groups:
        group["lr"] = rate


def clip(model: nn.Module, limit: float | None) -> float:
    """Global gradient norm before clipping; gradients are scaled down to `limit` if above."""
    parameters = [p for p in model.parameters() if p.grad is not None]
    bound = math.inf if limit is None else limit
    norm = nn.utils.clip_grad_norm_(parameters, bound)
    return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)
