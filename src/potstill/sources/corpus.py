"""Which blocks of a corpus feed which step: every epoch visits each once, in an order that the seed decides."""

from __future__ import annotations

from potstill.data.corpus import Pieces
from potstill.records import DataPlan
from potstill.sources.base import Planned, permutation


class CorpusSource:
    """Blocks of one set. A function of (seed, step): a resumed run asks for the same step and gets the same tokens.

    `blocks` chooses so many of them, the same for every seed (`subset_seed` says which): runs of
    several seeds then see the same text in different order, and share what a teacher says of it.
    """

    def __init__(
        self, pieces: Pieces, seed: int, batch_blocks: int, blocks: int | None = None, subset_seed: int | None = None
    ):
        self.pieces, self.seed, self.batch_blocks = pieces, seed, batch_blocks
        order = permutation(0 if subset_seed is None else subset_seed, "corpus blocks", 0, pieces.num_blocks)
        self.chosen = order if blocks is None else order[: min(blocks, pieces.num_blocks)]
        self.plans = [DataPlan(1, 0, {"corpus": 1.0}, 1, len(self.chosen), "a corpus")]
        self._epoch = (-1, self.chosen)

    def blocks(self, step: int) -> list[int]:
        """The blocks of a step, counted from 0, all processes together."""
        places = range(step * self.batch_blocks, (step + 1) * self.batch_blocks)
        return [self._at(place) for place in places]

    def planned(self, step: int) -> list[Planned]:
        """The pieces of a step's blocks."""
        return [Planned("corpus", piece) for block in self.blocks(step) for piece in self.pieces.of_block(block)]

    def epoch(self, step: int) -> float:
        """Passes over the chosen blocks before `step`."""
        return step * self.batch_blocks / len(self.chosen)

    def replan(self, plan: DataPlan) -> None:
        """Raises ValueError: a corpus is all that there is."""
        raise ValueError("a pretraining run is fed by its corpus alone; its data plan cannot change")

    def _at(self, place: int) -> int:
        epoch, within = divmod(place, len(self.chosen))
        if self._epoch[0] != epoch:
            self._epoch = (epoch, self.chosen[permutation(self.seed, "corpus", epoch, len(self.chosen))])
        return int(self._epoch[1][within])
