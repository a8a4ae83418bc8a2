"""The teacher's targets as its server told them with each completion: the likeliest tokens, and a tail.

Nothing is asked of any model: what a served teacher said of its own tokens is all that
is known of it, so that every row must be a completion that came with log-probs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from potstill.batch import TokenBatch
from potstill.config.terms import AnyTerm
from potstill.data.served_targets import kept_targets
from potstill.losses.sparse import refuse_undefined
from potstill.records import Completion
from potstill.targets import Kept


class ServedTeacher:
    """Hands out what came with the completions; stands where a `LocalTeacher` stands."""

    def __init__(
        self, completions: Mapping[int, Completion], unchanging: Sequence[int], width: int, terms: Sequence[AnyTerm]
    ):
        """`completions` by row; `width` is the number of the student's columns.

        Raises ValueError: a row without a completion or without served log-probs, a term that cannot be
        computed from a few entries and a tail.
        """
        bare = [i for i in unchanging if i not in completions or completions[i].logprobs is None]
        if bare:
            raise ValueError(
                f"training.teacher_targets: served takes the teacher's word from the completions, and {len(bare)} of "
                f"{len(unchanging)} rows came without log-probs (references have none). Feed only rows of a store that "
                "was generated with generator.top_logprobs, or use a teacher in this process."
            )
        self.completions, self.width = completions, width
        everything = kept_targets([completions[i] for i in unchanging], "", width)  # find what does not fit now
        for term in terms:
            refuse_undefined(term, everything)

    def prepare(self, on_group: Callable[[int, int], None]) -> None:
        """Nothing to prepare."""

    def has_all(self, row_ids: Iterable[int], streams: Iterable[str]) -> bool:
        """Nothing is ever asked of the model."""
        return True

    def targets(self, row_ids: Sequence[int], batch: TokenBatch) -> Kept:
        """What was served about the rows' tokens, in order, on the device of `batch`."""
        chosen = [self.completions[i] for i in row_ids]
        return kept_targets(chosen, chosen[0].history.generator, self.width).to(batch.input_ids.device)
