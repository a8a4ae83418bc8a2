"""How much of what is measured stands in the training text, word for word.

Two texts share a piece if `length` words in a row are the same in both, small letters and without
punctuation (n-gram overlap: Brown et al. 2020, "Language Models are Few-Shot Learners", appendix C,
with 13 words). A document with fewer words is a piece as a whole. While the training text becomes
tokens, a number for each of its words is written to a file; afterwards the pieces of the measured
documents, of which there are few, are looked for in it, a few million words at a time.
"""

from __future__ import annotations

import json
import re
import zlib
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from potstill.data.corpus import CorpusError
from potstill.data.corpus_reading import Document
from potstill.data.long_texts import pieces

#: Words of the training text that are in memory at once.
CHUNK = 1 << 21
#: Examples for each set, and characters of one.
EXAMPLES, EXCERPT = 3, 200
#: Where a script has no spaces, a letter counts as a word.
_NO_SPACES = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3041-\u3096\u30a1-\u30fa\u3400-\u4dbf\u4e00-\u9fff"
_WORD = re.compile(rf"[{_NO_SPACES}]|[^\W_{_NO_SPACES}]+")
_FACTOR = np.uint64(0x9E3779B97F4A7C15)


def word_numbers(text: str) -> np.ndarray:
    """[words] uint32, a number for each word: the same for the same word, nearly always another for another."""
    found = [np.zeros(0, np.uint32)]
    for piece, _ in pieces(text):  # of a long text the words would take ten times its memory
        words = _WORD.findall(piece.lower())
        found.append(np.fromiter(map(zlib.crc32, map(str.encode, words)), np.uint32, len(words)))
    return np.concatenate(found)


class WordsWriter:
    """The training text's words on disk: their numbers, where documents begin, and where each stood."""

    def __init__(self, folder: Path):
        self.folder, self.starts, self.words, self._finished = folder, array("q"), 0, False
        self._numbers = open(folder / "train.words", "wb")  # noqa: SIM115  # closed by finish or close
        self._places = open(folder / "train.places", "w", encoding="utf-8")  # noqa: SIM115

    def add(self, document: Document) -> None:
        numbers = word_numbers(document.text)
        self.starts.append(self.words)
        self.words += len(numbers)
        self._numbers.write(numbers.tobytes())
        self._places.write(document.where.replace("\n", " ") + "\n")

    def finish(self) -> None:
        """Close the files, and add where documents begin."""
        self._numbers.close()
        self._places.close()
        (self.folder / "train.word_starts").write_bytes(np.array(self.starts, dtype="<i8").tobytes())
        self._finished = True

    def close(self) -> None:
        """Remove what is unfinished; the files go first, as closing one may fail on a full disk."""
        if not self._finished:
            for name in ("train.words", "train.places"):
                (self.folder / name).unlink(missing_ok=True)
            try:
                self._numbers.close()
            finally:
                self._places.close()


class _Measured:
    """A measured document, and which of its words stand in pieces that training has too."""

    def __init__(self, where: str, text: str, length: int):
        self.where, self.text = where, text
        self.numbers = word_numbers(text)
        self.length = min(length, len(self.numbers))
        self.shared = np.zeros(len(self.numbers), dtype=bool)
        self.training = -1  # the first training document that a piece was found in

    def share(self, at: int, training: int) -> None:
        self.shared[at : at + self.length] = True
        self.training = training if self.training < 0 else min(self.training, training)


