"""The truth of a tiny lab: a small language model trained on a corpus, plainly.

It need not be good. Whatever it says is true by definition, and all others are measured
against it. It ends a text where the corpus ends a document.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from potstill.config.lab import OracleTraining
from potstill.sources.base import keyed


def train_on_text(model: nn.Module, ids: np.ndarray, how: OracleTraining, seed: int) -> list[float]:
    """Train on random windows of `ids` [tokens]; the rate falls along half a cosine. Returns nats per token."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=how.learning_rate, betas=(0.9, 0.95), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, how.steps, how.learning_rate * 0.05)
    data = torch.from_numpy(ids.astype(np.int64))
    losses = []
    model.train()
    for step in range(how.steps):
        starts = keyed(seed, "oracle window", step).integers(0, len(ids) - how.window_tokens - 1, how.batch_rows)
        rows = torch.stack([data[s : s + how.window_tokens + 1] for s in starts.tolist()])
        logits = model(input_ids=rows[:, :-1]).logits
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad(set_to_none=True)
        losses.append(loss.item())
    model.eval()
    return losses
