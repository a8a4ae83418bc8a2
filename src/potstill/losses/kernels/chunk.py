"""What every back end is handed: a chunk of logits, what the teacher says of it, and the terms."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from potstill.config.terms import AnyTerm
from potstill.head import Head
from potstill.targets import Dense, Kept, Projected, Sampled

Said = Dense | Projected | Kept | Sampled | None


@dataclass(frozen=True)
class Chunk:
    """n positions on their way through the head."""

    raw: Tensor  # [n, V] the student's raw logits; a back end may leave the gradient with respect to them here
    head: Head  # the student's, for what it does to raw logits
    said: Said
    excludes: bool  # whether the teacher gives some columns nothing
    target_ids: Tensor  # [n]
    terms: tuple[AnyTerm, ...]
    term_weights: tuple[float, ...]
    token_weights: Tensor  # [terms, n]

    def rows(self, start: int, stop: int) -> Chunk:
        """Some of its positions; `raw` stays the same memory."""
        part = slice(start, stop)
        said = None if self.said is None else self.said.rows(start, stop)
        return Chunk(
            self.raw[part], self.head, said, self.excludes, self.target_ids[part],
            self.terms, self.term_weights, self.token_weights[:, part],
        )  # fmt: skip
