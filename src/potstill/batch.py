"""What one forward pass is fed, and what the teacher says about it.

Everything is aligned with outputs: the model's output at position t predicts
`target_ids[t]`, and `counted[t]` says whether that prediction counts. The one
shift that this takes is in `data/collate.py`; nothing downstream moves anything.

Letters: B rows, T positions, N counted positions, V vocabulary, D hidden width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any, Protocol

import torch
from torch import Tensor


class TeacherTargets(Protocol):
    """What the teacher says about the N counted positions, row by row."""

    @property
    def fingerprint(self) -> str:
        """Of the model that said it."""
        ...

    def log_probs(self, start: int, stop: int, temperature: float) -> Tensor:
        """fp32 [stop - start, V] over the student's columns, softmax at `temperature`."""
        ...

    def to(self, device: torch.device) -> TeacherTargets: ...


@dataclass(frozen=True)
class Dense:
    """Whole distributions: small vocabularies, ensembles, tests."""

    values: Tensor  # [N, V] log-probs at temperature 1
    fingerprint: str

    def log_probs(self, start: int, stop: int, temperature: float) -> Tensor:
        part = self.values[start:stop].float()
        # softmax(log p / T) is softmax(z / T): log-probs are logits up to a constant.
        return part if temperature == 1 else torch.log_softmax(part / temperature, dim=-1)

    def to(self, device: torch.device) -> Dense:
        return replace(self, values=self.values.to(device))


@dataclass(frozen=True)
class FinalHidden:
    """The teacher's last hidden states and its head: V/D times smaller than its distributions."""

    hidden: Tensor  # [N, D of the teacher]
    project: Callable[[Tensor], Tensor]  # [n, D] -> fp32 logits [n, V], on the student's columns
    fingerprint: str

    def log_probs(self, start: int, stop: int, temperature: float) -> Tensor:
        with torch.no_grad():
            return torch.log_softmax(self.project(self.hidden[start:stop]) / temperature, dim=-1)

    def to(self, device: torch.device) -> FinalHidden:
        return replace(self, hidden=self.hidden.to(device))


@dataclass
class TokenBatch:
    """Some rows, padded to one length. Encoder-decoders also have `encoder_ids` and `encoder_mask`."""

    input_ids: Tensor  # [B, T] int64, what the decoder reads
    attention_mask: Tensor  # [B, T] int64, 1 where there is a token
    target_ids: Tensor  # [B, T] int64, what output t predicts; 0 where nothing counts
    counted: Tensor  # [B, T] bool
    provenance: tuple[str, ...]  # [B] who wrote each row
    prompt_ids: tuple[str, ...]  # [B]
    encoder_ids: Tensor | None = None  # [B, S]
    encoder_mask: Tensor | None = None  # [B, S]
    in_trace: Tensor | None = None  # [B, T] bool, targets that belong to a reasoning trace
    token_weights: dict[str, Tensor] = field(default_factory=dict)  # term -> [B, T] fp32
    targets: TeacherTargets | None = None

    @property
    def num_counted(self) -> int:
        """N."""
        return int(self.counted.sum())

    @property
    def num_tokens(self) -> int:
        """Tokens read, encoder's included, padding not."""
        encoder = 0 if self.encoder_mask is None else int(self.encoder_mask.sum())
        return int(self.attention_mask.sum()) + encoder

    @property
    def row_of_counted(self) -> Tensor:
        """[N] which row each counted position belongs to."""
        return self.counted.nonzero()[:, 0]

    def to(self, device: torch.device) -> TokenBatch:
        moved: dict[str, Any] = {}
        for spec in fields(self):
            value = getattr(self, spec.name)
            if isinstance(value, Tensor):
                moved[spec.name] = value.to(device)
        weights = {name: value.to(device) for name, value in self.token_weights.items()}
        targets = None if self.targets is None else self.targets.to(device)
        return replace(self, **moved, token_weights=weights, targets=targets)
