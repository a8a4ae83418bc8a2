"""The stages of making a corpus: each leaves a record, so that a build that was killed goes on after the last one.

A stage's key holds all that its result depends on. A record with another key is of another
corpus, or of files that were changed since, and its stage is done again.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from potstill.data.corpus import CorpusError
from potstill.run_dir import digest, write_atomic

#: (what, total units or None, units more, tokens more) -> whether to stop.
Progress = Callable[[str, int | None, int, int], bool]
MEGABYTE = 1_000_000


class CorpusStopped(CorpusError):
    """Somebody asked for an end; what is finished is kept, and the next call goes on from there."""


class Stages:
    """Records of finished stages in a folder."""

    def __init__(self, folder: Path):
        self.folder = folder

    def done(self, name: str, key: Any, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What the stage found; `make` is called unless it was finished for the same key."""
        record, key = self.folder / f"{name}.stage", digest(key)
        if record.is_file():
            stored: dict[str, Any] = json.loads(record.read_text())
            if stored["key"] == key:
                found: dict[str, Any] = stored["found"]
                return found
            record.unlink()
        found = make()
        write_atomic(record, json.dumps({"key": key, "found": found}).encode())
        return found


class Meter:
    """Tells `progress` in whole megabytes what a stage has read."""

    def __init__(self, progress: Progress | None, what: str, total: int | None):
        self.progress, self.what = progress, f"{what} (MB)"
        self.total = None if total is None else max(1, -(-total // MEGABYTE))
        self.read = self.said = 0
        self._call(0, 0)

    def told(self, count: int) -> None:
        """So many bytes more were read."""
        self.read += count

    def tell(self, tokens: int = 0) -> None:
        """Raises CorpusStopped where an end is asked for."""
        units = self.read // MEGABYTE if self.total is None else min(self.total, self.read // MEGABYTE)
        self._call(units - self.said, tokens)
        self.said = units

    def end(self) -> None:
        """All is done, also where not all had to be read."""
        if self.total is not None:
            self._call(self.total - self.said, 0)
            self.said = self.total

    def _call(self, units: int, tokens: int) -> None:
        if self.progress is not None and self.progress(self.what, self.total, units, tokens):
            raise CorpusStopped(f"stopped at {self.what}; finished sets are kept")
