"""The teacher as a source of targets for training rows.

Offline rows do not change, so what the teacher says about them does not either:
its last hidden states are computed once and kept (width D, not V, a token), and
every later epoch costs no teacher pass. They are computed in groups of rows that
depend on the rows alone, never on the batch that happened to ask first, so that a
resumed run sees the very same numbers. When they do not fit into the memory
allowed, the teacher runs at every step instead, as it does for fresh rows.

Where the teacher was shown another prompt than the student is (prompt erasure, Orca 2),
it judges the answer after the prompt that it was shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from potstill.batch import TokenBatch
from potstill.data.collate import Layout, Row, collate
from potstill.models.scored import ScoredModel
from potstill.models.vocabulary import Alignment
from potstill.targets import TeacherTargets

GROUP_ROWS = 16


class Teacher(Protocol):
    """Whoever has the teacher's targets."""

    def targets(self, row_ids: Sequence[int], batch: TokenBatch) -> TeacherTargets:
        """What the teacher says about the counted positions of `batch`, whose rows are `row_ids`, in order."""
        ...


class LocalTeacher:
    """A frozen model in this process that says what it thinks of rows."""

    def __init__(
        self,
        scored: ScoredModel,
        rows: Mapping[int, Row] | Sequence[Row],
        layout: Layout,
        alignment: Alignment,
        fingerprint: str,
        keep_mb: float,
        device: torch.device,
        unchanging: Sequence[int] = (),
    ):
        self.scored, self.rows, self.layout, self.device = scored, rows, layout, device
        self.alignment, self.fingerprint = alignment, fingerprint
        self.keep_bytes = keep_mb * 2**20
        self._group_of: dict[int, list[int]] = {}
        self._kept: dict[int, Tensor] = {}
        self.keep(unchanging)

    def keep(self, row_ids: Sequence[int]) -> bool:
        """Have these rows' states computed once, where all that is kept fits into memory; says whether it does."""
        weight = self.scored.model.get_output_embeddings().weight
        width = weight.shape[1] * weight.element_size()
        new = [i for i in row_ids if i not in self._group_of]
        counted = sum(self.rows[i].num_counted for i in [*self._group_of, *new])
        if counted * width > self.keep_bytes:
            return False
        order = sorted(new, key=lambda i: (self.rows[i].num_tokens, i))
        groups = [order[i : i + GROUP_ROWS] for i in range(0, len(order), GROUP_ROWS)]
        self._group_of |= {row: group for group in groups for row in group}
        return True

    def prepare(self, on_group: Callable[[int, int], None]) -> None:
        """Compute all that will be kept; `on_group(rows, tokens)` is told of each group."""
        for group in {id(group): group for group in self._group_of.values()}.values():
            if group[0] not in self._kept:
                self._kept |= self._compute(group)
                on_group(len(group), sum(self.rows[i].num_tokens for i in group))

    def has_all(self, row_ids: Iterable[int], streams: Iterable[str]) -> bool:
        """Whether nothing more will be asked of the model: these rows are kept, and `streams` bring no others."""
        return not {"online_teacher", "online_student", "replay"} & set(streams) and all(
            i in self._kept for i in row_ids
        )

    def targets(self, row_ids: Sequence[int], batch: TokenBatch) -> TeacherTargets:
        """From what is kept, and from the teacher itself for all other rows."""
        for row in row_ids:
            if row in self._group_of and row not in self._kept:
                self._kept |= self._compute(self._group_of[row])
        others = [row for row in dict.fromkeys(row_ids) if row not in self._kept]
        fresh = self._compute(others) if others else {}
        hidden = torch.cat([(self._kept[i] if i in self._kept else fresh[i]).to(self.device) for i in row_ids])
        return self.scored.as_targets(hidden, self.alignment, self.fingerprint)

    @torch.no_grad()
    def _compute(self, group: Sequence[int]) -> dict[int, Tensor]:
        """[N of the row, D] states by row, on the CPU."""
        rows = [self.rows[i].as_teacher_saw_it for i in group]
        batch = collate(rows, self.layout).to(self.device)
        hidden = self.scored.hidden(batch).cpu()
        return dict(zip(group, hidden.split(batch.counted.sum(1).tolist()), strict=True))
