"""How far the laws of two models over whole completions are apart, estimated from samples of one of them.

All of it is about completions that model a wrote at temperature 1 over its whole vocabulary,
and what a ("own") and another model b ("other") say about their tokens. The first three
estimate KL(a || b), the last one half of the Jensen-Shannon divergence:

    exact steps   sum_t KL(a(. | y_<t) || b(. | y_<t))     the least noise; needs both whole distributions
    k1            sum_t log a(y_t) - log b(y_t)            needs the observed tokens alone; may be negative
    k3            exp(r) - 1 - r, r = log b(y) - log a(y)  never negative; of whole completions, or token by token
    mixture       log a(y) - log((a(y) + b(y)) / 2)        never above log 2

Each has the right expectation, exactly (tests/test_sequence_metrics.py enumerates every
completion of small models). The first is the second with each step's token summed out
(chain rule and Rao-Blackwell). k1, k2 and k3 are Schulman's names (Approximating KL
Divergence, 2020, joschu.net/blog/kl-approx.html).

A completion that is cut after so many tokens belongs to the law of cut completions: it has
no end token, so nothing is added for one, and the sums over its tokens are exact for that
law. Two models are compared under one cut.

Log-probs are in nats; values are nats per completion unless they say per token.
"""

from __future__ import annotations

import torch
from torch import Tensor


def k1(own: Tensor, other: Tensor) -> Tensor:
    """log a(y) - log b(y): the log-probs of whole completions, [R] each -> [R] nats.

    Unbiased for KL(a || b). Single values may be negative, and so may their mean.
    """
    return own - other


def k3(own: Tensor, other: Tensor) -> Tensor:
    """exp(r) - 1 - r with r = log b(y) - log a(y): log-probs [R] each -> [R] nats, at least 0.

    Unbiased for KL(a || b) where b gives nothing to what a excludes: then exp(r) has
    expectation 1. It is less noisy than k1 where the models are near each other. Of whole
    completions its variance explodes: exp(r) is the ratio of two products over all tokens, its
    mean of 1 comes from completions that are hardly ever drawn, and most samples are too low.
    Token by token ([N] log-probs -> [N], to be summed over a completion) it is unbiased for
    the same number, since every step's conditional expectation is that step's KL.
    """
    ratio = other - own
    return torch.expm1(ratio) - ratio


def mixture_term(own: Tensor, other: Tensor) -> Tensor:
    """log a(y) - log((a(y) + b(y)) / 2): log-probs of whole completions, [R] each -> [R] nats, at most log 2.

    The mean over a's completions and the mean over b's (with the roles swapped), averaged, is
    the Jensen-Shannon divergence between the laws of whole completions (Tiapkin et al. 2025,
    arXiv:2502.02671), between 0 and log 2 in expectation. It is no sum over tokens: the
    mixture draws one of the models for a whole completion, and the Jensen-Shannon divergences
    of single tokens, summed, are another number. Exactly 0 where both log-probs are equal.
    """
    ratio = other - own
    # log((1 + exp(r)) / 2), relative to the larger of both: nothing overflows, and r = 0 gives 0.
    return -(ratio.clamp(min=0) + torch.log1p(0.5 * torch.expm1(-ratio.abs())))
