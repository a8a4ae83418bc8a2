"""A teacher's targets on disk: written once, in whole shards; read at random, in few bytes a token.

The writer appends. Rows gather in memory until they fill a shard; the shard is written
under a temporary name and renamed, and only then gets its line in the index. A kill costs
at most one shard, and what is there is not computed again. One process writes at a time.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import filelock
import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor

from potstill.data.cache_codec import Values, decode, encode, head_from
from potstill.data.cache_format import columns_of
from potstill.data.cache_index import (
    KEY,
    ROW,
    CacheError,
    Header,
    RowIndex,
    read_header,
    read_shards,
    row_keys,
    write_header,
)
from potstill.data.cache_shard import OpenShard, ranges, write_shard
from potstill.data.collate import Row
from potstill.head import Head
from potstill.run_dir import append_lines, write_atomic
from potstill.targets import TeacherTargets

#: A shard that does not fill is written after so many seconds all the same.
SHARD_SECONDS = 600.0


class CacheWriter:
    """Appends rows to a cache; use it as a context, which holds the folder's lock.

    Raises CacheError: somebody else is writing, or the cache there has another header.
    """

    def __init__(self, folder: str | Path, header: Header, head: Head | None = None, shard_mb: float = 128.0):
        self.folder, self.header, self.head = Path(folder), header, head
        self._columns = columns_of(header.format, header.settings, header.width)
        self._limit = shard_mb * 2**20
        self._lock = filelock.FileLock(self.folder / "writing.lock")

    def __enter__(self) -> CacheWriter:
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=0)
        except filelock.Timeout as error:
            raise CacheError(
                f"another process is writing to {self.folder}; let it end, or choose another path"
            ) from error
        try:
            self._take_up()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.flush()
        finally:
            self._lock.release()

    def has(self, rows: Sequence[Row]) -> np.ndarray:
        """[n] bool, rows that are there already, on disk or waiting for it."""
        return np.array([key.tobytes() in self._known for key in row_keys(rows)], bool)

    def add(self, rows: Sequence[Row], counts: Sequence[int], targets: TeacherTargets) -> None:
        """Targets of rows with `counts` positions each, one after another. Rows that are there stay as they are."""
        values, entries = encode(self.header, targets)
        counts_of = np.asarray(counts, np.int64)
        if int(counts_of.sum()) != len(entries):
            raise CacheError(f"{int(counts_of.sum())} counted positions in {len(rows)} rows, targets of {len(entries)}")
        keys = row_keys(rows)
        ends = np.cumsum(counts_of)
        for i, stop in enumerate(ends):
            name = keys[i].tobytes()
            if name in self._known:
                continue
            self._known.add(name)
            start = stop - counts_of[i]
            here = int(entries[start:stop].sum())
            self._rows.append((keys[i]["high"], keys[i]["low"], stop - start, here))
            first = int(entries[:start].sum())
            for column in self._columns:
                part = slice(start, stop) if column.per == "position" else slice(first, first + here)
                self._waiting[column.name].append(values[column.name][part].copy())
                self._size += len(self._waiting[column.name][-1]) * column.repeat * column.bits / 8
        if self._size >= self._limit or time.monotonic() - self._started > SHARD_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Make a shard of all that waits."""
        if self._rows:
            name = f"shard-{self._shards:05d}.bin"
            values: Values = {name: np.concatenate(parts) for name, parts in self._waiting.items()}
            shard = write_shard(self.folder / name, self._columns, np.array(self._rows, ROW), values)
            append_lines(self.folder / "index.jsonl", [vars(shard)])
            self._shards += 1
        self._begin()

    def _begin(self) -> None:
        self._rows: list[tuple[int, int, int, int]] = []
        self._waiting: dict[str, list[np.ndarray]] = {column.name: [] for column in self._columns}
        self._size, self._started = 0.0, time.monotonic()

    def _take_up(self) -> None:
        """Go on with the cache that is there, or begin one."""
        for left in self.folder.glob(".unfinished-*"):
            left.unlink()
        if (self.folder / "cache.json").is_file():
            differing = read_header(self.folder).differences(self.header)
            if differing:
                listed = "\n  ".join(differing)
                raise CacheError(
                    f"{self.folder} is another cache:\n  {listed}\nSet cache.path to a new folder, or go back to those "
                    "settings to continue that one."
                )
        else:
            if self.head is not None:
                write_atomic(self.folder / "head.safetensors", save(_tensors(self.head)))
            write_header(self.folder, self.header)
        shards = [OpenShard(self.folder, facts, self._columns) for facts in read_shards(self.folder)]
        self._shards = len(shards)
        self._known = {key.tobytes() for shard in shards for key in _keys(shard.rows)}
        self._begin()


