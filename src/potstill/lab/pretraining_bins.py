"""Where in the text a student gains: at tokens that were hard for its twin, and by how much came before.

Lu and Liu 2026 found gains at the hard tokens. Difficulty is the twin's own entropy at a
token, so it is known before the token is; bins hold as many tokens each.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from potstill.config.pretraining import PretrainingLab
from potstill.lab.pretraining_reading import Cell, Made
from potstill.lab.stats import paired

Place = Callable[[Made], tuple[np.ndarray, np.ndarray]]  # of a twin: [N] bin of each token, [bins + 1] edges


def bins_of(lab: PretrainingLab, cell: Cell) -> list[dict[str, Any]]:
    """Student minus twin on the held-out set, nats per token, by difficulty and by position."""
    measuring = lab.measuring
    return [
        _binned(cell, "difficulty", lambda twin: by_difficulty(twin, measuring.difficulty_bins)),
        _binned(cell, "position", lambda twin: by_position(twin, lab.block_tokens, measuring.position_bins)),
    ]


def by_difficulty(twin: Made, bins: int) -> tuple[np.ndarray, np.ndarray]:
    entropy = twin.tokens["held_out/entropy"]
    edges = np.quantile(entropy, np.linspace(0, 1, bins + 1))
    return np.clip(np.searchsorted(edges, entropy, side="right") - 1, 0, bins - 1), edges


def by_position(twin: Made, block_tokens: int, bins: int) -> tuple[np.ndarray, np.ndarray]:
    position = twin.tokens["held_out/position"]
    edges = np.linspace(0, block_tokens, bins + 1)
    return np.clip(np.searchsorted(edges, position, side="left") - 1, 0, bins - 1), edges


def _binned(cell: Cell, by: str, place: Place) -> dict[str, Any]:
    rows, edges = [], []
    for student, twin in cell.pairs:
        where, found = place(twin)
        change = student.tokens["held_out/nats"] - twin.tokens["held_out/nats"]
        counts = np.bincount(where, minlength=len(found) - 1)
        sums = np.bincount(where, change, minlength=len(found) - 1)
        rows.append(np.where(counts > 0, sums / np.maximum(1, counts), np.nan))
        edges.append(found)
    # A bin that some seed has no token in says nothing: more bins than positions, or equal entropies.
    empty: list[float | None] = [None] * 3
    ends = [paired(c.tolist()).as_list() if np.isfinite(c).all() else empty for c in np.array(rows).T]
    return {
        "size": cell.size,
        "teacher": {"id": cell.teacher.id, "size": cell.teacher.model.size, "tokens": cell.teacher.model.tokens},
        "weight": cell.weight,
        "variant": cell.variant,
        "by": by,
        "edges": np.mean(edges, axis=0).round(4).tolist(),
        "mean": [mean for mean, _, _ in ends],
        "low": [low for _, low, _ in ends],
        "high": [high for _, _, high in ends],
    }
