"""The Triton back end: one program takes one row of logits through everything.

A GPU is bound by memory between its matrix products, so a row is read twice, three
times where the slope's sum has to be known first, and its gradient is written over
it. Everything is computed in fp32, whatever the logits are stored in.

It knows cross-entropy and at most one divergence against a whole distribution, which
is nearly every objective; what it does not know goes to the torch back end.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from potstill.config.terms import (
    AnyTerm,
    CrossEntropy,
    Divergence,
    ForwardKL,
    JensenShannon,
    ReverseKL,
    SkewForwardKL,
    SkewReverseKL,
    TotalVariation,
)
from potstill.head import Head
from potstill.losses.kernels.chunk import Chunk
from potstill.losses.slopes import INFINITE
from potstill.targets import Dense, Projected

_NONE, _FORWARD, _REVERSE, _MIXED, _SKEW_FORWARD, _SKEW_REVERSE, _VARIATION = range(7)
NONE, FORWARD, REVERSE = tl.constexpr(_NONE), tl.constexpr(_FORWARD), tl.constexpr(_REVERSE)
MIXED, SKEW_FORWARD = tl.constexpr(_MIXED), tl.constexpr(_SKEW_FORWARD)
SKEW_REVERSE, VARIATION = tl.constexpr(_SKEW_REVERSE), tl.constexpr(_VARIATION)
#: As `slopes.EXCLUDED`.
EXCLUDED = tl.constexpr(-1e30)
BLOCK = 4096


def through_rows(chunk: Chunk, gradient: bool) -> tuple[Tensor, Tensor]:
    """As the torch back end's: values and token weights [terms, n]; the gradient goes to `chunk.raw`."""
    hard, soft = _split(chunk.terms)
    n, width = chunk.raw.shape
    weights = chunk.token_weights.float()
    values = torch.zeros_like(weights)
    factors = torch.tensor(chunk.term_weights, device=weights.device)[:, None] * weights
    said, said_head, shared = _said(chunk)
    term = chunk.terms[soft] if soft is not None else None
    kind, parameter = _kind(term)
    temperature = term.divergence_temperature if isinstance(term, Divergence) else 1.0
    scale = term.scale if term is not None else 1.0
    if n:
        _row[(n,)](
            chunk.raw, chunk.raw.stride(0), said, said.stride(0), chunk.target_ids,
            factors[hard if hard is not None else 0].contiguous(), values[hard if hard is not None else 0],
            (factors[soft if soft is not None else 0] * scale).contiguous(), values[soft if soft is not None else 0],
            width, shared, parameter, 1.0 / temperature, scale,
            chunk.head.logit_scale, chunk.head.soft_cap or 0.0, said_head.logit_scale, said_head.soft_cap or 0.0,
            HARD=hard is not None, KIND=kind, HOT=temperature != 1, GRADIENT=gradient,
            BLOCK=min(BLOCK, triton.next_power_of_2(width)), num_warps=8,
        )  # fmt: skip
    if kind == _REVERSE:
        values[soft] = torch.where(values[soft] > INFINITE, torch.inf, values[soft])
    return values, weights


def knows(terms: tuple[AnyTerm, ...], whole: bool) -> bool:
    """Whether this back end can compute these terms; `whole`: from whole distributions."""
    hard = [t for t in terms if isinstance(t, CrossEntropy)]
    soft = [t for t in terms if isinstance(t, Divergence)]
    ruled = [t for t in terms if t.token_weighting is not None and t.token_weighting.kind == "teacher_entropy"]
    few = len(hard) <= 1 and len(soft) <= 1 and len(hard) + len(soft) == len(terms)
    return few and not ruled and (not soft or whole)


def _split(terms: tuple[AnyTerm, ...]) -> tuple[int | None, int | None]:
    """(place of the cross-entropy, place of the divergence)."""
    hard = next((i for i, t in enumerate(terms) if isinstance(t, CrossEntropy)), None)
    soft = next((i for i, t in enumerate(terms) if isinstance(t, Divergence)), None)
    return hard, soft