class TargetsCache:
    """Reads a cache. Opening it reads header, index and row keys; shards are mapped into memory.

    Raises CacheError: no cache, another version, a shard that is missing or damaged.
    """

    def __init__(self, folder: str | Path, device: torch.device | str = "cpu"):
        self.folder, self.device = Path(folder), torch.device(device)
        self.header = read_header(self.folder)
        columns = columns_of(self.header.format, self.header.settings, self.header.width)
        self.shards = [OpenShard(self.folder, facts, columns) for facts in read_shards(self.folder)]
        self._firsts = np.cumsum([0, *(len(shard.rows) for shard in self.shards)])
        records = np.concatenate([np.zeros(0, ROW), *(shard.rows for shard in self.shards)])
        self._index, self._positions = RowIndex(_keys(records)), records["positions"].astype(np.int64)
        self._head = self._read_head()

    @property
    def num_rows(self) -> int:
        return int(self._firsts[-1])

    @property
    def num_positions(self) -> int:
        return sum(shard.facts.positions for shard in self.shards)

    @property
    def num_bytes(self) -> int:
        """Of shards, index and header; the head, which is there once, not among them."""
        names = ["cache.json", "index.jsonl", *(shard.facts.name for shard in self.shards)]
        return sum((self.folder / name).stat().st_size for name in names if (self.folder / name).is_file())

    @property
    def head_bytes(self) -> int:
        path = self.folder / "head.safetensors"
        return path.stat().st_size if path.is_file() else 0

    def places(self, rows: Sequence[Row]) -> np.ndarray:
        """[n] where each row lies.

        Raises CacheError for a row that is not there, token for token.
        """
        found = self._index.find(row_keys(rows))
        missing = np.flatnonzero(found < 0)
        if len(missing):
            row = rows[missing[0]]
            raise CacheError(
                f"{len(missing)} of {len(rows)} rows are not in the cache {self.folder} (the first: completion "
                f"{row.index} of prompt {row.prompt_id!r}, {row.num_tokens} tokens, by {row.provenance}). Rows are "
                "found by their exact token ids; this data is not the data it was written for, or writing it was not "
                "finished. Run `potstill cache` with this configuration."
            )
        return found

    def num_counted(self, places: np.ndarray) -> np.ndarray:
        """[n] positions of the rows at these places."""
        found: np.ndarray = self._positions[places]
        return found

    def targets(self, places: np.ndarray) -> TeacherTargets:
        """What the teacher says about the counted positions of rows at these places, row by row, in order."""
        which = np.searchsorted(self._firsts, places, side="right") - 1
        # Shard by shard, then back into the order asked for.
        order = np.argsort(which, kind="stable")
        parts = [
            (self.shards[int(shard)], places[order][which[order] == shard] - self._firsts[shard])
            for shard in np.unique(which)
        ]
        positions = np.concatenate([shard.rows["positions"][rows] for shard, rows in parts]).astype(np.int64)
        entries = np.concatenate([shard.rows["entries"][rows] for shard, rows in parts]).astype(np.int64)
        back = np.argsort(order, kind="stable")
        names = {column.name: column.per for column in parts[0][0].columns.values()}

        def read(name: str) -> np.ndarray:
            values = [shard.read(name, rows) for shard, rows in parts]
            if len(values) == 1:  # one shard: order was kept by the stable sort
                return values[0]
            counts = positions if names[name] == "position" else entries
            starts = np.cumsum(counts) - counts
            found: np.ndarray = np.concatenate(values)[ranges(starts[back], counts[back])]
            return found

        return decode(self.header, read, self._head, self.device)

    def _read_head(self) -> Head | None:
        if self.header.format != "final_hidden":
            return None
        path = self.folder / "head.safetensors"
        if not path.is_file():
            raise CacheError(f"{path} is missing: hidden states say nothing without their head. Restore it.")
        return head_from(load_file(path, str(self.device)), self.header.settings)


def _keys(records: np.ndarray) -> np.ndarray:
    """[R] KEY of row records."""
    made = np.empty(len(records), KEY)
    made["high"], made["low"] = records["high"], records["low"]
    return made


def _tensors(head: Head) -> dict[str, Tensor]:
    made = {"weight": head.weight.detach().cpu().contiguous().clone()}
    return made if head.bias is None else made | {"bias": head.bias.detach().cpu().contiguous().clone()}
