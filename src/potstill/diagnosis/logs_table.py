"""A log as columns, whatever it was kept in, and what was noticed while it was read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

ABSENT = frozenset({"", "null", "none", "n/a", "na", "-"})


class LogError(ValueError):
    """A log that cannot be read, or that lacks what a verdict needs; says what was expected and how to mend it."""


class NoLogError(LogError, FileNotFoundError):
    """There is nothing at the path."""


@dataclass
class LogTable:
    """Columns of equal length; None or an empty text where a row lacks one."""

    kind: str  # for people: "CSV", "trainer_state.json", ...
    where: str  # the file or folder, for messages
    columns: dict[str, Sequence[Any]]
    rows: int
    notes: list[str] = field(default_factory=list)
    nan_is_absent: bool = False  # rows are filled up with NaN where nothing was logged
    later_wins: bool = False  # rows are in order of time, and a step told again replaces what was told before
    _given: dict[str, int] = field(default_factory=dict)

    def numbers(self, column: str) -> np.ndarray:
        """[R] float64, NaN where a row has no number; infinities stay. Raises LogError for text."""
        cells = self.columns[column]
        try:
            return np.array([np.nan if cell is None or cell == "" else cell for cell in cells], dtype=np.float64)
        except (TypeError, ValueError):
            return np.array([self._number(column, row, cell) for row, cell in enumerate(cells)], dtype=np.float64)

    def texts(self, column: str) -> list[str]:
        """[R] str, empty where a row has none."""
        return ["" if cell is None or cell != cell else str(cell) for cell in self.columns[column]]

    def has_values(self, column: str) -> bool:
        """Is any cell not empty?"""
        return any(not _is_absent(cell, self.nan_is_absent) for cell in self.columns[column])

    def given(self, column: str) -> int:
        """Cells that are not empty; NaN counts where it was written down as a value."""
        if column not in self._given:
            cells = self.columns[column]
            self._given[column] = sum(not _is_absent(cell, self.nan_is_absent) for cell in cells)
        return self._given[column]

    def not_finite(self, column: str, values: np.ndarray) -> int:
        """Cells that hold something, and no finite number. `values` are its `numbers`."""
        if self.nan_is_absent:
            return int(np.isinf(values).sum())
        cells, known = self.columns[column], int(np.isfinite(values).sum())
        if len(cells) - cells.count("") == known:  # the usual case, in a million rows too
            return 0
        return self.given(column) - known

    def _number(self, column: str, row: int, cell: Any) -> float:
        if cell is None or (isinstance(cell, str) and cell.strip().lower() in ABSENT):
            return np.nan
        try:
            return float(cell)
        except (TypeError, ValueError):
            raise LogError(
                f"{self.where}: {column!r} must be a number, found {cell!r:.60} in row {row + 1}. Mend that cell, or "
                "leave it empty."
            ) from None


def table_of_rows(kind: str, where: str, rows: Sequence[Mapping[str, Any]]) -> LogTable:
    """A table of dicts; each may lack keys. Dicts within are spread: {"eval": {"loss": 1}} is eval/loss."""
    flat = [row if not any(isinstance(v, Mapping) for v in row.values()) else dict(_spread(row)) for row in rows]
    names = dict.fromkeys(str(name) for row in flat for name in row)
    return LogTable(kind, where, {name: [row.get(name) for row in flat] for name in names}, len(flat))


def _spread(row: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in row.items():
        if isinstance(value, Mapping):
            yield from _spread(value, f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}", value


def _is_absent(cell: Any, nan_is_absent: bool) -> bool:
    if cell is None:
        return True
    if isinstance(cell, str):
        lowered = cell.strip().lower()
        return lowered in ABSENT or (nan_is_absent and lowered == "nan")
    return bool(nan_is_absent and cell != cell)
