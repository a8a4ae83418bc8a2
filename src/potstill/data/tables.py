"""Entries of named columns, from a file or from the hub, exactly as they were written.

`datasets` reads what carries types: .parquet files and the hub. Text files
(.txt, .jsonl, .json, .csv) are read here, because a reader that guesses types
changes answers: `datasets` 5.2 makes time stamps of JSON strings that look like
dates, and in a .csv file 7 of 007 and null of NA.
"""

from __future__ import annotations

import csv
import difflib
import glob
import gzip
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from potstill.config.data import Prompts


class PromptError(ValueError):
    """The prompts cannot be used as they are; the message says how to mend them."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What stands in one row, and where that is (for messages)."""

    where: str
    columns: Mapping[str, Any]


#: What the parsers below find: a place such as "line 3", and its columns.
_Placed = Iterator[tuple[str, dict[str, Any]]]


def read_entries(config: Prompts, settings: Mapping[str, str]) -> list[Entry]:
    """All entries of the file or hub data set.

    settings: which setting asks for which column, such as {"prompt": "question"}.
    """
    entries = _from_hub(config, settings) if config.hub else _from_file(Path(config.path), settings)
    if not entries:
        raise PromptError(f"{config.path} holds no prompts. Expected at least one; check how it was written.")
    return entries


def excerpt(text: str, length: int = 100) -> str:
    """A text's beginning on one line, quoted, for messages."""
    flat = " ".join(text.split())
    return repr(flat if len(flat) <= length else f"{flat[: length - 1]}…")


def _from_file(path: Path, settings: Mapping[str, str]) -> list[Entry]:
    suffix = (Path(path.stem).suffix if path.suffix == ".gz" else path.suffix).lower()
    if not path.is_file():
        raise PromptError(f"no file of prompts at {path}.{_nearby(path)}")
    if suffix == ".parquet":
        return _from_parquet(path, settings)
    if suffix not in _TEXT:
        known = ", ".join([*_TEXT, ".parquet"])
        raise PromptError(f"{path}: expected a name that ends in {known}; found {suffix or 'no ending'}.")
    placed = list(_TEXT[suffix](path, _lines(path)))
    if placed:
        _check_columns(str(path), dict.fromkeys(name for _, columns in placed for name in columns), settings)
    return [Entry(f"{path}, {place}", columns) for place, columns in placed]


def _lines(path: Path) -> list[str]:
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        return data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    except (gzip.BadGzipFile, EOFError) as error:
        raise PromptError(f"{path}: expected a gzip file, as its name says, and found none or half of one") from error
    except UnicodeDecodeError as error:
        raise PromptError(
            f"{path}: expected text in UTF-8, found {error.reason} at byte {error.start}. Save it as UTF-8."
        ) from error


def _parse_txt(path: Path, lines: list[str]) -> _Placed:
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield f"line {number}", {"prompt": line}


def _parse_json(path: Path, lines: list[str]) -> _Placed:
    """JSON lines or one JSON list, whatever the name ends in."""
    mend = "Write a JSON object on every line, or one JSON list of objects."
    text = "\n".join(lines)
    if text.lstrip().startswith("["):
        values = ((f"row {n}", value) for n, value in enumerate(_json(path, text, 1, mend), start=1))
    else:
        filled = ((n, line) for n, line in enumerate(lines, start=1) if line.strip())
        values = ((f"line {n}", _json(path, line, n, mend)) for n, line in filled)
    for place, value in values:
        if not isinstance(value, dict):
            raise PromptError(f"{path}, {place}: expected an object, found {type(value).__name__}. {mend}")
        yield place, value


