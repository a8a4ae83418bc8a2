"""A language-model head as plain data: the matrix, and all that its model does to the logits.

Projecting is two steps. The matrix product writes raw logits into a buffer, for many
positions at once, because products want to be large. What the model does to them
afterwards (scale, cap) is done where they are read, a few rows at a time, because
everything but the product is bound by memory.

In bf16 the product runs on whatever multiplies bf16. A CPU without such units would
emulate it, slower than fp32 and less exact; there the same numbers are multiplied in
fp32, a block of the matrix at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

#: Columns of the vocabulary that are widened to fp32 at once: 8,192 x 896 x 4 bytes are 28 MiB.
BLOCK_COLUMNS = 8192


@dataclass(frozen=True)
class Head:
    """A language-model head and all that its model does to the logits."""

    weight: Tensor  # [V, D]
    bias: Tensor | None = None  # [V]
    hidden_scale: float = 1.0  # multiplies hidden states (T5 with tied embeddings)
    logit_scale: float = 1.0  # multiplies logits (Cohere; Granite divides)
    soft_cap: float | None = None  # logits -> cap * tanh(logits / cap) (Gemma)

    @property
    def width(self) -> int:
        """V: columns of the logits, padding included."""
        return int(self.weight.shape[0])

    def raw(self, hidden: Tensor, out: Tensor, products: torch.dtype) -> Tensor:
        """[n, D] -> [n, V] written to `out`: the product and the bias, multiplied in `products`."""
        if self.hidden_scale != 1.0:
            hidden = hidden * self.hidden_scale
        multiply(hidden, self.weight, self.bias, out, products)
        return out

    def finish(self, raw: Tensor) -> Tensor:
        """Raw logits [n, V] -> the model's, in fp32 or wider. May be `raw` itself."""
        logits = raw.to(torch.promote_types(raw.dtype, torch.float32))
        if self.logit_scale != 1.0:
            logits = logits * self.logit_scale
        if self.soft_cap is not None:
            logits = torch.tanh(logits / self.soft_cap) * self.soft_cap
        return logits

    def unfinish(self, gradient: Tensor, logits: Tensor) -> Tensor:
        """In place: gradient with respect to finished `logits` -> with respect to raw ones, both [n, V]."""
        if self.soft_cap is not None:
            gradient.mul_(1 - (logits / self.soft_cap).square())
        return gradient if self.logit_scale == 1.0 else gradient.mul_(self.logit_scale)

    def project(self, hidden: Tensor) -> Tensor:
        """[n, D] -> the model's logits [n, V], in fp32 or wider; differentiable."""
        if self.hidden_scale != 1.0:
            hidden = hidden * self.hidden_scale
        return self.finish(torch.nn.functional.linear(hidden.to(self.weight.dtype), self.weight, self.bias))


@dataclass(frozen=True)
class Arithmetic:
    """In which types a head computes: the operands of its products, and the logits they write."""

    products: torch.dtype
    logits: torch.dtype

    def __str__(self) -> str:
        names = [str(kind).removeprefix("torch.") for kind in (self.products, self.logits)]
        return f"{names[0]} products, {names[1]} logits"


def arithmetic(weight: Tensor, logits_fp32: bool) -> Arithmetic:
    """What a head with this matrix computes in here and now: autocast and the hardware decide.

    `logits_fp32` keeps the sums of bf16 products in fp32 where they are made, instead
    of rounding them to bf16 first.
    """
    device = weight.device.type
    products = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
    if products == torch.bfloat16 and device == "cpu" and not multiplies_bf16():
        return Arithmetic(torch.float32, torch.float32)
    return Arithmetic(products, torch.float32 if logits_fp32 and products.itemsize < 4 else products)


@cache
def multiplies_bf16() -> bool:
    """Whether this CPU has units for bf16 products (AMX, AVX512-BF16, Arm's BF16)."""
    known: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    if not known:  # older torch tells only of x86
        return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())
    return any(known.get(name, False) for name in ("amx_bf16", "avx512_bf16", "bf16"))


def multiply(rows: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor, products: torch.dtype) -> None:
    """out [n, V] = rows [n, D] times weight [V, D] transposed, plus bias [V]; rounded once, to the type of `out`."""
    rows = rows.to(products)
    if weight.dtype == products == out.dtype:
        if bias is None:
            torch.mm(rows, weight.T, out=out)
        else:
            torch.addmm(bias.to(products), rows, weight.T, out=out)
        return
    if weight.is_cuda:
        torch.mm(rows, weight.to(products).T, out_dtype=out.dtype, out=out)
    else:
        rows = rows.to(out.dtype)
        for block, columns in _blocks(weight, products, out.dtype):
            torch.mm(rows, block.T, out=out[:, columns])
    if bias is not None:
        out += bias.to(products)


def multiply_back(gradient: Tensor, weight: Tensor, out: Tensor, products: torch.dtype) -> None:
    """out [n, D] = gradient [n, V] times weight [V, D]."""
    if weight.dtype == products or weight.is_cuda:
        out.copy_(torch.mm(gradient.to(products), weight.to(products)))
        return
    total = gradient.new_zeros((len(gradient), weight.shape[1]), dtype=products)
    for block, columns in _blocks(weight, products, products):
        total.addmm_(gradient[:, columns].to(products), block)
    out.copy_(total)


def _blocks(weight: Tensor, products: torch.dtype, wide: torch.dtype) -> Iterator[tuple[Tensor, slice]]:
    """Rows of the matrix, rounded to `products` and widened to `wide`, with the columns of the logits they are for."""
    for start in range(0, len(weight), BLOCK_COLUMNS):
        columns = slice(start, min(start + BLOCK_COLUMNS, len(weight)))
        yield weight[columns].to(products).to(wide), columns
