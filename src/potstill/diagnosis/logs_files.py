"""CSV, JSON lines and JSON as tables. What is whole is taken; what is not is refused or named.

A run that was killed leaves a last line half written: that line is left out, and said so.
A bad line before it means a damaged file. Tables from a spreadsheet may be separated by
semicolons or tabs and write 1,5 for 1.5; both are seen from the file itself.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from potstill.diagnosis.logs_columns import from_wandb
from potstill.diagnosis.logs_table import LogError, LogTable, table_of_rows

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+([eE][+-]?\d+)?")


def read_text(path: Path) -> str:
    """The file's text: UTF-8, or UTF-16 with its mark. Raises LogError for an empty or a binary file."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise LogError(f"{path} cannot be read: {error.strerror}") from error
    if not data.strip():
        raise LogError(f"{path} is empty; expected the log of a run. Was the run killed before it wrote anything?")
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        cut_in_a_letter = error.end >= len(data) and error.reason == "unexpected end of data"
        text = data[: error.start].decode(encoding) if cut_in_a_letter else "\0"
    if "\0" in text:
        raise LogError(
            f"{path} is not text; expected a table in UTF-8. A packed or binary log has to be exported first, as .csv "
            "or .jsonl."
        )
    return text


# -- CSV ----------------------------------------------------------------------


def read_csv(path: Path) -> LogTable:
    """A header and rows of as many cells. Raises LogError."""
    text = read_text(path)
    separator = _separator(text)
    try:
        # Tuples: the garbage collector looks at each list again and again, which doubles the time of a million rows.
        lines = [tuple(line) for line in csv.reader(io.StringIO(text, newline=""), delimiter=separator) if line]
    except csv.Error as error:
        raise LogError(f"{path} is no CSV: {error}. Export the table again.") from error
    header = [name.strip() for name in lines[0]]
    if repeated := sorted({name for name in header if header.count(name) > 1}):
        raise LogError(f"{path}: the header names {', '.join(repeated)} twice; rename one of each")
    notes = [] if separator == "," else [f"cells are separated by {SEPARATORS[separator]}"]
    rows = lines[1:]
    if rows and not text.endswith(("\n", "\r")):
        _end_cleanly(rows, header, notes)
    if (bad := next((i for i, row in enumerate(rows) if len(row) != len(header)), None)) is not None:
        _refuse_width(path, bad, rows[bad], header, separator)
    if not rows:
        raise LogError(f"{path} has a header and no rows: {', '.join(header[:12])}. Was the run killed at its start?")
    columns: dict[str, Sequence[Any]] = dict(zip(header, zip(*rows, strict=True), strict=True))
    if separator != ",":
        columns = _points_for_commas(columns, notes)
    wandb = from_wandb(header)
    return LogTable(
        "W&B CSV" if wandb else "CSV", str(path), columns, len(rows), notes, nan_is_absent=wandb, later_wins=wandb
    )


def _separator(text: str) -> str:
    """The one that the header has most of, outside of quotes."""
    header = re.sub(r'"[^"]*"', "", text.split("\n", 1)[0])
    return max(SEPARATORS, key=header.count)


def _end_cleanly(rows: list[tuple[str, ...]], header: Sequence[str], notes: list[str]) -> None:
    """Of a file that ends within a line: leave out a row that is not whole."""
    if len(rows[-1]) < len(header):
        rows.pop()
        notes.append("the last line is cut off and was left out")
    else:
        notes.append("the last line does not end; its last number may be cut off")


def _refuse_width(path: Path, row: int, cells: Sequence[str], header: Sequence[str], separator: str) -> None:
    comma = separator == "," and len(cells) > len(header)
    hint = "Decimal commas (1,5) need semicolons between cells, or points (1.5). " if comma else ""
    raise LogError(
        f"{path}: row {row + 1} has {len(cells)} cells, the header names {len(header)} columns "
        f"({', '.join(header[:8])}). {hint}The file is damaged or is no table; export it again."
    )


def _points_for_commas(columns: Mapping[str, Sequence[Any]], notes: list[str]) -> dict[str, Sequence[Any]]:
    changed = {}
    for name, cells in columns.items():
        # All of a column or none: 1,5 beside 1.5 is for the user to mend.
        written = [cell for cell in cells if cell.strip()]
        if any("," in cell for cell in written) and all("." not in cell for cell in written):
            changed[name] = [
                cell.replace(",", ".") if DECIMAL_COMMA.fullmatch(cell.strip()) else cell for cell in cells
            ]
    if changed:
        notes.append("decimal commas were read as points")
    return dict(columns) | changed


# -- JSON ---------------------------------------------------------------------


def read_json_lines(path: Path) -> LogTable:
    """One object a line. Raises LogError."""
    lines = [(number, line) for number, line in enumerate(read_text(path).split("\n"), start=1) if line.strip()]
    rows, notes = [], []
    for place, (number, line) in enumerate(lines):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            if place and place == len(lines) - 1:
                notes.append("the last line is cut off and was left out")
                break
            raise LogError(
                f"{path}, line {number}: not JSON ({error.msg}). Only the last line may be cut off; the file was "
                "edited or damaged, or is no JSON lines file. Mend or remove that line."
            ) from error
        if not isinstance(row, dict):
            raise LogError(
                f'{path}, line {number}: expected an object such as {{"step": 10, "proxy": 1.2}}, found {line!r:.60}'
            )
        rows.append(row)
    return _named(table_of_rows("JSON lines", str(path), rows), notes)


def load_json(path: Path) -> Any:
    """The file's value. Raises LogError for a file that is cut off."""
    text = read_text(path)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        cut = error.pos >= len(text.rstrip()) - 1 or error.msg.startswith("Unterminated")
        why = "it is cut off; was the disk full, or the run killed while writing?" if cut else "it is damaged."
        raise LogError(
            f"{path} is not whole JSON ({error.msg} at line {error.lineno}): {why} Take an older copy, such as that of "
            "the checkpoint before."
        ) from error


def table_of_json(path: Path, value: Any) -> LogTable:
    """A list of objects, or an object of columns. Raises LogError."""
    if isinstance(value, dict) and value and all(isinstance(column, list) for column in value.values()):
        lengths = {name: len(column) for name, column in value.items()}
        if len(set(lengths.values())) > 1:
            raise LogError(f"{path}: its columns have different lengths: {lengths}")
        return _named(LogTable("JSON", str(path), value, next(iter(lengths.values()))), [])
    if not isinstance(value, list) or not value or not all(isinstance(row, dict) for row in value):
        raise LogError(
            f"{path}: expected a list of objects (rows), an object of lists (columns), or a trainer_state.json with "
            f"log_history; found {value!r:.80}"
        )
    return _named(table_of_rows("JSON", str(path), value), [])


def _named(table: LogTable, notes: list[str]) -> LogTable:
    table.notes += notes
    if from_wandb(list(table.columns)):
        table.kind, table.nan_is_absent, table.later_wins = f"W&B {table.kind}", True, True
    return table
