"""Sparse targets: what can be computed from a few entries of the teacher's distribution, and what cannot.

Kept entries cut the vocabulary into K + 1 outcomes, each kept token and "any other
token". The other tokens have the teacher's tail mass, or none when the kept entries
are renormalised; where a teacher gives nothing, an f-divergence is linear in the
student's probabilities, so that lumping them together changes neither value nor
gradient. On those K + 1 outcomes every divergence has the slope that it has on V,
and the slope of the tail is shared out among its tokens as the student shares its
probability.

Sampled entries are an unbiased estimate of what is linear in the teacher's
probabilities, and of nothing else: forward KL, with the teacher's exact entropy.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from potstill.config.terms import AnyTerm, Divergence
from potstill.losses.distribution import Distribution
from potstill.losses.slopes import EXCLUDED, slope
from potstill.targets import Kept, Sampled, TeacherTargets

_LINEAR = "draws are unbiased only for what is linear in the teacher's probabilities, and {kind} is not"
_INFINITE = "renormalised targets give no probability to what was not kept, so {kind} is infinite; keep a tail"
_LOGITS = "it compares logits token by token, and most of them are missing"
_ENTROPY = "the kept entries do not tell the entropy of the whole distribution; use sampled or whole targets"

#: Form of targets -> kind of term (or of token weighting) -> why it is not defined. All else is.
UNDEFINED: dict[str, dict[str, str]] = {
    "whole": {},
    "kept with a tail": {"logit_mse": _LOGITS, "teacher_entropy": _ENTROPY},
    "kept, renormalised": {"reverse_kl": _INFINITE, "logit_mse": _LOGITS, "teacher_entropy": _ENTROPY},
    "sampled": {
        **dict.fromkeys(
            ("reverse_kl", "jensen_shannon", "skew_forward_kl", "skew_reverse_kl", "total_variation"), _LINEAR
        ),
        "logit_mse": _LOGITS,
    },
}


def form(targets: TeacherTargets) -> str:
    """The key of `UNDEFINED` that these targets go by."""
    if isinstance(targets, Kept):
        return "kept with a tail" if targets.missing == "tail" else "kept, renormalised"
    return "sampled" if isinstance(targets, Sampled) else "whole"


def refuse_undefined(term: AnyTerm, targets: TeacherTargets) -> None:
    """Raise ValueError where `term` cannot be computed from these targets, with the reason."""
    name, rule = form(targets), term.token_weighting
    reason = UNDEFINED[name].get(term.kind)
    limit = _plain_limit(term)
    if reason is None and limit is not None:
        reason = UNDEFINED[name].get(limit)
    if term.compares_with_teacher and reason is not None:
        raise ValueError(f"{term.name} is not defined for targets that are {name}: {reason.format(kind=term.kind)}")
    if rule is not None and rule.kind == "teacher_entropy" and "teacher_entropy" in UNDEFINED[name]:
        raise ValueError(f"{term.name} weighs tokens by the teacher's entropy, and {_ENTROPY}")
    if not isinstance(targets, Kept | Sampled):
        return
    if rule is not None and rule.kind == "teacher_entropy" and targets.temperature != 1:
        raise ValueError(
            f"{term.name} weighs tokens by the teacher's entropy at temperature 1, and these targets were "
            f"drawn at {targets.temperature:g}"
        )
    movable = isinstance(targets, Kept) and targets.missing == "renormalised"
    if isinstance(term, Divergence) and term.divergence_temperature != targets.temperature and not movable:
        raise ValueError(
            f"{term.name} wants temperature {term.divergence_temperature:g}, and these targets were made at "
            f"{targets.temperature:g}: what lies outside them cannot be softened afterwards. Make them anew at "
            f"{term.divergence_temperature:g}, or set divergence_temperature: {targets.temperature:g}"
        )


def _plain_limit(term: AnyTerm) -> str | None:
    """The plain divergence that a parametrised one is at this setting."""
    return "reverse_kl" if term.kind != "reverse_kl" and term.needs_every_column and term.in_nats else None


class SparseSlope(NamedTuple):
    """Of one term at temperature T on sparse targets, or on the text; every part but the value is scaled.

    The slope of token v is `rest` times q_v, plus what `entries` add at `ids`; `total` is its sum.
    """

    value: Tensor  # [n]
    ids: Tensor  # [n, K]
    entries: Tensor  # [n, K]
    rest: Tensor  # [n]
    total: Tensor  # [n]


def sparse_slope(term: Divergence, targets: Kept | Sampled, student: Distribution, scaled: Tensor) -> SparseSlope:
    """Against the student's distribution at the term's temperature; `scaled` [n]."""
    if isinstance(targets, Sampled):
        share = targets.counts.to(student.p.dtype) / targets.draws
        value = -(share * student.log_p(targets.ids)).sum(-1) - targets.entropy
        return SparseSlope(value, targets.ids, -share * scaled[:, None], torch.zeros_like(value), -scaled)
    ids, log_p, few_log_q = outcomes(targets, student)
    found = slope(term, log_p.exp(), few_log_q.exp(), log_p - few_log_q, scaled)
    log_rest = few_log_q[:, -1]
    # Where everything was kept there is no rest; below exp(-80) its tokens underflow anyway.
    rest = torch.where(log_rest > EXCLUDED, found.slope[:, -1] * torch.exp((-log_rest).clamp(max=80)), 0)
    entries = found.slope[:, :-1] - rest[:, None] * student.p.gather(-1, ids)
    entries = torch.where(targets.valid, entries, 0)
    return SparseSlope(found.value, ids, entries, rest, found.total)


def text_slope(target_ids: Tensor, student: Distribution, scaled: Tensor) -> SparseSlope:
    """Of cross-entropy with the observed tokens, `target_ids` [n]; the student's distribution at temperature 1."""
    ids = target_ids[:, None]
    value = -student.log_p(ids)[:, 0]
    return SparseSlope(value, ids, -scaled[:, None], torch.zeros_like(value), -scaled)


