"""A corpus on disk: token ids end to end, memory-mapped, with the places where documents begin.

    corpus.json                  what is in it, of which files, made how
    tokenizer/
    train.tokens  train.starts   ids as uint16 or uint32; int64 places where documents begin
    held_out.tokens ...          and the same for every set that is measured on

Every document ends with the end token. A block is a window of block_tokens + 1 ids, the last
of which is the first of the next block: every token is predicted once. Where documents stay
apart, a block is cut where they begin, and nothing is predicted from another document.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from potstill.data.collate import Row

FORMAT = 1


class CorpusError(ValueError):
    """A corpus cannot be made or read; the message says where and how to mend it."""


@dataclass(frozen=True)
class TokenSet:
    """The tokens of one set of documents."""

    name: str
    tokens: np.ndarray  # [tokens] uint16 or uint32, on disk
    starts: np.ndarray  # [documents] int64, where each begins

    @property
    def num_tokens(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True)
class Corpus:
    """An opened corpus; its sets are mapped, not read."""

    path: Path
    facts: Mapping[str, Any]

    @property
    def sets(self) -> Mapping[str, Mapping[str, Any]]:
        """Set -> tokens, documents, bytes (of UTF-8), domain: train, in or out."""
        found: Mapping[str, Mapping[str, Any]] = self.facts["sets"]
        return found

    @property
    def measured(self) -> list[str]:
        """Names of the sets that are measured on, the in-domain one first."""
        return [name for name, facts in self.sets.items() if facts["domain"] != "train"]

    @property
    def tokenizer_path(self) -> Path:
        return self.path / "tokenizer"

    def tokens(self, name: str) -> TokenSet:
        """A set. Raises CorpusError: no such set, a file of another length than corpus.json says."""
        if name not in self.sets:
            raise CorpusError(f"{self.path} has no set {name!r}, only {', '.join(self.sets)}")
        path = self.path / f"{name}.tokens"
        expected = self.sets[name]["tokens"] * np.dtype(self.facts["dtype"]).itemsize
        found = path.stat().st_size if path.is_file() else 0
        if found != expected:
            raise CorpusError(
                f"{path} has {found:,} bytes, corpus.json says {expected:,}: it was cut or changed. Remove "
                f"{self.path} and make the corpus again."
            )
        return TokenSet(
            name,
            np.memmap(path, dtype=self.facts["dtype"], mode="r"),
            np.fromfile(self.path / f"{name}.starts", dtype="<i8"),
        )


def open_corpus(path: Path) -> Corpus:
    """Raises CorpusError where no whole corpus is."""
    file = path / "corpus.json"
    if not file.is_file():
        raise CorpusError(f"{path} is no corpus: it has no corpus.json. `potstill corpus CONFIG` makes one.")
    facts = json.loads(file.read_text())
    if facts.get("format") != FORMAT:
        raise CorpusError(f"{path} has format {facts.get('format')!r}, this version reads {FORMAT}; make it again")
    return Corpus(path, facts)


class Pieces:
    """Rows of a set, by number: its blocks, or the parts of documents that lie in them.

    `first` and `count` choose blocks; row numbers are those of the whole set, whatever is chosen.
    """

    def __init__(self, found: TokenSet, block_tokens: int, *, apart: bool):
        self.set, self.block_tokens = found, block_tokens
        self.num_blocks = (found.num_tokens - 1) // block_tokens
        if self.num_blocks < 1:
            raise CorpusError(
                f"the set {found.name} has {found.num_tokens:,} tokens, less than one block of {block_tokens} and one"
            )
        self.apart = apart

    @cached_property
    def bounds(self) -> np.ndarray:
        """[pieces + 1] where each piece's first token lies; the last entry ends the last block."""
        end = self.num_blocks * self.block_tokens
        blocks = np.arange(0, end + 1, self.block_tokens, dtype=np.int64)
        if not self.apart:
            return blocks
        return np.union1d(blocks, self.set.starts[self.set.starts < end])

    @cached_property
    def _first_piece(self) -> np.ndarray:
        """[blocks + 1] the number of each block's first piece."""
        return np.searchsorted(self.bounds, np.arange(self.num_blocks + 1) * self.block_tokens)

    def of_block(self, block: int) -> list[int]:
        """The pieces of a block that predict something, in order."""
        pieces = range(int(self._first_piece[block]), int(self._first_piece[block + 1]))
        return [p for p in pieces if len(self.ids(p)) > 1]

    def ids(self, piece: int) -> np.ndarray:
        """Token ids of a piece and the one after it, where that belongs to the same document (or always)."""
        start, stop = int(self.bounds[piece]), int(self.bounds[piece + 1])
        follows = not (self.apart and self._begins(stop))
        return self.set.tokens[start : stop + follows]

    def _begins(self, place: int) -> bool:
        at = int(np.searchsorted(self.set.starts, place))
        return at < len(self.set.starts) and int(self.set.starts[at]) == place

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def __getitem__(self, piece: int) -> Row:
        """A row that counts every token but its first."""
        ids = tuple(self.ids(piece).tolist())
        return Row(f"{self.set.name} {piece}", 0, "corpus", ids[:1], (False,), ids[1:])
