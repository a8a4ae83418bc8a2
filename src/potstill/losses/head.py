"""From hidden states to weighted sums, a chunk of positions at a time.

The student's logits over N positions would be N x V numbers, gigabytes where the
hidden states are megabytes. Here a chunk's logits live only while its losses are
computed, and are computed once more in the backward pass (activation
checkpointing), so that memory is bounded by the chunk. This is the reference that
faster heads are measured against.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from potstill.batch import TeacherTargets
from potstill.losses.objective import Objective


@dataclass(frozen=True)
class Head:
    """A language-model head and all that its model does to the logits."""

    weight: Tensor  # [V, D]
    bias: Tensor | None = None  # [V]
    hidden_scale: float = 1.0  # multiplies hidden states (T5 with tied embeddings)
    logit_scale: float = 1.0  # multiplies logits (Cohere; Granite divides)
    soft_cap: float | None = None  # logits -> cap * tanh(logits / cap) (Gemma)

    def project(self, hidden: Tensor) -> Tensor:
        """[n, D] -> fp32 logits [n, V]."""
        if self.hidden_scale != 1.0:
            hidden = hidden * self.hidden_scale
        logits = functional.linear(hidden.to(self.weight.dtype), self.weight, self.bias).float()
        if self.logit_scale != 1.0:
            logits = logits * self.logit_scale
        if self.soft_cap is not None:
            logits = torch.tanh(logits / self.soft_cap) * self.soft_cap
        return logits


def weighted_sums(
    hidden: Tensor,
    head: Head,
    target_ids: Tensor,
    token_weights: dict[str, Tensor],
    targets: TeacherTargets | None,
    objective: Objective,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Undivided, differentiable sums and detached per-token values, per term.

    hidden [N, D], target_ids [N], token_weights term -> [N] fp32. Returns
    (term -> scalar sum of weight times value, term -> [N] values without weights).
    """
    names = list(token_weights)
    sums = {name: hidden.new_zeros((), dtype=torch.float32) for name in names}
    values: dict[str, list[Tensor]] = {name: [] for name in names}
    for start in range(0, len(hidden), objective.config.chunk_positions):
        stop = min(start + objective.config.chunk_positions, len(hidden))

        def chunk(rows: Tensor, start: int = start, stop: int = stop) -> tuple[Tensor, ...]:
            per_token = objective.values(head.project(rows), target_ids[start:stop], targets, start, stop)
            return tuple(per_token[name] for name in names)

        rows = hidden[start:stop]
        if torch.is_grad_enabled():
            results = checkpoint(chunk, rows, use_reentrant=False, preserve_rng_state=False)
        else:
            results = chunk(rows)
        said_by_teacher = objective.teacher_weights(targets, start, stop)
        for name, value in zip(names, results, strict=True):
            weight = token_weights[name][start:stop]
            if name in said_by_teacher:
                weight = weight * said_by_teacher[name]
            sums[name] = sums[name] + (value * weight).sum()
            values[name].append(value.detach())
    # An empty share (no counted position on this process) must still reach every parameter.
    if len(hidden) == 0:
        nothing = hidden.float().sum() + 0 * head.weight.float().sum()
        sums = {name: value + nothing for name, value in sums.items()}
    return sums, {name: torch.cat(v) if v else hidden.new_zeros(0) for name, v in values.items()}
