"""Per-token losses as pure functions of log-probabilities: the reference and the metric.

No masks, no reductions, no temperatures in here: in go fp32 (or fp64) log-probs,
out comes one number a token, in nats. Everything faster is tested against these.
"""

from __future__ import annotations

import torch
from torch import Tensor


def cross_entropy(student: Tensor, target_ids: Tensor) -> Tensor:
    """-log q(target): [N, V] log-probs, [N] ids -> [N] nats."""
    return -student.gather(-1, target_ids[:, None]).squeeze(-1)


def forward_kl(teacher: Tensor, student: Tensor) -> Tensor:
    """KL(p || q) = sum_v p_v (log p_v - log q_v): two [N, V] log-probs -> [N] nats.

    Exactly 0 where both are the same tensor. Columns to which the teacher gives no
    probability (-inf) add nothing, whatever the student says there. The student
    giving none where the teacher gives some is infinite, as it should be.
    The teacher's entropy is included: what has a floor above 0 is a cross-entropy.
    """
    gap = teacher - student
    if torch.isneginf(teacher.amin()):  # only where vocabularies are padded; masking costs two passes
        gap = gap.masked_fill(torch.isneginf(teacher), 0)
    return (teacher.exp() * gap).sum(-1)
