"""From documents to token ids on disk: a tokenizer on all cores, and a writer for each set."""

from __future__ import annotations

import hashlib
import os
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from potstill.data.corpus import CorpusError
from potstill.data.corpus_reading import Document
from potstill.data.long_texts import AROUND, pieces

#: Characters that are with the tokenizer at once, about.
CHARACTERS = 1 << 21


class Encoder:
    """A fast tokenizer's ids of whole documents, the end token not among them."""

    def __init__(self, tokenizer: Any):
        if not getattr(tokenizer, "is_fast", False):
            raise CorpusError(
                f"expected a fast tokenizer (a folder with tokenizer.json), found {type(tokenizer).__name__}. Convert "
                "it: load it with Transformers and save it again with `save_pretrained`."
            )
        if tokenizer.eos_token_id is None:
            raise CorpusError(
                "the tokenizer has no end token, which every document ends with. Set one "
                "(`tokenizer.eos_token = ...`) and save it again with `save_pretrained`."
            )
        self.core = tokenizer.backend_tokenizer
        self.core.no_truncation()
        self.core.no_padding()
        self.end, self.unknown = int(tokenizer.eos_token_id), tokenizer.unk_token_id
        self.vocabulary = max(len(tokenizer), 1 + max(tokenizer.get_vocab().values()))
        self.dtype = "<u2" if self.vocabulary < 2**16 else "<u4"
        self.inexact_cuts = 0
        if self.end >= self.vocabulary:
            raise CorpusError(f"the end token's id {self.end} lies outside of the vocabulary of {self.vocabulary}")

    def __call__(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Ids of each text, in the corpus's dtype. Long texts are cut where that changes no token."""
        cut = [list(pieces(text, self._agrees)) for text in texts]
        self.inexact_cuts += sum(not exact for parts in cut for _, exact in parts)
        encoded = iter(self._encode([piece for parts in cut for piece, _ in parts]))
        return [np.concatenate([next(encoded) for _ in parts]) for parts in cut]

    def _encode(self, texts: list[str]) -> list[np.ndarray]:
        """Some megabytes at a time: what the tokenizer answers takes a hundred bytes for a token."""
        found: list[np.ndarray] = []
        group: list[str] = []
        for number, text in enumerate(texts, start=1):
            group.append(text)
            if number == len(texts) or sum(map(len, group)) >= CHARACTERS:
                answers = self.core.encode_batch_fast(group, add_special_tokens=False)
                found += [np.array(answer.ids, dtype=self.dtype) for answer in answers]
                group = []
        return found

    def _agrees(self, text: str, place: int) -> bool:
        left, right = text[max(0, place - AROUND) : place], text[place : place + AROUND]
        both, first, second = self._encode([left + right, left, right])
        return np.array_equal(both, np.concatenate([first, second]))


@contextmanager
def all_cores() -> Iterator[None]:
    """Let the tokenizers use every core meanwhile, whatever the environment says of them otherwise."""
    before = os.environ.get("TOKENIZERS_PARALLELISM")
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    try:
        yield
    finally:
        if before is None:
            del os.environ["TOKENIZERS_PARALLELISM"]
        else:
            os.environ["TOKENIZERS_PARALLELISM"] = before


class SetWriter:
    """Writes one set under names that say it is unfinished; `finish` renames them."""

    def __init__(self, folder: Path, name: str, encoder: Encoder, most: int | None):
        self.folder, self.name, self.encoder, self.most = folder, name, encoder, most
        self.starts, self.fingerprints = array("q"), array("Q")
        self.tokens = self.bytes = self.unknown = self.beyond = self.with_end = 0
        self.first_with_end = ""
        self._file = open(self._unfinished("tokens"), "wb")  # noqa: SIM115  # closed by finish or close

    @property
    def full(self) -> bool:
        return self.most is not None and self.tokens >= self.most

    def add(self, document: Document, ids: np.ndarray) -> bool:
        """Whether the document was written: a full set takes no more."""
        if self.full:
            self.beyond += 1
            return False
        if ids.size and int(ids.max()) >= self.encoder.vocabulary:
            raise CorpusError(f"{document.where}: the tokenizer gave id {ids.max()}, beyond its vocabulary")
        self._file.write(ids.tobytes())
        self._file.write(np.array([self.encoder.end], dtype=self.encoder.dtype).tobytes())
        data = document.text.encode()
        self.fingerprints.append(int.from_bytes(hashlib.sha256(data).digest()[:8], "big"))
        self.starts.append(self.tokens)
        self.tokens += len(ids) + 1
        self.bytes += len(data)
        if self.encoder.unknown is not None:
            self.unknown += int(np.count_nonzero(ids == self.encoder.unknown))
        if self.encoder.end in ids:
            self.with_end += 1
            self.first_with_end = self.first_with_end or document.where
        return True

    def finish(self) -> dict[str, int]:
        """Put the files into place; tokens, documents and bytes. Raises CorpusError where there is no document."""
        if not self.starts:
            raise CorpusError(self._nothing())
        self._unfinished("starts").write_bytes(np.array(self.starts, dtype="<i8").tobytes())
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        for part in ("starts", "tokens"):
            os.replace(self._unfinished(part), self.folder / f"{self.name}.{part}")
        return {"tokens": self.tokens, "documents": len(self.starts), "bytes": self.bytes}

    def close(self) -> None:
        """Remove what is unfinished; the files go first, as closing one may fail on a full disk."""
        for part in ("starts", "tokens"):
            self._unfinished(part).unlink(missing_ok=True)
        self._file.close()

    def notes(self) -> list[str]:
        """In words, what a reader of the corpus should know of the set."""
        found = []
        twice = len(self.fingerprints) - len(np.unique(np.array(self.fingerprints, dtype=np.uint64)))
        if twice:
            found.append(f"{self.name}: {twice:,} documents are exact copies of others in the set; they are kept")
        if self.with_end:
            found.append(
                f"{self.name}: the text of {self.with_end:,} documents holds the end token, first {self.first_with_end}"
            )
        if self.unknown:
            found.append(f"{self.name}: {self.unknown:,} of {self.tokens:,} tokens are unknown to the tokenizer")
        return found

    def _nothing(self) -> str:
        if self.name == "held_out":
            return (
                "no document fell to the held-out share: there are too few. Raise `held_out`, cut the text into more "
                "documents (`txt_documents`), or name held-out documents of their own."
            )
        return f"the set {self.name} has no documents. Check its sources, and what was left out of them."

    def _unfinished(self, part: str) -> Path:
        return self.folder / f".unfinished-{self.name}.{part}"
