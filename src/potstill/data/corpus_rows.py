"""Rows of a parquet file and of a data set on the hub, a few at a time: (where, what stands in the text column)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from potstill.config.corpus import FilesText, HubText
from potstill.data.corpus import CorpusError
from potstill.data.corpus_faults import LeftOut, broken, no_column

#: Rows that are in memory at once; a row may be a book.
ROWS = 64


def parquet_rows(path: Path, source: FilesText, left_out: LeftOut) -> Iterator[tuple[str, Any]]:
    """Raises CorpusError: no parquet, no such column, a column of another type."""
    import pyarrow  # type: ignore[import-untyped]
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path, memory_map=False, pre_buffer=False) as file:
            _check_column(path, file.schema_arrow, source)
            number = 0
            for batch in file.iter_batches(batch_size=ROWS, columns=[source.text]):
                for value in batch.column(0):
                    number += 1
                    where = f"{path}, row {number}"
                    try:
                        yield where, value.as_py()
                    except UnicodeDecodeError as error:
                        broken(source.on_broken, left_out, "no UTF-8", where,
                               f"expected UTF-8, found {error.reason} at byte {error.start} of the row's text",
                               "Write it again")  # fmt: skip
    except (pyarrow.ArrowException, OSError) as error:
        broken(source.on_broken, left_out, "no parquet", str(path),
               f"expected a whole parquet file, but reading it failed with: {error}", "Write or fetch it again",
        )  # fmt: skip


def _check_column(path: Path, schema: Any, source: FilesText) -> None:
    from pyarrow import types

    if source.text not in schema.names:
        raise CorpusError(
            f"{path}: {no_column(source.text, schema.names)}. Set `text` to the column that holds the text."
        )
    kind = schema.field(source.text).type
    if types.is_dictionary(kind):
        kind = kind.value_type
    if not (types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)):
        raise CorpusError(
            f"{path}: the column {source.text!r} holds {kind}, expected text. Set `text` to the column that holds it."
        )


def hub_rows(source: HubText, left_out: LeftOut) -> Iterator[tuple[str, Any]]:
    """Raises CorpusError: no such data set, no such column, a connection that fails."""
    import datasets

    asked = f"{source.id} (revision {source.revision}, split {source.split})"
    try:
        stream = datasets.load_dataset(
            source.id, source.subset, revision=source.revision, split=source.split, streaming=True
        )
        for number, row in enumerate(stream, start=1):
            if source.documents is not None and number > source.documents:
                return
            where = f"{source.id}, row {number}"
            if source.text in row:
                yield where, row[source.text]
            else:
                broken(source.on_broken, left_out, "no such column", where, no_column(source.text, row),
                       "Set `text` to the column that holds the text")  # fmt: skip
    except CorpusError:
        raise
    except (datasets.exceptions.DatasetsError, OSError, ValueError) as error:
        raise CorpusError(
            f"the hub data set {asked} could not be read: {error.__cause__ or error}. Check its id, `revision`, "
            "`split` and `subset`, and that the hub can be reached."
        ) from error