def _said(chunk: Chunk) -> tuple[Tensor, Head, int]:
    """(the teacher's raw logits, the head that finishes them, how many columns are shared)."""
    said, width = chunk.said, chunk.raw.shape[1]
    if isinstance(said, Projected):
        return said.raw, said.head, width if said.shared is None else said.shared
    raw = said.values if isinstance(said, Dense) else chunk.raw
    return raw.contiguous(), Head(chunk.head.weight), width


def _kind(term: AnyTerm | None) -> tuple[int, float]:
    """(code, parameter) of a divergence; at its ends a parametrised one is the plain one."""
    match term:
        case ForwardKL() | JensenShannon(teacher_weight=0) | SkewForwardKL(teacher_share=0):
            return _FORWARD, 0.0
        case ReverseKL() | JensenShannon(teacher_weight=1) | SkewReverseKL(student_share=0):
            return _REVERSE, 0.0
        case JensenShannon():
            # The sign says whether to divide by w (1 - w).
            return _MIXED, -term.teacher_weight if term.normalised else term.teacher_weight
        case SkewForwardKL():
            return _SKEW_FORWARD, term.teacher_share
        case SkewReverseKL():
            return _SKEW_REVERSE, term.student_share
        case TotalVariation():
            return _VARIATION, 0.0
    return _NONE, 0.0


@triton.jit
def _finished(raw, scale, cap):  # type: ignore[no-untyped-def]
    """What a model does to its raw logits."""
    logits = raw * scale
    if cap > 0:
        # tanh without an exponential that overflows.
        small = tl.exp(-2 * tl.abs(logits / cap))
        curve = (1 - small) / (1 + small)
        logits = tl.where(logits < 0, -curve, curve) * cap
    return logits


@triton.jit
def _expm1(x):  # type: ignore[no-untyped-def]
    """exp(x) - 1 for x <= 0, good also near 0 (Kahan)."""
    u = tl.exp(x)
    close = (x > -1) & (u < 1)
    near = (u - 1) * x / tl.log(tl.where(close, u, 0.5))
    return tl.where(close, near, tl.where(x > -1, x, u - 1))


@triton.jit
def _log1p(x):  # type: ignore[no-untyped-def]
    """log(1 + x) for -1 < x <= 0, good also near 0 (Kahan)."""
    u = 1 + x
    return tl.where(u < 1, x * tl.log(u) / tl.where(u < 1, u - 1, 1.0), x)


@triton.jit
def _log_mixture(gap, share):  # type: ignore[no-untyped-def]
    """log((1 - share) + share exp(gap)), exactly 0 at 0."""
    part = tl.where(gap > 0, 1 - share, share)
    return _log1p(part * _expm1(-tl.abs(gap))) + tl.maximum(gap, 0.0)


@triton.jit
def _slope(p, q, gap, parameter, KIND: tl.constexpr):  # type: ignore[no-untyped-def]
    """(value, slope) of every token; see `slopes.py`."""
    if KIND == FORWARD:
        value, a = p * gap, -p
    elif KIND == REVERSE:
        a = -q * gap
        value = a
    elif KIND == MIXED:
        w = tl.abs(parameter)
        scale = tl.where(parameter < 0, 1 / (w * (1 - w)), 1.0)
        ratio = _log_mixture(gap, w)
        a = (w - 1) * scale * q * ratio
        value = w * scale * p * (gap - ratio) + a
    elif KIND == SKEW_FORWARD:
        ratio = _log_mixture(-gap, 1 - parameter)
        value = -p * ratio
        a = (parameter - 1) * q * tl.exp(-ratio)
    elif KIND == SKEW_REVERSE:
        ratio = _log_mixture(gap, 1 - parameter)
        value = -q * ratio
        a = -q * (ratio + parameter * tl.exp(-ratio))
    else:
        value = 0.5 * tl.abs(q - p)
        a = 0.5 * q * tl.where(q > p, 1.0, tl.where(q < p, -1.0, 0.0))
    return value, a


@triton.jit
def _load(base, columns, until, scale, cap):  # type: ignore[no-untyped-def]
    """A block of finished logits in fp32, EXCLUDED beyond the columns that count."""
    there = columns < until
    logits = _finished(tl.load(base + columns, mask=there, other=0.0).to(tl.float32), scale, cap)
    return tl.maximum(tl.where(there, logits, EXCLUDED), EXCLUDED)


