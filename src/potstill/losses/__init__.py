"""The losses: functions of two models' log-probabilities, and the objective that sums them.

    value = losses.reverse_kl(teacher_log_probs, student_log_probs)   # [N, V], [N, V] -> [N] nats

`Objective` is what training uses: it adds weights, temperatures and the rows that a
term is for.
"""

from potstill.losses.divergences import (
    cross_entropy,
    entropy,
    forward_kl,
    jensen_shannon,
    logit_mse,
    reverse_kl,
    skew_forward_kl,
    skew_reverse_kl,
    total_variation,
)
from potstill.losses.objective import Objective

__all__ = [
    "Objective",
    "cross_entropy",
    "entropy",
    "forward_kl",
    "jensen_shannon",
    "logit_mse",
    "reverse_kl",
    "skew_forward_kl",
    "skew_reverse_kl",
    "total_variation",
]
