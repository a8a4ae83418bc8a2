"""The weights a model is sampled with, in the type its products are computed in.

A CPU without units for bf16 emulates such products, several times slower than fp32 and
less exact. There a bf16 model is sampled with an fp32 copy of its weights, which holds the
same numbers, and a student under autocast simply in fp32. Where there are units, a student
with fp32 weights gets bf16 copies of what its products read, instead of rounding every
weight again for every token. In all other cases the weights are used where they lie.

The copies are in the model only while it computes: between two completions it is as it was.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from potstill.head import multiplies_bf16

#: An fp32 copy may take this share of the memory that is free.
SHARE_OF_FREE = 0.5


@dataclass
class Weights:
    """Copies of some weights of a model, and the precision it computes in with them."""

    model: nn.Module
    autocast: bool
    copies: list[tuple[Tensor, Tensor]] = field(default_factory=list)  # (the model's own, what replaces it)
    head: Tensor | None = None  # [V, D] the head in the products' type, where it is not the model's own

    @contextmanager
    def computing(self) -> Iterator[None]:
        """The model with its copies, in its precision; its own weights come back whatever happens."""
        own = [tensor.data for tensor, _ in self.copies]
        try:
            for tensor, copy in self.copies:
                tensor.data = copy
            with self.precision():
                yield
        finally:
            for (tensor, _), data in zip(self.copies, own, strict=True):
                tensor.data = data

    def precision(self) -> AbstractContextManager[Any]:
        """Autocast to bf16, or nothing."""
        device = next(self.model.parameters()).device.type
        return torch.autocast(device, dtype=torch.bfloat16) if self.autocast else nullcontext()


def working_weights(model: Any, bf16: bool, note: Callable[[str], None]) -> Weights:
    """What to sample a model with; `bf16` asks for autocast (a student with fp32 weights).

    A copy in fp32 costs 4 bytes a parameter as long as the sampling lasts, and `note` is
    told how much. Where that is more than half of the free memory the weights stay in bf16.
    """
    tensors = [*model.parameters(), *model.buffers()]
    plain = all(type(t.data) is Tensor for t in tensors) and not any(isinstance(m, FSDPModule) for m in model.modules())
    if {t.device.type for t in tensors} == {"cpu"} and not multiplies_bf16():
        narrow = [t for t in tensors if t.dtype == torch.bfloat16]
        if not narrow:
            return Weights(model, autocast=False)
        size, free = 4 * sum(t.numel() for t in narrow), free_memory()
        if plain and size <= SHARE_OF_FREE * free:
            note(f"this CPU has no units for bf16: sampling with an fp32 copy of the weights, {size / 1e6:.0f} MB")
            return Weights(model, False, _copied(model, narrow, torch.float32))
        why = f"an fp32 copy would take {size / 1e6:.0f} of {free / 1e6:.0f} MB free" if plain else "they are packed"
        note(f"this CPU has no units for bf16, and the weights stay as they are, which is slow: {why}")
        return Weights(model, autocast=bf16)
    if not (bf16 and plain):
        return Weights(model, autocast=bf16)
    head, inner = model.get_output_embeddings().weight, model.get_input_embeddings().weight
    products = [m.weight for m in model.modules() if isinstance(m, nn.Linear) and m.weight.dtype == torch.float32]
    copied = _copied(model, [w for w in products if w is not head and w is not inner], torch.bfloat16)
    return Weights(model, True, copied, head.detach().to(torch.bfloat16))


def _copied(model: nn.Module, own: list[Any], dtype: torch.dtype) -> list[tuple[Tensor, Tensor]]:
    """Copies in another type; on a CPU those of linear layers lie column by column, as few rows like to read them."""
    outer = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    linear = {id(m.weight) for m in model.modules() if isinstance(m, nn.Linear)} - outer
    with torch.no_grad():
        return [
            (t, t.detach().T.to(dtype).contiguous().T)
            if id(t) in linear and t.device.type == "cpu"
            else (t, t.detach().to(dtype))
            for t in own
        ]


def free_memory() -> int:
    """Bytes that can be taken without swapping; half of the machine's where the system does not tell."""
    told = Path("/proc/meminfo")
    if told.is_file():
        for line in told.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return 1024 * int(line.split()[1])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
