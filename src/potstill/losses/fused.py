"""From hidden states to weighted sums and their gradient, without ever holding [N, V] logits.

Positions go through the head a chunk at a time, as many as a memory setting allows.
While a chunk's logits are there, values and gradient are both computed, for all
terms at once, and the gradient is multiplied back into hidden states and head:
nothing is kept for the backward pass, and nothing is computed twice. The price is
that the weights of the terms must be known, and that all that can still happen to
the result is a multiplication by one number, the reciprocal of the global count.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from potstill.head import Arithmetic, Head, arithmetic, multiply_back
from potstill.losses.kernels.choose import back_end
from potstill.losses.kernels.chunk import Chunk
from potstill.losses.objective import Objective
from potstill.losses.sparse import refuse_undefined
from potstill.targets import Dense, FinalHidden, TeacherTargets


class Scored(NamedTuple):
    """What the head gives: one number to go back from, the rest to look at.

    A tuple, because FSDP2 looks for the tensors of a module's output in what PyTorch calls a tree.
    """

    total: Tensor  # sum over terms of term weight times sum; differentiable, undivided
    sums: dict[str, Tensor]  # term -> sum of token weight times value, detached
    values: dict[str, Tensor]  # term -> [N] values without weights, detached


def weighted_sums(
    hidden: Tensor,
    head: Head,
    target_ids: Tensor,
    token_weights: Mapping[str, Tensor],
    targets: TeacherTargets | None,
    objective: Objective,
    term_weights: Mapping[str, float] | None = None,
) -> Scored:
    """Undivided sums over N positions, per-token values, and the gradient on its way back.

    hidden [N, D], target_ids [N], token_weights term -> [N]; term_weights as they are
    at the start of the run if not given. Values are in nats, but for total variation (a
    probability) and logit MSE (squared logits); a divergence has its factor T squared.

    Raises ValueError where a term cannot be computed from these targets.
    """
    for term in objective.terms:
        if term.needs_teacher and targets is None:
            raise ValueError(f"the term {term.name} needs the teacher's targets and the batch has none")
        if targets is not None:
            refuse_undefined(term, targets)
    weights = objective.weights() if term_weights is None else term_weights
    kinds = arithmetic(head.weight, objective.config.logits == "fp32")
    work = _Work(
        head, target_ids, torch.stack([token_weights[name] for name in objective.names]), targets, objective,
        tuple(weights[name] for name in objective.names), kinds, _teacher_kinds(targets, kinds),
        torch.is_grad_enabled(),
    )  # fmt: skip
    total, sums, values = _Head.apply(hidden, head.weight, head.bias, work)
    return Scored(total, dict(zip(objective.names, sums, strict=True)), dict(zip(objective.names, values, strict=True)))


def _teacher_kinds(targets: TeacherTargets | None, kinds: Arithmetic) -> Arithmetic:
    """In which types the teacher's head computes beside a student's of `kinds`.

    To be asked where autocast is in force. Its logits are wide if the student's are.
    """
    if not isinstance(targets, FinalHidden):
        return kinds
    return arithmetic(targets.head.weight, logits_fp32=kinds.logits.itemsize >= 4)


#: Positions at once where nothing is set: enough for products near their full speed, a few percent of what
#: all logits would take.
AUTOMATIC_POSITIONS = {"cuda": 2048}
ELSEWHERE = 320


def chunk_positions(
    memory_mb: float | None, width: int, teacher_width: int, kinds: Arithmetic, device: str = "cpu",
    teacher_kinds: Arithmetic | None = None,
) -> int:  # fmt: skip
    """How many positions' logits, the student's and the teacher's, fit into the setting; at least 1.

    The teacher's are of the student's type if nothing is said of them.
    """
    if memory_mb is None:
        return AUTOMATIC_POSITIONS.get(device, ELSEWHERE)
    theirs = (teacher_kinds or kinds).logits.itemsize * teacher_width
    return max(1, int(memory_mb * 2**20 / (kinds.logits.itemsize * width + theirs)))


def described(head: Head, teacher_width: int, objective: Objective) -> str:
    """How the head will compute against a teacher in this process, for the log."""
    kinds = arithmetic(head.weight, objective.config.logits == "fp32")
    device = head.weight.device.type
    name, _ = back_end(device, objective.terms, whole=True)
    positions = chunk_positions(objective.config.head_memory_mb, head.width, teacher_width, kinds, device)
    return f"{name} rows, {kinds}, {positions:,} positions at once"


@dataclass(frozen=True)
class _Work:
    head: Head
    target_ids: Tensor
    token_weights: Tensor  # [terms, N]
    targets: TeacherTargets | None
    objective: Objective
    term_weights: tuple[float, ...]
    kinds: Arithmetic
    teacher_kinds: Arithmetic
    differentiable: bool


class _Head(torch.autograd.Function):
    """The gradient is taken in the forward pass, so that the backward pass only multiplies."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, work: _Work) -> tuple[Tensor, ...]:
        wanted = ctx.needs_input_grad[:3] if work.differentiable else (False, False, False)
        with torch.autocast(hidden.device.type, enabled=False):
            gradients = _Gradients(hidden, weight, bias, wanted, work.kinds)
            values, weights = _in_chunks(hidden, replace(work.head, weight=weight, bias=bias), work, gradients)
        sums = (values * weights).sum(-1)
        total = (sums * torch.tensor(work.term_weights, device=sums.device, dtype=sums.dtype)).sum()
        ctx.gradients = gradients.results()
        ctx.mark_non_differentiable(sums, values)
        return total, sums, values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        if ctx.gradients is None:
            raise RuntimeError("this result was already gone back through; its gradient is not kept twice")
        found, ctx.gradients = ctx.gradients, None
        # Not rounded to their type first: a reciprocal of a count in bf16 would be up to 0.4 % off.
        return (*(None if g is None else g.mul_(upstream) for g in found), None)


