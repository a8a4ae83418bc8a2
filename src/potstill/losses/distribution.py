"""A softmax with all that the losses need of it, in as few passes over the memory as possible.

Not torch's own softmax: on a CPU its exponential is good to 20 units in the last
place only, and it keeps the normaliser to itself.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Distribution(NamedTuple):
    """Softmax of logits / T; n positions, V tokens."""

    logits: Tensor  # [n, V], not divided by T
    temperature: float
    p: Tensor  # [n, V]
    log_sum: Tensor  # [n, 1] log of the sum of exponentials of logits / T

    def log_p(self, ids: Tensor) -> Tensor:
        """[n, K] log-probs of some tokens, ids [n, K]."""
        return self.logits.gather(-1, ids) / self.temperature - self.log_sum


def distribution(logits: Tensor, temperature: float, out: Tensor | None = None) -> Distribution:
    """logits [n, V] in fp32 or wider; probabilities are written to `out` [n, V] if given."""
    largest = logits.amax(-1, keepdim=True)
    p = torch.sub(logits, largest, out=out)
    if temperature != 1:
        p /= temperature
    total = p.exp_().sum(-1, keepdim=True)
    p *= total.reciprocal()
    return Distribution(logits, temperature, p, largest / temperature + total.log())
