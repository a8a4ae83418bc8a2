"""Teachers of corpus rows: their hidden states kept on disk for many students, cut to a few entries, or no teacher.

One teacher often has a dozen students (weights, seeds) who read the same blocks. What it
says of them does not change, so it is computed once; a student then pays for the teacher's
head alone. States are kept as they were computed: nothing is rounded or left out.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from potstill.batch import TokenBatch
from potstill.data.collate import Layout, collate
from potstill.data.corpus import CorpusError, Pieces
from potstill.head import Head
from potstill.losses.sparse import draw, keep_top
from potstill.models.scored import ScoredModel
from potstill.run_dir import write_atomic
from potstill.sources.base import keyed
from potstill.sources.corpus import CorpusSource
from potstill.targets import Dense, FinalHidden, Kept, Sampled
from potstill.teachers import Teacher

#: Blocks of one forward pass of the teacher, always the same ones: what is kept does not depend on who asks.
GROUP = 16


@torch.no_grad()
def keep_hidden(scored: ScoredModel, source: CorpusSource, layout: Layout, folder: Path, device: torch.device) -> Path:
    """Write the last hidden states of all counted positions of the source's blocks.

    `hidden.f32` [positions, D], block after block by number; `places.npy` [blocks, 2]: block, first position.
    What it takes: 4 D bytes a token.
    """
    folder.mkdir(parents=True, exist_ok=True)
    blocks = np.sort(source.chosen)
    places, written, width = np.zeros((len(blocks), 2), dtype=np.int64), 0, 0
    scored.eval()
    with open(folder / "hidden.f32", "wb") as handle:
        for at in range(0, len(blocks), GROUP):
            pieces = [(b, source.pieces.of_block(int(b))) for b in blocks[at : at + GROUP]]
            rows = [source.pieces[p] for _, found in pieces for p in found]
            hidden = scored.hidden(collate(rows, layout).to(device)).float().cpu().numpy()
            width = hidden.shape[1]
            hidden.astype("<f4").tofile(handle)
            for i, (block, found) in enumerate(pieces):
                places[at + i] = block, written
                written += sum(source.pieces[p].num_counted for p in found)
    np.save(folder / "places.npy", places)
    write_atomic(folder / "hidden.json", json.dumps({"positions": written, "width": width}).encode())
    return folder


class KeptHidden:
    """A teacher whose hidden states were kept; only its head is at work."""

    def __init__(self, folder: Path, head: Head, fingerprint: str, pieces: Pieces, device: torch.device):
        facts = json.loads((folder / "hidden.json").read_text())
        expected = facts["positions"] * facts["width"] * 4
        found = (folder / "hidden.f32").stat().st_size
        if found != expected:
            raise CorpusError(f"{folder}/hidden.f32 has {found:,} bytes, expected {expected:,}: remove the folder")
        self.hidden = np.memmap(
            folder / "hidden.f32", dtype="<f4", mode="r", shape=(facts["positions"], facts["width"])
        )
        self.head, self.fingerprint, self.pieces, self.device = head, fingerprint, pieces, device
        self.place = {int(block): int(first) for block, first in np.load(folder / "places.npy")}

    def targets(self, row_ids: Sequence[int], batch: TokenBatch) -> FinalHidden:
        """Raises CorpusError for a row of a block that was not kept."""
        parts = [self._of_piece(piece) for piece in row_ids]
        hidden = torch.from_numpy(np.concatenate(parts)).to(self.device)
        return FinalHidden(hidden, self.head, self.fingerprint)

    def _of_piece(self, piece: int) -> np.ndarray:
        block = int(self.pieces.bounds[piece]) // self.pieces.block_tokens
        if block not in self.place:
            raise CorpusError(f"block {block} is not among those whose targets were kept; keep them for this order")
        first = self.place[block]
        for other in self.pieces.of_block(block):
            count = self.pieces[other].num_counted if self.pieces.apart else self.pieces.block_tokens
            if other == piece:
                return self.hidden[first : first + count]
            first += count
        raise CorpusError(f"row {piece} predicts nothing")


class OnlineCorpusTeacher:
    """A frozen model that reads the same batch as the student."""

    def __init__(self, scored: ScoredModel, fingerprint: str):
        self.scored, self.fingerprint = scored.eval(), fingerprint

    @torch.no_grad()
    def targets(self, row_ids: Sequence[int], batch: TokenBatch) -> FinalHidden:
        """What it says of the batch."""
        return FinalHidden(self.scored.hidden(batch), self.scored.head(), self.fingerprint)


class UniformTeacher:
    """Every token is as likely as any other: forward KL to it is label smoothing."""

    def __init__(self, vocabulary: int):
        self.vocabulary = vocabulary

    def targets(self, row_ids: Sequence[int], batch: TokenBatch) -> Dense:
        """[N, V] equal log-probs, not stored N times."""
        one: Tensor = torch.zeros((1, self.vocabulary), device=batch.input_ids.device)
        return Dense(one.expand(batch.num_counted, -1), "uniform")


class Cut:
    """A teacher of whom only some entries are kept, as in a cache on disk: the biased one and the unbiased."""

    def __init__(self, whole: Teacher, top_k: int | None, draws: int | None, seed: int):
        if (top_k is None) == (draws is None):
            raise ValueError(f"a cut teacher keeps top_k entries or draws some, found top_k {top_k}, draws {draws}")
        self.whole, self.top_k, self.draws, self.seed = whole, top_k, draws, seed

    @torch.no_grad()
    def targets(self, row_ids: Sequence[int], batch: TokenBatch) -> Kept | Sampled:
        """The largest entries, renormalised, or draws that are keyed by seed and row."""
        said = self.whole.targets(row_ids, batch)
        assert isinstance(said, FinalHidden)
        log_p = torch.log_softmax(said.logits().float(), -1)
        if self.top_k is not None:
            return keep_top(log_p, self.top_k, "renormalised", said.fingerprint)
        assert self.draws is not None
        counts = batch.counted.sum(1).tolist()
        numbers = [
            keyed(self.seed, "draws", piece).random((count, self.draws))
            for piece, count in zip(row_ids, counts, strict=True)
        ]
        uniforms = torch.from_numpy(np.minimum(np.concatenate(numbers), np.nextafter(1.0, 0.0)))
        return draw(log_p, uniforms.to(log_p.device), said.fingerprint)