def _json(path: Path, text: str, first_line: int, mend: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f"{path}, line {first_line + error.lineno - 1}, column {error.colno}"
        raise PromptError(f"{place}: expected JSON, found a fault ({error.msg}). {mend}") from error


def _parse_csv(path: Path, lines: list[str]) -> _Placed:
    # What stands beyond the first line's columns gets the name None, what is missing the value None.
    reader = csv.DictReader((f"{line}\n" for line in lines), strict=True)
    try:
        for columns in reader:
            if None in columns or None in columns.values():
                num_cells = len(reader.fieldnames or ())
                raise PromptError(
                    f"{path}, line {reader.line_num}: expected {num_cells} cells as in the first line, found "
                    "another number. Put quotes round cells that hold commas."
                )
            yield f"line {reader.line_num}", columns
    except csv.Error as error:
        raise PromptError(
            f"{path}, line {reader.line_num}: expected CSV, found a fault ({error}). Close its quotes."
        ) from error


_TEXT: dict[str, Callable[[Path, list[str]], _Placed]] = {
    ".jsonl": _parse_json,
    ".json": _parse_json,
    ".txt": _parse_txt,
    ".csv": _parse_csv,
}


def _from_parquet(path: Path, settings: Mapping[str, str]) -> list[Entry]:
    """Through a cache of its own, so that nothing stays behind."""
    import datasets

    with _quiet_datasets(), tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as cache:
        try:
            table = datasets.Dataset.from_parquet(
                glob.escape(str(path.resolve())), cache_dir=cache, keep_in_memory=True
            )
        except (datasets.exceptions.DatasetsError, OSError, ValueError) as error:
            raise PromptError(
                f"{path}: expected a parquet file with at least one row, but reading it failed with: "
                f"{error.__cause__ or error}. Write it again."
            ) from error
        return _from_dataset(table, str(path), settings)


def _from_hub(config: Prompts, settings: Mapping[str, str]) -> list[Entry]:
    """Through the hub's usual cache, so that the next run needs no network."""
    import datasets

    asked = f"{config.path} (revision {config.revision}, split {config.hub_split})"
    with _quiet_datasets():
        try:
            table = datasets.load_dataset(
                config.path, name=config.hub_subset, revision=config.revision, split=config.hub_split
            )
        except (datasets.exceptions.DatasetsError, OSError, ValueError) as error:
            raise PromptError(
                f"the hub data set {asked} could not be read: {error.__cause__ or error}. Check its id, "
                "`revision`, `hub_split` and `hub_subset`, and that the hub can be reached."
            ) from error
        return _from_dataset(table, asked, settings)


def _from_dataset(table: Any, where: str, settings: Mapping[str, str]) -> list[Entry]:
    _check_columns(where, table.column_names, settings)
    names = list(dict.fromkeys(settings.values()))
    columns = table.select_columns(names)[:]
    values = zip(*(columns[name] for name in names), strict=True)
    return [
        Entry(f"{where}, row {number}", dict(zip(names, row, strict=True)))
        for number, row in enumerate(values, start=1)
    ]


@contextmanager
def _quiet_datasets() -> Iterator[None]:
    """No progress bars and no log lines; what fails is told by a PromptError."""
    import datasets

    level, were_hidden = datasets.logging.get_verbosity(), datasets.are_progress_bars_disabled()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.logging.set_verbosity(level)
        if not were_hidden:
            datasets.enable_progress_bars()


def _check_columns(where: str, found: Iterable[str], settings: Mapping[str, str]) -> None:
    names = list(found)
    for setting, column in settings.items():
        if column in names:
            continue
        near = difflib.get_close_matches(column, names, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise PromptError(
            f"{where}: expected a column {column!r} for `{setting}`, found {', '.join(map(repr, names))}."
            f"{hint} Set `{setting}` to the column that holds it."
        )


def _nearby(path: Path) -> str:
    """What the caller may have meant by a path where no file is."""
    if path.is_dir():
        return " It is a folder; name one file in it."
    names = sorted(other.name for other in path.parent.iterdir()) if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, names, n=1)
    if near:
        return f" Did you mean {path.with_name(near[0])}?"
    return " Check `path`; a data set of the hub needs hub: true and `revision`."
