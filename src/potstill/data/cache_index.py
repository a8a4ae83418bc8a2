"""What a cache of targets is and what is in it: header, shards, and rows by their exact token ids.

    cache.json         format, teacher, vocabulary, temperature: what must agree
    index.jsonl        a line for each shard that is whole
    shard-00000.bin    row records, then columns (data/cache_format.py)
    head.safetensors   final_hidden only: the teacher's head

A row is found by a hash of what the teacher read and what of it counts. One token
more, less or other is another row.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from potstill.data.collate import Row
from potstill.run_dir import read_lines, write_atomic

VERSION = 1
#: A row in a shard: the two halves of its key, its positions and its entries.
ROW = np.dtype([("high", "<u8"), ("low", "<u8"), ("positions", "<u4"), ("entries", "<u4")])
KEY = np.dtype([("high", "<u8"), ("low", "<u8")])


class CacheError(ValueError):
    """The cache is not what the caller needs; the message says how to mend it."""


@dataclass(frozen=True)
class Header:
    """What holds for all rows of a cache; two headers that differ are two caches."""

    format: str  # final_hidden, kept or sampled
    fingerprint: str  # the teacher's
    teacher: str  # its name, for people
    teacher_weights: str  # as_computed, bf16 or int8: the last two change what it says
    precision: str  # what it computed in
    width: int  # V: columns of the student's head
    shared: int | None  # see models/vocabulary.py
    decoder_start_id: int | None  # encoder-decoders only
    temperature: float | None  # the distributions were made at; None for hidden states, which serve any
    settings: dict[str, Any] = field(default_factory=dict)  # of the format
    version: int = VERSION

    def differences(self, other: Header) -> list[str]:
        """Lines that say where `other` is not this."""
        here, there = _flat(asdict(self)), _flat(asdict(other))
        return [
            f"{name}: {here.get(name)!r} in the cache, {there.get(name)!r} wanted"
            for name in sorted(here.keys() | there.keys())
            if here.get(name) != there.get(name)
        ]


def _flat(tree: Mapping[str, Any]) -> dict[str, Any]:
    plain = {name: value for name, value in tree.items() if name != "settings"}
    return plain | {f"settings.{name}": value for name, value in tree["settings"].items()}


def write_header(folder: Path, header: Header) -> None:
    """Store `cache.json`; there is one for the life of the folder."""
    write_atomic(folder / "cache.json", (json.dumps(asdict(header), indent=2, sort_keys=True) + "\n").encode())


def read_header(folder: Path) -> Header:
    """Raises CacheError: no cache there, or one of another version."""
    path = folder / "cache.json"
    if not path.is_file():
        raise CacheError(f"no cache of teacher's targets at {folder} (no cache.json); write one with `potstill cache`")
    stored = json.loads(path.read_text())
    if stored.get("version") != VERSION:
        raise CacheError(
            f"{folder} is a cache of format version {stored.get('version')!r}, this Potstill reads version {VERSION}. "
            "Write it anew, or use the Potstill that wrote it."
        )
    return Header(**stored)


@dataclass(frozen=True)
class Shard:
    """A line of `index.jsonl`."""

    name: str
    num_bytes: int
    rows: int
    positions: int
    entries: int
    crc32: int  # of the whole file
    rows_crc32: int  # of the row records, which are read before the rest


def read_shards(folder: Path) -> list[Shard]:
    """The shards that are whole, in the order in which they were written; sizes are compared.

    Raises CacheError for one that is missing or of another size.
    """
    shards = [Shard(**line) for line in read_lines(folder / "index.jsonl")]
    for shard in shards:
        path = folder / shard.name
        found = path.stat().st_size if path.is_file() else None
        if found != shard.num_bytes:
            raise CacheError(
                f"{path} should hold {shard.num_bytes} bytes, "
                f"{'and is missing' if found is None else f'found {found}'}. Restore it, or delete the cache and "
                "write it anew."
            )
    return shards


def row_key(row: Row) -> np.ndarray:
    """The row's name, [] KEY: BLAKE2b, 128 bits, of lengths, prompt ids, answer ids, and what of the prompt counts.

    The prompt is the one that the teacher was shown.
    """
    row = row.as_teacher_saw_it
    sizes = np.array([len(row.prompt), len(row.answer)], "<i8")
    ids = np.array([*row.prompt, *row.answer], "<i8")
    flags = np.array(row.prompt_counted, "<u1")
    found = hashlib.blake2b(sizes.tobytes() + ids.tobytes() + flags.tobytes(), digest_size=16).digest()
    return np.frombuffer(found, KEY)[0]  # type: ignore[no-any-return]


def row_keys(rows: Sequence[Row]) -> np.ndarray:
    """[n] KEY."""
    return np.array([row_key(row) for row in rows], KEY)


class RowIndex:
    """Where each row lies: its place among all rows of all shards."""

    def __init__(self, records: np.ndarray):
        """`records` [R] with the fields of KEY."""
        self._order = np.lexsort((records["low"], records["high"]))
        self._high, self._low = records["high"][self._order], records["low"][self._order]
        # Nearly always 1: how many keys share their first half.
        starts = np.flatnonzero(np.append(True, self._high[1:] != self._high[:-1]))
        self._longest = int(np.diff(np.append(starts, len(records))).max()) if len(records) else 0

    def find(self, keys: np.ndarray) -> np.ndarray:
        """keys [n] -> places [n] int64, -1 for rows that are not there."""
        first = np.searchsorted(self._high, keys["high"])
        found = np.full(len(keys), -1, np.int64)
        for further in range(self._longest):
            at = np.minimum(first + further, len(self._order) - 1)
            same = (self._high[at] == keys["high"]) & (self._low[at] == keys["low"])
            found = np.where(same, self._order[at], found)
        return found
