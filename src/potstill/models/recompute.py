"""Gradient checkpointing: keep each block's input, compute its inside again in the backward pass.

Transformers does it in blocks that are in training mode. Our students stay in
evaluation mode, since dropout would make every number depend on a stream of random
numbers; so the blocks alone are told that they are training, and what is inside
them is not.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from potstill.models.load import ModelError


def recompute_blocks(model: Any) -> None:
    """Turn it on. Raises ModelError for a model whose blocks Transformers cannot checkpoint."""
    blocks = _blocks(model)
    if not blocks or not model.supports_gradient_checkpointing:
        raise ModelError(
            f"{type(model).__name__} has no blocks that can be checkpointed; set training.gradient_checkpointing "
            "to false and lower training.micro_batch_rows instead"
        )
    # The newer name first: the older one warns that it goes.
    enable = getattr(model, "activation_checkpointing_enable", None)
    if enable is not None:
        enable({"use_reentrant": False})
    else:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    for block in blocks:
        block.training = True


@contextmanager
def not_recomputing(model: nn.Module) -> Iterator[None]:
    """Off for as long as the model generates: a cache of keys and values cannot be checkpointed."""
    blocks = [block for block in _blocks(model) if block.training]
    for block in blocks:
        block.training = False
    try:
        yield
    finally:
        for block in blocks:
            block.training = True


def _blocks(model: nn.Module) -> list[GradientCheckpointingLayer]:
    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
