"""What one forward pass is fed, and what the teacher says about it.

Everything is aligned with outputs: the model's output at position t predicts
`target_ids[t]`, and `counted[t]` says whether that prediction counts. The one
shift that this takes is in `data/collate.py`; nothing downstream moves anything.

Letters: B rows, T positions, N counted positions, V vocabulary, D hidden width.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor

from potstill.targets import TeacherTargets


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
