"""Per-token losses as pure functions of log-probabilities: the reference and the metric.

No masks, no reductions, no temperatures in here: in go fp32 (or fp64) log-probs of
the teacher (p) and the student (q), out comes one number a token. Everything faster
is tested against these.

Three things hold for all of them. A distribution is at distance exactly 0 from
itself, mixtures included: their logarithms are taken relative to one of their parts,
where equality cancels before anything is rounded. Where a distribution gives no
probability (-inf) it adds nothing and sends no NaN into the gradient. And what is
infinite in mathematics is infinite here.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def cross_entropy(student: Tensor, target_ids: Tensor) -> Tensor:
    """-log q(target): [N, V] log-probs, [N] ids -> [N] nats."""
    return -student.gather(-1, target_ids[:, None]).squeeze(-1)


def forward_kl(teacher: Tensor, student: Tensor) -> Tensor:
    """KL(p || q) = sum_v p_v (log p_v - log q_v): two [N, V] log-probs -> [N] nats.

    Mode-covering. The teacher's entropy is included: what has a floor above 0 is a
    cross-entropy. Gradient with respect to the student's logits: q - p.
    """
    return _expected(teacher, _gap(teacher, student))


def reverse_kl(teacher: Tensor, student: Tensor) -> Tensor:
    """KL(q || p) = sum_v q_v (log q_v - log p_v): two [N, V] log-probs -> [N] nats.

    Mode-seeking. Infinite where the student gives probability to what the teacher
    excludes. Gradient: q_v ((log q_v - log p_v) - KL(q || p)).
    """
    return _expected(student, _gap(student, teacher))


def jensen_shannon(teacher: Tensor, student: Tensor, teacher_weight: float, normalised: bool) -> Tensor:
    """w KL(p || m) + (1 - w) KL(q || m), m = w p + (1 - w) q: two [N, V] log-probs -> [N] nats.

    `teacher_weight` is w, the teacher's part of the mixture (Agarwal et al. 2024,
    eq. 1, where it is called beta). Raw, it vanishes at both ends: divided by w it
    tends to forward KL as w -> 0, divided by 1 - w to reverse KL as w -> 1.
    Normalised means divided by w (1 - w): then w = 0 is forward KL, w = 1 is reverse
    KL, nothing jumps between, and near equality every w has the scale of a KL.

    Raises ValueError for w outside [0, 1], or raw at an end, where it is 0 whatever
    the student does.
    """
    w = teacher_weight
    if not 0 <= w <= 1 or (w in (0, 1) and not normalised):
        raise ValueError(
            f"teacher_weight must lie between 0 and 1 (the ends only when normalised), found {w}: "
            "the raw divergence is 0 there for every student"
        )
    if w == 0:
        return forward_kl(teacher, student)
    if w == 1:
        return reverse_kl(teacher, student)
    gap = _gap(teacher, student)
    from_teacher = _expected(teacher, -_mixed(-gap, 1 - w))
    from_student = _expected(student, -_mixed(gap, w))
    value = w * from_teacher + (1 - w) * from_student
    return value / (w * (1 - w)) if normalised else value


def skew_forward_kl(teacher: Tensor, student: Tensor, teacher_share: float) -> Tensor:
    """KL(p || s p + (1 - s) q), s = `teacher_share`: two [N, V] log-probs -> [N] nats.

    DistiLLM (Ko et al. 2024, section 3.1): the mixture never vanishes where the
    teacher has mass, which bounds the gradient (and the value, by -log s). s = 0 is
    forward KL. Raises ValueError for s outside [0, 1).
    """
    _refuse_share(teacher_share, "teacher_share")
    if teacher_share == 0:
        return forward_kl(teacher, student)
    return _expected(teacher, -_mixed(_gap(student, teacher), 1 - teacher_share))


def skew_reverse_kl(teacher: Tensor, student: Tensor, student_share: float) -> Tensor:
    """KL(q || (1 - s) p + s q), s = `student_share`: two [N, V] log-probs -> [N] nats.

    DistiLLM (Ko et al. 2024, section 3.1). The gradient flows through both places
    where the student stands. s = 0 is reverse KL. Raises ValueError for s outside [0, 1).
    """
    _refuse_share(student_share, "student_share")
    if student_share == 0:
        return reverse_kl(teacher, student)
    return _expected(student, -_mixed(_gap(teacher, student), 1 - student_share))


def total_variation(teacher: Tensor, student: Tensor) -> Tensor:
    """Half the sum of |p_v - q_v|: two [N, V] log-probs -> [N], a probability, 0 to 1.

    The share of draws on which the best coupling of both still disagrees (one minus
    the acceptance rate of speculative decoding). Its gradient does not vanish as the
    student approaches: it has a kink at equality, where 0 is taken.
    """
    return 0.5 * (teacher.exp() - student.exp()).abs().sum(-1)


def logit_mse(teacher: Tensor, student: Tensor) -> Tensor:
    """Mean over the vocabulary of squared differences between centred logits -> [N], squared logits.

    The known-bad control (Peng et al. 2024: -7.6 % where KL gave +2.6 %): it cares
    for tokens that nobody would say as much as for those that everybody does.
    Centring (log-probs minus their mean) removes the constant that a softmax does
    not see. Half of it is the limit of T^2 KL_T as T grows (Hinton et al. 2015).
    """
    if torch.isneginf(teacher.amin()) or torch.isneginf(student.amin()):
        raise ValueError(
            "logit MSE needs a logit for every token from both models, and one of them excludes some "
            "(its head is narrower, or its logits are masked); use a divergence between probabilities"
        )
    gap = teacher - student
    return (gap - gap.mean(-1, keepdim=True)).square().mean(-1)


def entropy(distribution: Tensor) -> Tensor:
    """-sum_v p_v log p_v: [N, V] log-probs -> [N] nats, between 0 and log V."""
    return _expected(distribution, -distribution)


def _expected(log_probs: Tensor, values: Tensor) -> Tensor:
    """Sum of exp(log_probs) times values over the last axis; columns without probability add nothing."""
    if torch.isneginf(log_probs.amin()):  # only where vocabularies are padded; masking costs two passes
        values = values.masked_fill(torch.isneginf(log_probs), 0)
    return (log_probs.exp() * values).sum(-1)


def _gap(first: Tensor, second: Tensor) -> Tensor:
    """first - second; 0 where both exclude a token, whose NaN would reach the gradient."""
    gap = first - second
    if torch.isneginf(second.amin()):
        gap = gap.masked_fill(torch.isneginf(first) & torch.isneginf(second), 0)
    return gap


def _mixed(gap: Tensor, share: float) -> Tensor:
    """log((1 - share) + share exp(gap)), exactly 0 at gap 0 and finite for every finite gap.

    With gap = log b - log a it is log(((1 - share) a + share b) / a). The exponential
    is only ever taken of a negative number: for positive gaps, gap is taken out first.
    """
    # Not -|gap|: its derivative at 0 is 0, and ours there is `share`.
    small = torch.expm1(torch.where(gap > 0, -gap, gap))  # in (-1, 0]
    below = torch.log1p(share * small)
    above = gap + torch.log1p((1 - share) * small)
    return torch.where(gap > 0, above, below)


def _refuse_share(share: float, name: str) -> None:
    if not 0 <= share < 1 or math.isnan(share):
        raise ValueError(f"{name} must be at least 0 and below 1, found {share}: at 1 nothing is left to learn")
