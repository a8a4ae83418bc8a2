"""What a model makes of running text, token by token: the negative log-likelihood of each, and how unsure it was.

Blocks are cut as in training, every token is predicted once, and all models of a vocabulary
are measured on the same tokens in the same order: two of them can be compared token by token.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from potstill.data.collate import Layout, collate
from potstill.data.corpus import Pieces
from potstill.models.scored import ScoredModel

#: Positions whose whole distributions are there at once.
WHOLE_POSITIONS = 2048


@dataclass(frozen=True)
class TokenScores:
    """Of the N predicted tokens of a set, in order."""

    nats: np.ndarray  # [N] float32, -log q(token)
    entropy: np.ndarray  # [N] float32, nats, of the model's own distribution
    block: np.ndarray  # [N] int32, which block each lies in
    position: np.ndarray  # [N] int32, tokens before it that the model could see

    @property
    def nats_per_token(self) -> float:
        return float(self.nats.mean(dtype=np.float64))

    @property
    def perplexity(self) -> float:
        """exp of the mean over tokens; depends on the tokenizer."""
        return math.exp(self.nats_per_token)


@torch.no_grad()
def score_text(model: ScoredModel, pieces: Pieces, pad_id: int, batch_blocks: int, device: torch.device) -> TokenScores:
    """Score all blocks of a set, `batch_blocks` at a time (a bf16 model moves in the last digits when that changes)."""
    model.eval()
    nats, entropies, blocks, positions = [], [], [], []
    for first in range(0, pieces.num_blocks, batch_blocks):
        numbers = range(first, min(first + batch_blocks, pieces.num_blocks))
        found = [(block, pieces[piece]) for block in numbers for piece in pieces.of_block(block)]
        if not found:
            continue
        batch = collate([row for _, row in found], Layout(pad_id)).to(device)
        hidden, targets = model.hidden(batch), batch.target_ids[batch.counted]
        for at in range(0, len(hidden), WHOLE_POSITIONS):
            part = slice(at, at + WHOLE_POSITIONS)
            log_q = torch.log_softmax(model.head().project(hidden[part]).float(), -1)
            nats.append(-log_q.gather(-1, targets[part][:, None])[:, 0].cpu().numpy())
            entropies.append(-(log_q.exp() * log_q).sum(-1).cpu().numpy())
        lengths = [row.num_counted for _, row in found]
        blocks.append(np.repeat([block for block, _ in found], lengths))
        positions.append(np.concatenate([np.arange(1, length + 1) for length in lengths]))
    return TokenScores(
        np.concatenate(nats).astype(np.float32),
        np.concatenate(entropies).astype(np.float32),
        np.concatenate(blocks).astype(np.int32),
        np.concatenate(positions).astype(np.int32),
    )
