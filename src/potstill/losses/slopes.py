"""Values and slopes of the terms against a teacher in closed form, for the head that needs both at once.

The fused head has no autograd graph to go back through: while a row of logits is in
the cache it wants the value and the gradient. Write a divergence as a sum over
outcomes of phi(p_v, q_v). With a_v = q_v dphi/dq_v, its *slope*, the gradient with
respect to the student's logits z = T log q + constant is

    d/dz_v = (a_v - q_v sum_u a_u) / T

because q comes out of a softmax. A multiple of q in the slope cancels there and is
left out here. Logit MSE is no such sum, but has a slope in the same sense, its
derivative by log q_v; that sums to 0, because the logits are centred.
`divergences.py` is the definition; tests hold these against it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from potstill.config.terms import (
    Divergence,
    ForwardKL,
    JensenShannon,
    LogitMSE,
    ReverseKL,
    SkewForwardKL,
    SkewReverseKL,
    TotalVariation,
)

#: Stands for the log-probability of what a teacher excludes: its exponential is exactly 0, and
#: 0 times it is 0 where 0 times -inf would be NaN.
EXCLUDED = -1e30
#: No value that is finite in mathematics comes near.
INFINITE = 1e25


class Slope(NamedTuple):
    """Of one term at temperature T, without the factor T squared; all but the value scaled."""

    value: Tensor  # [n]
    slope: Tensor  # [n, M], M outcomes
    total: Tensor  # [n], its sum over outcomes


def slope(term: Divergence | LogitMSE, p: Tensor, q: Tensor, gap: Tensor, scaled: Tensor) -> Slope:
    """Value, and slope times `scaled` [n], of one term between M outcomes.

    p, q [n, M] probabilities, gap [n, M] = log p - log q. Where the teacher excludes
    an outcome, p is 0 and the gap about EXCLUDED. The memory of `gap` is used up, and
    that of the slope may be it: each term needs a gap of its own.
    """
    c = scaled[:, None]
    match term:
        case ForwardKL():
            return _forward_kl(p, gap, c)
        case ReverseKL():
            return _reverse_kl(q, gap, c)
        case JensenShannon(teacher_weight=0):
            return _forward_kl(p, gap, c)
        case JensenShannon(teacher_weight=1):
            return _reverse_kl(q, gap, c)
        case JensenShannon():
            return _jensen_shannon(p, q, gap, c, term.teacher_weight, term.normalised)
        case SkewForwardKL(teacher_share=0):
            return _forward_kl(p, gap, c)
        case SkewForwardKL():
            return _skew_forward_kl(p, q, gap, c, term.teacher_share)
        case SkewReverseKL(student_share=0):
            return _reverse_kl(q, gap, c)
        case SkewReverseKL():
            return _skew_reverse_kl(q, gap, c, term.student_share)
        case TotalVariation():
            return _total_variation(p, q, c)
        case LogitMSE():
            return _logit_mse(gap, c)
    raise TypeError(f"{term.kind} has no slope")


def _forward_kl(p: Tensor, gap: Tensor, c: Tensor) -> Slope:
    """a = -p, whose sum is -1."""
    value = torch.linalg.vecdot(p, gap)
    return Slope(value, torch.mul(p, -c, out=gap), -c[:, 0])


def _reverse_kl(q: Tensor, gap: Tensor, c: Tensor) -> Slope:
    """a = q (log q - log p), whose sum is the value."""
    a = gap.mul_(q)
    value = -a.sum(-1)
    value = torch.where(value > INFINITE, torch.inf, value)
    return Slope(value, a.mul_(-c), c[:, 0] * value)


def _jensen_shannon(p: Tensor, q: Tensor, gap: Tensor, c: Tensor, w: float, normalised: bool) -> Slope:
    """m = w p + (1 - w) q; a = (1 - w) q log(q / m)."""
    scale = 1 / (w * (1 - w)) if normalised else 1.0
    a = _log_mixture(gap, w)  # log(m / q)
    from_teacher = torch.linalg.vecdot(p, gap.sub_(a))  # log(p / m)
    a *= q
    total = (w - 1) * scale * a.sum(-1)
    value = w * scale * from_teacher + total
    return Slope(value, a.mul_((w - 1) * scale * c), c[:, 0] * total)


def _skew_forward_kl(p: Tensor, q: Tensor, gap: Tensor, c: Tensor, share: float) -> Slope:
    """m = s p + (1 - s) q; a = -(1 - s) q p / m."""
    log_ratio = _log_mixture(gap.neg_(), 1 - share)  # log(m / p)
    value = -torch.linalg.vecdot(p, log_ratio)
    a = log_ratio.neg_().exp_().mul_(q).mul_((share - 1) * c)
    return Slope(value, a, a.sum(-1))


def _skew_reverse_kl(q: Tensor, gap: Tensor, c: Tensor, share: float) -> Slope:
    """m = (1 - s) p + s q; a = q (log(q / m) - s q / m)."""
    log_ratio = _log_mixture(gap, 1 - share)  # log(m / q)
    value = -torch.linalg.vecdot(q, log_ratio)
    a = (-log_ratio).exp_().mul_(share).add_(log_ratio).mul_(q).mul_(-c)
    return Slope(value, a, a.sum(-1))


def _log_mixture(gap: Tensor, share: float) -> Tensor:
    """log((1 - share) + share exp(gap)): `_mixed` of divergences.py without a graph, in fewer passes."""
    small = gap.abs().neg_().expm1_()
    if share == 0.5:
        small *= share
    else:
        small *= torch.where(gap > 0, gap.new_tensor(1 - share), gap.new_tensor(share))
    return small.log1p_().add_(gap.clamp(min=0))


def _total_variation(p: Tensor, q: Tensor, c: Tensor) -> Slope:
    """a = q sign(q - p) / 2."""
    difference = q - p
    value = 0.5 * difference.abs().sum(-1)
    a = difference.sign_().mul_(q).mul_(0.5 * c)
    return Slope(value, a, a.sum(-1))


def _logit_mse(gap: Tensor, c: Tensor) -> Slope:
    """a = -2 / V times the centred gap, whose sum is 0."""
    gap -= gap.mean(-1, keepdim=True)
    value = gap.square().mean(-1)
    return Slope(value, gap.mul_((-2 / gap.shape[-1]) * c), torch.zeros_like(value))