@triton.jit
def _log_sum(base, width, scale, cap, cool, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """log of the sum of exp(cool * logits), with a running maximum."""
    largest, total = tl.full([], EXCLUDED, tl.float32), tl.full([], 0.0, tl.float32)
    for start in range(0, width, BLOCK):
        logits = _load(base, start + tl.arange(0, BLOCK), width, scale, cap) * cool
        now = tl.maximum(largest, tl.max(logits, 0))
        total = total * tl.exp(largest - now) + tl.sum(tl.exp(logits - now), 0)
        largest = now
    return largest + tl.log(total)


@triton.jit
def _compared(z, t, q_log, p_log, cool, there, parameter, KIND: tl.constexpr):  # type: ignore[no-untyped-def]
    """(q, value, slope) of a block of tokens; z, t finished logits, `cool` = 1 / temperature."""
    log_q, log_p = z * cool - q_log, t * cool - p_log
    q = tl.where(there, tl.exp(log_q), 0.0)
    p = tl.exp(log_p)
    value, a = _slope(p, q, tl.where(there, log_p - log_q, 0.0), parameter, KIND)
    return q, value, a


@triton.jit
def _row(  # type: ignore[no-untyped-def]
    z_base, z_stride, t_base, t_stride, ids, hard_scales, hard_values, soft_scales, soft_values,
    width, shared, parameter, cool, value_scale, z_scale, z_cap, t_scale, t_cap,
    HARD: tl.constexpr, KIND: tl.constexpr, HOT: tl.constexpr, GRADIENT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One position: z the student's raw logits, t the teacher's, `cool` = 1 / temperature."""
    row = tl.program_id(0).to(tl.int64)
    z_row, t_row = z_base + row * z_stride, t_base + row * t_stride
    zero = tl.full([], 0.0, tl.float32)
    plain_log, q_log, p_log, hard_scale, soft_scale = zero, zero, zero, zero, zero
    value, total, target = zero, zero, tl.load(ids + row)
    if KIND != NONE:
        q_log = _log_sum(z_row, width, z_scale, z_cap, cool, BLOCK)
        p_log = _log_sum(t_row, shared, t_scale, t_cap, cool, BLOCK)
        soft_scale = tl.load(soft_scales + row)
        for start in range(0, width, BLOCK):
            columns = start + tl.arange(0, BLOCK)
            z = _load(z_row, columns, width, z_scale, z_cap)
            t = _load(t_row, columns, shared, t_scale, t_cap)
            _, part, a = _compared(z, t, q_log, p_log, cool, columns < width, parameter, KIND)
            value += tl.sum(part, 0)
            total += tl.sum(a, 0)
        tl.store(soft_values + row, value * value_scale)
    if HARD:
        plain_log = q_log
        if HOT or KIND == NONE:
            plain_log = _log_sum(z_row, width, z_scale, z_cap, 1.0, BLOCK)
        hard_scale = tl.load(hard_scales + row)
        tl.store(hard_values + row, plain_log - _finished(tl.load(z_row + target).to(tl.float32), z_scale, z_cap))
    if not GRADIENT:
        return
    for start in range(0, width, BLOCK):  # the gradient, over the logits
        columns = start + tl.arange(0, BLOCK)
        there = columns < width
        z = _load(z_row, columns, width, z_scale, z_cap)
        found = tl.zeros([BLOCK], tl.float32)
        if HARD:
            found += hard_scale * (tl.exp(z - plain_log) - tl.where(columns == target, 1.0, 0.0))
        if KIND != NONE:
            t = _load(t_row, columns, shared, t_scale, t_cap)
            q, _, a = _compared(z, t, q_log, p_log, cool, there, parameter, KIND)
            found += soft_scale * cool * (a - q * total)
        if z_cap > 0:
            curve = tl.where(there, z / z_cap, 0.0)
            found = found * (1 - curve * curve)
        tl.store(z_row + columns, (found * z_scale).to(z_base.dtype.element_ty), mask=there)
