"""The teacher as a source of targets for training rows.

Offline rows do not change, so what the teacher says about them does not either:
its last hidden states are computed once and kept (width D, not V, a token), and
every later epoch costs no teacher pass. They are computed in groups of rows that
depend on the rows alone, never on the batch that happened to ask first, so that a
resumed run sees the very same numbers. When they do not fit into the memory
allowed, the teacher runs at every step instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from potstill.batch import TokenBatch
from potstill.data.collate import Layout, Row, collate
from potstill.models.scored import ScoredModel
from potstill.models.vocabulary import Alignment
from potstill.targets import TeacherTargets

GROUP_ROWS = 16


class LocalTeacher:
    """A frozen model in this process that says what it thinks of rows."""

    def __init__(
        self,
        scored: ScoredModel,
        rows: Sequence[Row],
        layout: Layout,
        alignment: Alignment,
        fingerprint: str,
        keep_mb: float,
        device: torch.device,
    ):
        self.scored, self.rows, self.layout, self.device = scored, rows, layout, device
        self.alignment, self.fingerprint = alignment, fingerprint
        weight = scored.model.get_output_embeddings().weight
        needed = sum(r.num_counted for r in rows) * weight.shape[1] * weight.element_size()
        self.keeps = needed <= keep_mb * 2**20
        order = sorted(range(len(rows)), key=lambda i: (rows[i].num_tokens, i))
        groups = [order[i : i + GROUP_ROWS] for i in range(0, len(order), GROUP_ROWS)]
        self._group_of = {row: group for group in groups for row in group}
        self._kept: dict[int, Tensor] = {}

    def prepare(self, on_group: Callable[[int, int], None]) -> None:
        """Compute all that will be kept; `on_group(rows, tokens)` is told of each group."""
        groups = {id(group): group for group in self._group_of.values()} if self.keeps else {}
        for group in groups.values():
            self._compute(group)
            on_group(len(group), sum(self.rows[i].num_tokens for i in group))

    def targets(self, row_ids: Sequence[int], batch: TokenBatch) -> TeacherTargets:
        """What the teacher says about the counted positions of `batch`, whose rows are `row_ids`."""
        if not self.keeps:
            return self.scored.targets(batch, self.alignment, self.fingerprint)
        for row in row_ids:
            if row not in self._kept:
                self._compute(self._group_of[row])
        hidden = torch.cat([self._kept[row] for row in row_ids]).to(self.device)
        return self.scored.as_targets(hidden, self.alignment, self.fingerprint)

    @torch.no_grad()
    def _compute(self, group: Sequence[int]) -> None:
        batch = collate([self.rows[i] for i in group], self.layout).to(self.device)
        hidden = self.scored.hidden(batch).cpu()
        parts = hidden.split(batch.counted.sum(1).tolist())
        self._kept.update(zip(group, parts, strict=True))
