"""Small corpora for tests: files of documents, a configuration over them, and a build."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from potstill.config.corpus import CorpusConfig, FilesText, GeneratedText
from potstill.data.corpus import Corpus
from potstill.data.corpus_building import make_corpus
from potstill.data.corpus_reading import Document, Reading, read_documents

#: Words for documents that nobody wrote.
WORDS = tuple(
    f"{first}{second}"
    for first in ("bo", "tra", "hu", "ri", "sto")
    for second in ("n", "rd", "lette", "wi", "gu", "ma")
)


def texts(count: int, seed: int = 0, words: int = 60) -> list[str]:
    """Documents of random words: no two share a long piece."""
    dice = random.Random(seed)
    return [" ".join(dice.choice(WORDS) for _ in range(words)).capitalize() + "." for _ in range(count)]


def write_jsonl(path: Path, documents: Sequence[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in documents))
    return path


def pack(path: Path) -> Path:
    """A .gz beside a file."""
    packed = path.with_name(path.name + ".gz")
    packed.write_bytes(gzip.compress(path.read_bytes(), mtime=0))
    return packed


def files(*paths: Path | str, **settings: Any) -> dict[str, Any]:
    return {"kind": "files", "paths": [str(path) for path in paths], **settings}


def config(train: dict[str, Any], **settings: Any) -> CorpusConfig:
    known = {"tokenizer": {"kind": "bpe", "vocabulary": 400}, "held_out": 0.2, "train": [train]}
    return CorpusConfig.model_validate(known | settings)


def no_text(source: GeneratedText) -> Iterator[str]:
    raise AssertionError(f"nobody asked for {source}")


def make(folder: Path, settings: CorpusConfig, progress: Callable[..., bool] | None = None) -> Corpus:
    return make_corpus(settings, folder, no_text, progress)


def read(source: dict[str, Any]) -> tuple[list[Document], Reading]:
    """All documents of a source of files, and what was left out."""
    reading = Reading()
    return list(read_documents(FilesText.model_validate(source), no_text, reading)), reading


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
