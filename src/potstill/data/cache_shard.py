"""One shard: row records and columns in one file, written whole, read through a memory map.

Whoever reads a shard for the first time compares its checksum with the index: a
damaged one must not become a slightly wrong teacher.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from potstill.data.cache_format import Column, pack, unpack
from potstill.data.cache_index import ROW, CacheError, Shard
from potstill.run_dir import write_atomic

MAGIC = b"potstill-shard-1"


def write_shard(
    path: Path, columns: Sequence[Column], rows: np.ndarray, values: Mapping[str, np.ndarray]
) -> Shard:  # fmt: skip
    """Write row records [R] and the values of each column under a temporary name, fsync, rename.

    Returns its line for the index, which is to be appended afterwards.
    """
    records = rows.astype(ROW, copy=False).tobytes()
    data = b"".join([MAGIC, records, *(pack(values[column.name], column.bits) for column in columns)])
    write_atomic(path, data)
    positions, entries = int(rows["positions"].sum()), int(rows["entries"].sum())
    return Shard(path.name, len(data), len(rows), positions, entries, zlib.crc32(data), zlib.crc32(records))


class OpenShard:
    """A shard to read from."""

    def __init__(self, folder: Path, facts: Shard, columns: Sequence[Column]):
        self.path, self.facts, self.columns = folder / facts.name, facts, {c.name: c for c in columns}
        self._mapped = np.memmap(self.path, np.uint8, "r")
        start = len(MAGIC) + facts.rows * ROW.itemsize
        records = self._mapped[len(MAGIC) : start]
        if zlib.crc32(records.data) != facts.rows_crc32:
            raise _damaged(self.path)
        self.rows = np.frombuffer(records, ROW)
        self.first_position = _starts(self.rows["positions"])
        self.first_entry = _starts(self.rows["entries"])
        self._places: dict[str, slice] = {}
        for column in columns:
            stop = start + column.num_bytes(facts.positions, facts.entries)
            self._places[column.name] = slice(start, stop)
            start = stop

    @cached_property
    def _verified(self) -> np.ndarray:
        """The bytes, once their checksum was compared."""
        if zlib.crc32(self._mapped.data) != self.facts.crc32 or self._mapped[: len(MAGIC)].tobytes() != MAGIC:
            raise _damaged(self.path)
        return self._mapped

    def read(self, name: str, rows: np.ndarray) -> np.ndarray:
        """A column's values of some rows, one row after another: [n], or [n, repeat]."""
        column = self.columns[name]
        first, count = (
            (self.first_position, self.rows["positions"])
            if column.per == "position"
            else (self.first_entry, self.rows["entries"])
        )
        return unpack(self._verified[self._places[name]], column, ranges(first[rows], count[rows]))


def ranges(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """starts[0], starts[0] + 1, ... counts[0] of them, then those of the next, and so on; int64."""
    counts = counts.astype(np.int64)
    before = _starts(counts)
    found: np.ndarray = np.arange(int(counts.sum()), dtype=np.int64) + np.repeat(starts - before, counts)
    return found


def _starts(counts: np.ndarray) -> np.ndarray:
    before: np.ndarray = np.cumsum(counts, dtype=np.int64) - counts
    return before


def _damaged(path: Path) -> CacheError:
    return CacheError(
        f"{path} is damaged: its checksum is not the one in index.jsonl. Restore it, or delete the cache and write it "
        "anew."
    )
