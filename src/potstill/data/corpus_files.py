"""The files that a corpus is made of: read once, unpacked and hashed on the way, and watched for changes.

Every file's size and time stamp are noted before anything is read. A file that has another
size or time stamp when it has been read was changed meanwhile, and the corpus is refused:
its tokenizer and its sets would come of different text.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from potstill.data.corpus import CorpusError

#: What the readers of packed files raise where one is damaged or cut.
UNPACKING = (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError)
CHUNK = 1 << 20


class SourceFiles:
    """Size, time stamp and, once read, SHA-256 of every file."""

    def __init__(self) -> None:
        self.states: dict[str, dict[str, Any]] = {}
        self._opened: set[str] = set()

    def note(self, paths: Iterable[Path]) -> None:
        """Remember how the files are now."""
        for path in paths:
            self.states.setdefault(str(path), {**_stamp(path), "sha256": None})

    def of(self, paths: Iterable[Path]) -> dict[str, dict[str, Any]]:
        """Size and time stamp of some of them."""
        return {str(p): {k: self.states[str(p)][k] for k in ("size", "mtime_ns")} for p in paths}

    @contextmanager
    def reading(self, path: Path, told: Callable[[int], None]) -> Iterator[IO[bytes]]:
        """A file's bytes, unpacked; `told` hears how many bytes of the file itself were read.

        Whoever reads to the end has the file hashed on the way. Raises CorpusError where it changed.
        """
        with open(path, "rb", buffering=0) as raw:
            hashing = _Hashing(raw, told)
            buffered: io.BufferedReader[Any] = io.BufferedReader(hashing, CHUNK)
            yield _unpacked(path, buffered)
            while buffered.read(CHUNK):  # what stands behind the packed text
                pass
        self._hashed(path, hashing.digest.hexdigest())

    def opening(self, path: Path) -> None:
        """Note that a file is read."""
        self.note([path])
        self._opened.add(str(path))

    def finish(self, paths: Iterable[Path]) -> None:
        """Hash the files that were read, but not from end to end. Raises CorpusError where one changed."""
        for path in paths:
            if str(path) in self._opened and self.states[str(path)]["sha256"] is None:
                self._hashed(path, hash_file(path))

    def _hashed(self, path: Path, found: str) -> None:
        state = self.states[str(path)]
        stamp = _stamp(path)
        if stamp["size"] != state["size"] or stamp["mtime_ns"] != state["mtime_ns"] or state["sha256"] not in (
            None,
            found,
        ):  # fmt: skip
            raise CorpusError(
                f"{path} changed while the corpus was made (it had {state['size']:,} bytes, now {stamp['size']:,}). "
                "Wait until whoever writes it has finished, and start again."
            )
        state["sha256"] = found


class _Hashing(io.RawIOBase):
    def __init__(self, raw: io.FileIO, told: Callable[[int], None]) -> None:
        self.raw_file, self.told, self.digest = raw, told, hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self.raw_file.readinto(buffer) or 0
        self.digest.update(memoryview(buffer)[:count])
        self.told(count)
        return count


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _stamp(path: Path) -> dict[str, int]:
    try:
        found = path.stat()
    except OSError as error:
        raise CorpusError(
            f"{path} cannot be read: {error.strerror}. Put it back, or take it out of `paths`."
        ) from error
    return {"size": found.st_size, "mtime_ns": found.st_mtime_ns}


def _unpacked(path: Path, handle: io.BufferedReader[Any]) -> IO[bytes]:
    suffix = path.suffix.lower()
    if suffix == ".gz":
        return gzip.GzipFile(fileobj=handle)  # type: ignore[return-value]  # reads bytes as any other
    return lzma.LZMAFile(handle) if suffix == ".xz" else handle


def unpacked_name(path: Path) -> str:
    """The ending that says what a file holds, without that of its packing: `.jsonl` of `a.jsonl.gz`."""
    packed = path.suffix.lower() in (".gz", ".xz")
    return Path(path.stem if packed else path.name).suffix.lower()