def outcomes(targets: Kept, student: Distribution) -> tuple[Tensor, Tensor, Tensor]:
    """(ids [n, K], log p and log q [n, K + 1]), the tail last; empty entries have p = q = 0.

    The student's tail is summed over its tokens: one minus the kept ones would be
    rounding where little is left. The teacher's outcomes are made to sum to 1 exactly,
    which what was kept in few bits does not.
    """
    valid = targets.valid
    ids = torch.where(valid, targets.ids, targets.ids[:, :1])
    # EXCLUDED also where nothing is left: everything was kept.
    others = student.logits.scatter(-1, ids, -torch.inf) / student.temperature
    rest = (torch.logsumexp(others, -1, keepdim=True) - student.log_sum).clamp(min=EXCLUDED)
    few_log_q = torch.cat([torch.where(valid, student.log_p(ids), EXCLUDED), rest], -1)
    log_p = targets.log_probs.to(rest.dtype) * (targets.temperature / student.temperature)
    if targets.missing == "tail":
        tail = targets.tail_mass.to(rest.dtype).log()[:, None]
    else:
        tail = torch.full_like(rest, -torch.inf)
    log_p = torch.log_softmax(torch.cat([log_p, tail], -1), -1)
    return ids, log_p.clamp(min=EXCLUDED), few_log_q


def keep_top(
    log_probs: Tensor, entries: int, missing: str, fingerprint: str, observed: Tensor | None = None,
    temperature: float = 1.0,
) -> Kept:  # fmt: skip
    """The `entries` largest of each distribution [N, V] at `temperature`, and the `observed` tokens [N] if given."""
    top, ids = log_probs.topk(min(entries, log_probs.shape[-1]), dim=-1)
    if observed is not None:
        already = (ids == observed[:, None]).any(-1)
        extra = log_probs.gather(-1, observed[:, None]).masked_fill(already[:, None], -torch.inf)
        top, ids = torch.cat([top, extra], -1), torch.cat([ids, observed[:, None]], -1)
    tail = torch.logsumexp(log_probs.scatter(-1, ids, -torch.inf), -1).exp()
    return Kept(ids, top, tail, missing, fingerprint, temperature)  # type: ignore[arg-type]


def draw(log_probs: Tensor, uniforms: Tensor, fingerprint: str, temperature: float = 1.0) -> Sampled:
    """Draw from each distribution [N, V] at `temperature` with `uniforms` [N, draws] in [0, 1), with replacement.

    By the inverse of the cumulative distribution, in float64, so that the same numbers
    give the same tokens whatever else is in the batch.
    """
    p = log_probs.double().exp()
    cumulative = p.cumsum(-1)
    drawn = torch.searchsorted(cumulative, uniforms.double() * cumulative[:, -1:], right=True)
    drawn = drawn.clamp(max=log_probs.shape[-1] - 1).sort(-1).values
    first = torch.ones_like(drawn, dtype=torch.bool)
    first[:, 1:] = drawn[:, 1:] != drawn[:, :-1]
    place = first.cumsum(-1) - 1  # which different token of its row
    width = int(place.max()) + 1 if place.numel() else 0
    ids = drawn.new_zeros((len(drawn), width)).scatter_(-1, place, drawn)
    counts = torch.zeros_like(ids).scatter_add_(-1, place, torch.ones_like(drawn))
    entropy = -(p * log_probs.double().clamp(min=EXCLUDED)).sum(-1)
    return Sampled(ids, counts, uniforms.shape[-1], entropy.to(log_probs.dtype), fingerprint, temperature)
