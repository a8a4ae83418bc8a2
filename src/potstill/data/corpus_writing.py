"""Shares documents out among sets, and turns them into tokens while the next ones are read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from potstill.data.contamination import WordsWriter, write_texts
from potstill.data.corpus_reading import Document
from potstill.data.corpus_stages import Meter
from potstill.data.corpus_tokens import CHARACTERS, Encoder, SetWriter

#: Documents that are handed to the tokenizer together, at most; it works on all cores.
TOGETHER = 256


@dataclass
class Written:
    """A set that is being written, and what the search for shared pieces needs of it."""

    writer: SetWriter
    words: WordsWriter | None
    texts: list[Document] = field(default_factory=list)

    def add(self, document: Document, ids: np.ndarray) -> None:
        if self.writer.add(document, ids):
            if self.words is not None:
                self.words.add(document)
            else:
                self.texts.append(document)

    def finish(self, folder: Path) -> dict[str, int]:
        """Raises CorpusError where there is no document."""
        if self.words is not None:
            self.words.finish()
        else:
            write_texts(folder, self.writer.name, self.texts)
        return self.writer.finish()

    def close(self) -> None:
        """Remove what is unfinished."""
        try:
            if self.words is not None:
                self.words.close()
        finally:
            self.writer.close()

    def notes(self) -> list[str]:
        return self.writer.notes()


def is_held_out(document: Document, share: float) -> bool:
    """By its own hash: a text that stands twice is never on both sides."""
    digest = hashlib.sha256(document.text.encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def write_documents(
    documents: Iterator[Document],
    route: Callable[[Document], Written],
    sets: Collection[Written],
    encoder: Encoder,
    meter: Meter,
) -> None:
    """Write every document to the set that `route` names, until all sets are full.

    One group of documents becomes tokens, on all cores and without Python's lock, while the one before is written
    and the next is read.
    """
    waiting: tuple[list[Document], Future[list[np.ndarray]]] | None = None
    with ThreadPoolExecutor(1) as pool:
        for group in _groups(documents):
            job = (group, pool.submit(encoder, [document.text for document in group]))
            if waiting is not None:
                _write(*waiting, route, meter)
            waiting = job
            if all(one.writer.full for one in sets):
                break
        if waiting is not None:
            _write(*waiting, route, meter)
    meter.tell()
    meter.end()


def _write(
    group: list[Document], ids: Future[list[np.ndarray]], route: Callable[[Document], Written], meter: Meter
) -> None:
    found = ids.result()
    for document, of_document in zip(group, found, strict=True):
        route(document).add(document, of_document)
    meter.tell(sum(len(of_document) + 1 for of_document in found))


def _groups(documents: Iterator[Document]) -> Iterator[list[Document]]:
    group: list[Document] = []
    characters = 0
    for document in documents:
        group.append(document)
        characters += len(document.text)
        if len(group) == TOGETHER or characters >= CHARACTERS:
            yield group
            group, characters = [], 0
    if group:
        yield group
