"""Which back end takes a chunk through: Triton where there is CUDA and it knows the terms, torch otherwise."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

from torch import Tensor

from potstill.config.terms import AnyTerm
from potstill.losses.kernels import torch_rows
from potstill.losses.kernels.chunk import Chunk

BackEnd = Callable[[Chunk, bool], tuple[Tensor, Tensor]]


def back_end(device: str, terms: tuple[AnyTerm, ...], whole: bool) -> tuple[str, BackEnd]:
    """(name, function) for logits on a device of this type; `whole`: the targets are whole distributions, or none."""
    if device == "cuda" and find_spec("triton") is not None:
        from potstill.losses.kernels import triton_rows

        if triton_rows.knows(terms, whole):
            return "triton", triton_rows.through_rows
    return "torch", torch_rows.through_rows