@dataclass
class _Pieces:
    """All pieces of one length: sorted hashes, whose they are, and the training document that has each."""

    documents: list[_Measured] = field(default_factory=list)

    def hashes(self, length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(hash, document, place in it) of every piece, sorted by hash."""
        found = [_rolling(document.numbers, length) for document in self.documents]
        owner = np.repeat(np.arange(len(found)), [len(f) for f in found])
        place = np.concatenate([np.arange(len(f)) for f in found])
        values = np.concatenate(found)
        order = np.argsort(values, kind="stable")
        return values[order], owner[order], place[order]


def measure_contamination(folder: Path, sets: Sequence[str], length: int) -> dict[str, Any]:
    """Per set: documents, touched, share of documents, words_share, the worst examples.

    folder: holds what `WordsWriter` wrote, and SET.texts for every measured set (`write_texts`).
    """
    measured = {name: [_Measured(d.where, d.text, length) for d in read_texts(folder, name)] for name in sets}
    by_length: dict[int, _Pieces] = {}
    for document in (d for documents in measured.values() for d in documents if d.length):
        by_length.setdefault(document.length, _Pieces()).documents.append(document)
    words = folder / "train.words"
    numbers = np.memmap(words, dtype=np.uint32, mode="r") if words.stat().st_size else np.zeros(0, np.uint32)
    starts = np.fromfile(folder / "train.word_starts", dtype="<i8")
    for size, sought in by_length.items():
        _search(numbers, starts, size, sought)
    wanted = {d.training for documents in measured.values() for d in documents}
    places = _places(folder / "train.places", wanted)
    return {name: _facts(documents, places) for name, documents in measured.items()}


def _rolling(numbers: np.ndarray, length: int) -> np.ndarray:
    """[words - length + 1] uint64, a hash of every `length` words in a row."""
    mixed = _mix(numbers.astype(np.uint64))
    count = max(0, len(mixed) - length + 1)
    hashes = np.zeros(count, dtype=np.uint64)
    for offset in range(length):
        hashes *= _FACTOR
        hashes += mixed[offset : offset + count]
    return _mix(hashes)


def _mix(values: np.ndarray) -> np.ndarray:
    """Spread numbers over 64 bits (the finaliser of splitmix64)."""
    values = values + _FACTOR
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    values ^= values >> np.uint64(31)
    return values


def _search(numbers: np.ndarray, starts: np.ndarray, length: int, sought: _Pieces) -> None:
    """Mark the pieces that stand within one document of the training text."""
    hashes, owner, place = sought.hashes(length)
    # A table of what the lowest bits may be settles nearly every place of the training text with one look.
    table = np.zeros(1 << 24, dtype=bool)
    low = np.uint64(len(table) - 1)
    table[hashes & low] = True
    found = np.full(len(hashes), -1, dtype=np.int64)  # which training document has it
    ends = np.append(starts[1:], len(numbers))
    for begin in range(0, len(numbers), CHUNK):
        here = _rolling(np.asarray(numbers[begin : begin + CHUNK + length - 1]), length)
        at = np.flatnonzero(table[here & low])
        rank = np.searchsorted(hashes, here[at])
        same = hashes[np.minimum(rank, len(hashes) - 1)] == here[at]
        at, rank = at[same] + begin, rank[same]
        document = np.searchsorted(starts, at, side="right") - 1
        inside = ends[document] >= at + length
        rank, document = rank[inside], document[inside]
        first, index = np.unique(rank, return_index=True)
        new = found[first] < 0
        found[first[new]] = document[index[new]]
    found = found[np.searchsorted(hashes, hashes)]  # the same piece may stand in several documents
    for entry in np.flatnonzero(found >= 0):
        sought.documents[owner[entry]].share(int(place[entry]), int(found[entry]))


def _facts(documents: list[_Measured], places: Mapping[int, str]) -> dict[str, Any]:
    touched = [d for d in documents if d.shared.any()]
    words = sum(len(d.numbers) for d in documents)
    worst = sorted(touched, key=lambda d: (-int(d.shared.sum()), d.where))[:EXAMPLES]
    return {
        "documents": len(documents),
        "touched": len(touched),
        "share": len(touched) / len(documents) if documents else 0.0,
        "words_share": sum(int(d.shared.sum()) for d in touched) / words if words else 0.0,
        "examples": [_example(d, places[d.training]) for d in worst],
    }


def _example(document: _Measured, training: str) -> dict[str, Any]:
    """The longest stretch of shared words, as it stands in the measured document."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], document.shared, [False]]).astype(np.int8)))
    begins, ends = edges[::2], edges[1::2]
    longest = int(np.argmax(ends - begins))
    # Lowering may change a text's length (İ), so the words are found again in the lowered text.
    lowered = document.text.lower()
    spans = [found.span() for found in _WORD.finditer(lowered)]
    text = document.text if len(lowered) == len(document.text) else lowered
    excerpt = " ".join(text[spans[int(begins[longest])][0] : spans[int(ends[longest]) - 1][1]].split())
    return {
        "document": document.where,
        "training": training,
        "shared_words": int(document.shared.sum()),
        "words": len(document.numbers),
        "text": excerpt if len(excerpt) <= EXCERPT else f"{excerpt[: EXCERPT - 1]}…",
    }


def refuse_contaminated(found: Mapping[str, Mapping[str, Any]], most: float, length: int) -> None:
    """Raises CorpusError where a set's share of touched documents is above `most`, with its worst example."""
    faults = [
        f"  {name}: {facts['touched']:,} of {facts['documents']:,} documents ({100 * facts['share']:.1f} %), "
        f"{100 * facts['words_share']:.1f} % of the words; {facts['examples'][0]['document']} and "
        f"{facts['examples'][0]['training']} both have {facts['examples'][0]['text']!r}"
        for name, facts in found.items()
        if facts["share"] > most
    ]
    if faults:
        raise CorpusError(
            f"more than {100 * most:g} % of a measured set's documents share {length} words in a row with the training "
            "text, so that what is measured there is partly memory:\n" + "\n".join(faults) + "\nTake the shared "
            "documents out of one side; or, where such text repeats itself by nature, set `most_contaminated` higher "
            "(1: only told)."
        )


def write_texts(folder: Path, name: str, documents: Iterable[Document]) -> None:
    """Keep a measured set's texts for `measure_contamination`."""
    with open(folder / f"{name}.texts", "w", encoding="utf-8") as handle:
        handle.writelines(json.dumps([d.where, d.text]) + "\n" for d in documents)


def read_texts(folder: Path, name: str) -> Iterator[Document]:
    """What `write_texts` wrote."""
    with open(folder / f"{name}.texts", encoding="utf-8") as handle:
        for line in handle:
            yield Document(*json.loads(line))


def _places(path: Path, wanted: set[int]) -> dict[int, str]:
    with open(path, encoding="utf-8") as handle:
        return {number: line.rstrip("\n") for number, line in enumerate(handle) if number in wanted}
