"""From per-token values to what an evaluation keeps: sums and counts per row.

A sequence-level divergence is the expectation over samples of its per-token
divergences' sum (chain rule), so the rows of a sample drawn at temperature 1 give
forward KL between whole-sequence laws without bias, with the vocabulary summed out
at every position (Rao-Blackwell: same expectation as the log-ratio, less noise).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from potstill.batch import TokenBatch
from potstill.records import Measured


def row_sums(values: Tensor, batch: TokenBatch) -> Tensor:
    """[N] per-token values -> [B] fp64 sums, row by row."""
    sums = torch.zeros(len(batch.provenance), dtype=torch.float64, device=values.device)
    return sums.index_add_(0, batch.row_of_counted, values.double())


def row_counts(batch: TokenBatch) -> Tensor:
    """[B] counted tokens of each row."""
    return batch.counted.sum(1)


def measured(prompt_ids: Sequence[str], sums: Sequence[float], tokens: Sequence[int]) -> Measured:
    """A series for an EvaluationRecord."""
    return Measured(
        np.array(prompt_ids, dtype=np.str_),
        np.array(sums, dtype=np.float64),
        np.array(tokens, dtype=np.int64),
    )
