"""A frozen model in fewer bytes: bf16, or int8 weights with one scale a row.

The head stays as it is: its weight is multiplied by outside the model, and an error
in it is an error in every target. Quantising goes through torchao, which does it in
place after loading, so a student can be cut from the full weights first.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import nn

from potstill.models.load import Loaded, ModelError


def shrink(loaded: Loaded, weights: Literal["as_computed", "bf16", "int8"]) -> Loaded:
    """The same model in fewer bytes (in place); its fingerprint changes with what it says.

    Raises ModelError where int8 is asked for and torchao is not installed.
    """
    if weights == "as_computed":
        return loaded
    if weights == "bf16":
        loaded.model.to(torch.bfloat16)
    else:
        _quantise(loaded.model)
    return replace(loaded, fingerprint=f"{loaded.fingerprint}-{weights}")


def _quantise(model: Any) -> None:
    head = model.get_output_embeddings()

    def is_body(module: nn.Module, name: str) -> bool:
        return isinstance(module, nn.Linear) and module is not head

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of kernels for other hardware that it could not load
        try:
            from torchao.quantization import Int8WeightOnlyConfig, quantize_
        except ImportError as error:
            raise ModelError(
                "training.teacher_weights int8 needs torchao, which is not installed: pip install 'potstill[int8]'"
            ) from error
        quantize_(model, Int8WeightOnlyConfig(), filter_fn=is_body)


def release_body(model: Any) -> None:
    """Give back the memory of all weights but the head's, in place: the model can only project from now on."""
    head = model.get_output_embeddings()
    kept = {id(tensor) for tensor in head.parameters()} | {id(tensor) for tensor in head.buffers()}
    for module in model.modules():
        for store in (module._parameters, module._buffers):
            for name, tensor in store.items():
                if tensor is not None and id(tensor) not in kept:
                    empty = torch.empty(0)
                    store[name] = nn.Parameter(empty, False) if isinstance(tensor, nn.Parameter) else empty
