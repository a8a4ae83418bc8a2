"""Documents out of files, the hub, and generators, one after another, each with the place where it stands."""

from __future__ import annotations

import glob
import gzip
import json
import lzma
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from potstill.config.corpus import FilesText, GeneratedText, HubText, TextSource
from potstill.data.corpus import CorpusError

#: Documents that the package writes itself: (source) -> texts. They come from above, where the writers are.
Generate = Callable[[GeneratedText], Iterator[str]]


@dataclass(frozen=True, slots=True)
class Document:
    """A text and where it stood."""

    where: str
    text: str


def read_documents(source: TextSource, generate: Generate, skipped: list[str]) -> Iterator[Document]:
    """All documents of a source in order; what is left out is told in `skipped`, with its place."""
    if isinstance(source, GeneratedText):
        for number, text in enumerate(generate(source), start=1):
            yield Document(f"{source.corpus}, document {number}", text)
    elif isinstance(source, HubText):
        yield from _from_hub(source)
    else:
        for path in files_of(source):
            yield from _from_file(path, source, skipped)


def files_of(source: FilesText) -> list[Path]:
    """The files that the patterns name, each once, in order. Raises CorpusError where a pattern names none."""
    found: dict[Path, None] = {}
    for pattern in source.paths:
        names = sorted(glob.glob(pattern, recursive=True))
        if not names:
            raise CorpusError(f"no file matches {pattern!r}; check `paths`")
        found |= dict.fromkeys(map(Path, names))
    return list(found)


def _from_file(path: Path, source: FilesText, skipped: list[str]) -> Iterator[Document]:
    name = path.stem if path.suffix in (".gz", ".xz") else path.name
    kind = Path(name).suffix
    if kind == ".jsonl":
        with _open(path) as handle:
            for number, line in enumerate(handle, start=1):
                if line.strip():
                    yield Document(f"{path}, line {number}", json.loads(line)[source.text])
    elif kind == ".txt":
        with _open(path) as handle:
            text = handle.read().decode("utf-8")
        cut = {"file": [text], "paragraph": text.split("\n\n"), "line": text.split("\n")}[source.txt_documents]
        for number, part in enumerate(cut, start=1):
            if part.strip():
                yield Document(f"{path}, {source.txt_documents} {number}", part)
    else:
        raise CorpusError(f"{path}: expected a name that ends in .txt, .jsonl or .parquet")


def _open(path: Path) -> IO[bytes]:
    if path.suffix == ".gz":
        return gzip.open(path, "rb")
    return lzma.open(path, "rb") if path.suffix == ".xz" else open(path, "rb")


def _from_hub(source: HubText) -> Iterator[Document]:
    import datasets

    stream = datasets.load_dataset(
        source.id, source.subset, revision=source.revision, split=source.split, streaming=True
    )
    for number, row in enumerate(stream, start=1):
        if source.documents is not None and number > source.documents:
            return
        yield Document(f"{source.id}, row {number}", row[source.text])