class _Gradients:
    """With respect to hidden states, matrix and bias, as far as they are wanted; summed in fp32 or wider."""

    def __init__(
        self, hidden: Tensor, weight: Tensor, bias: Tensor | None, wanted: tuple[bool, ...], kinds: Arithmetic
    ):
        self.kinds, self.weight_dtype = kinds, weight.dtype
        wide = torch.promote_types(weight.dtype, torch.float32)
        self.any = any(wanted)
        self.hidden = torch.empty_like(hidden) if wanted[0] else None
        empty = torch.empty_like if len(hidden) else torch.zeros_like  # the first product writes
        self.weight = empty(weight, dtype=wide) if wanted[1] else None
        self.bias = None if bias is None or not wanted[2] else torch.zeros_like(bias, dtype=wide)

    def add(self, start: int, gradient: Tensor, hidden: Tensor, head: Head) -> None:
        """`gradient` [n, V] with respect to raw logits; `hidden` [n, D] the positions from `start` on."""
        products = self.kinds.products
        if self.hidden is not None:
            here = self.hidden[start : start + len(hidden)]
            multiply_back(gradient, head.weight, here, products)
            if head.hidden_scale != 1.0:
                here.mul_(head.hidden_scale)
        if self.weight is not None:
            rows = hidden if head.hidden_scale == 1.0 else hidden * head.hidden_scale
            _add_outer(self.weight, gradient.to(products), rows.to(products), first=start == 0)
        if self.bias is not None:
            self.bias += gradient.sum(0, dtype=self.bias.dtype)

    def results(self) -> list[Tensor | None]:
        weight = None if self.weight is None else self.weight.to(self.weight_dtype)
        return [self.hidden, weight, None if self.bias is None else self.bias.to(self.weight_dtype)]


def _add_outer(total: Tensor, gradient: Tensor, hidden: Tensor, first: bool) -> None:
    """total [V, D] += gradient [n, V] transposed times hidden [n, D]; the first time, total is not read."""
    if total.dtype == gradient.dtype:
        torch.addmm(total, gradient.T, hidden, beta=0 if first else 1, out=total)
        return
    part = torch.mm(gradient.T, hidden, total.dtype) if total.is_cuda else torch.mm(gradient.T, hidden)
    total.copy_(part) if first else total.add_(part)


def _rounded(head: Head, kinds: Arithmetic) -> Head:
    """With its matrix in the type of its products where that is narrower: once, not once a chunk."""
    narrower = kinds.products.itemsize < head.weight.element_size()
    return replace(head, weight=head.weight.to(kinds.products)) if narrower else head


def _in_chunks(hidden: Tensor, head: Head, work: _Work, gradients: _Gradients) -> tuple[Tensor, Tensor]:
    """Values and final token weights, [terms, N] each."""
    n, targets, kinds, theirs = len(hidden), work.targets, work.kinds, work.teacher_kinds
    values = torch.empty_like(work.token_weights)
    weights = torch.empty_like(work.token_weights)
    others = targets.head.width if isinstance(targets, FinalHidden) else 0
    memory_mb, device = work.objective.config.head_memory_mb, hidden.device.type
    size = min(max(1, n), chunk_positions(memory_mb, head.width, others, kinds, device, theirs))
    size = -(-n // -(-n // size)) if n else size  # chunks of one size: a short last one would be slow
    raw = hidden.new_empty((size, head.width), dtype=kinds.logits)
    said_raw = hidden.new_empty((size, others), dtype=theirs.logits)
    head = _rounded(head, kinds)
    if isinstance(targets, FinalHidden):
        targets = replace(targets, head=_rounded(targets.head, theirs))
    excludes = isinstance(targets, Dense | FinalHidden) and targets.excludes
    whole = targets is None or isinstance(targets, Dense | FinalHidden)
    _, through_rows = back_end(device, work.objective.terms, whole)
    for start in range(0, n, size):
        stop = min(start + size, n)
        rows, here = hidden[start:stop], slice(start, stop)
        part = None if targets is None else targets.rows(start, stop)
        said = part.project(said_raw[: stop - start], theirs.products) if isinstance(part, FinalHidden) else part
        chunk = Chunk(
            head.raw(rows, raw[: stop - start], kinds.products), head, said, excludes,
            work.target_ids[here], work.objective.terms, work.term_weights, work.token_weights[:, here],
        )  # fmt: skip
        values[:, here], weights[:, here] = through_rows(chunk, gradients.any)
        if gradients.any:
            gradients.add(start, chunk.raw, rows, head)
    return values, weights
