"""The head written down the obvious way: all logits at once, and autograd.

Nothing here is clever or saves anything. The fused head is held against it, in tests
and in benchmarks, and it shares with it only the definitions of the divergences.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from potstill.config.terms import (
    AnyTerm,
    CrossEntropy,
    Divergence,
    ForwardKL,
    JensenShannon,
    LogitMSE,
    ReverseKL,
    SkewForwardKL,
    SkewReverseKL,
)
from potstill.head import Head
from potstill.losses import Objective, divergences
from potstill.targets import Kept, Sampled, TeacherTargets


def slow_weighted_sums(
    hidden: Tensor,
    head: Head,
    target_ids: Tensor,
    token_weights: Mapping[str, Tensor],
    targets: TeacherTargets | None,
    objective: Objective,
    term_weights: Mapping[str, float] | None = None,
) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """(total, sums, values) as `potstill.losses.fused.weighted_sums` gives them; all differentiable."""
    logits = head.project(hidden)
    factors = objective.weights() if term_weights is None else term_weights
    sums, values = {}, {}
    for term in objective.terms:
        values[term.name] = slow_values(term, logits, target_ids, targets)
        sums[term.name] = (values[term.name] * token_weights[term.name] * _said(term, targets)).sum()
    return torch.stack([factors[name] * value for name, value in sums.items()]).sum(), sums, values


def slow_values(term: AnyTerm, logits: Tensor, target_ids: Tensor, targets: TeacherTargets | None) -> Tensor:
    """[N] values of one term, its factor T squared included."""
    if isinstance(term, CrossEntropy):
        return divergences.cross_entropy(torch.log_softmax(logits, -1), target_ids)
    assert targets is not None
    if isinstance(term, LogitMSE):
        return divergences.logit_mse(torch.log_softmax(targets.logits(), -1), torch.log_softmax(logits, -1))
    temperature = term.divergence_temperature
    log_q = torch.log_softmax(logits / temperature, -1)
    if isinstance(targets, Sampled):
        share = targets.counts.double() / targets.draws
        cross = -(share * log_q.double().gather(-1, targets.ids)).sum(-1)
        return term.scale * (cross - targets.entropy.double()).to(logits.dtype)
    if isinstance(targets, Kept):
        log_p, log_q = _outcomes(targets, log_q, temperature)
    else:
        log_p = torch.log_softmax(targets.logits() / temperature, -1)
    return term.scale * _divergence(term, log_p, log_q)


def _divergence(term: Divergence, p: Tensor, q: Tensor) -> Tensor:
    match term:
        case ForwardKL():
            return divergences.forward_kl(p, q)
        case ReverseKL():
            return divergences.reverse_kl(p, q)
        case JensenShannon():
            return divergences.jensen_shannon(p, q, term.teacher_weight, term.normalised)
        case SkewForwardKL():
            return divergences.skew_forward_kl(p, q, term.teacher_share)
        case SkewReverseKL():
            return divergences.skew_reverse_kl(p, q, term.student_share)
    return divergences.total_variation(p, q)


def _outcomes(targets: Kept, log_q: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Log-probs of both over what was kept and the rest, a position at a time: [N, K + 1], padded with -inf.

    Renormalised targets are not lumped together here: their teacher is -inf on all V.
    """
    teacher, student = [], []
    for i in range(len(log_q)):
        there = targets.valid[i]
        ids, p = targets.ids[i][there], targets.log_probs[i][there].to(log_q.dtype)
        if targets.missing == "renormalised":
            whole = torch.full_like(log_q[i].detach(), -torch.inf)
            whole[ids] = torch.log_softmax(p * targets.temperature / temperature, -1)
            teacher.append(whole)
            student.append(log_q[i])
            continue
        others = torch.ones_like(log_q[i].detach(), dtype=torch.bool)
        others[ids] = False
        padding = log_q.new_full((int((~there).sum()),), -torch.inf)
        few = torch.log_softmax(torch.cat([p, targets.tail_mass[i : i + 1].to(p.dtype).log()]), -1)
        teacher.append(torch.cat([few, padding]))
        student.append(torch.cat([log_q[i][ids], torch.logsumexp(log_q[i][others], -1)[None], padding]))
    return torch.stack(teacher), torch.stack(student)


def _said(term: AnyTerm, targets: TeacherTargets | None) -> Tensor | float:
    """Token weights that the teacher's entropy decides."""
    rule = term.token_weighting
    if rule is None or rule.kind != "teacher_entropy":
        return 1.0
    if isinstance(targets, Sampled):
        unsure = targets.entropy
    else:
        assert targets is not None and not isinstance(targets, Kept)
        unsure = divergences.entropy(torch.log_softmax(targets.logits(), -1))
    share = unsure / (unsure + rule.half_at_nats)
    return share if rule.favours == "high" else 1 - share
