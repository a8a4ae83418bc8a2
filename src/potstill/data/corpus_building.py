"""Makes a corpus: documents are read, shared out between training and measuring, and become tokens once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from potstill.config.corpus import CorpusConfig, FolderTokenizer, TextSource
from potstill.data.corpus import FORMAT, Corpus, open_corpus
from potstill.data.corpus_reading import Document, Generate, read_documents
from potstill.data.train_tokenizer import train_tokenizer
from potstill.run_dir import write_atomic

#: Documents that are handed to the tokenizer together; it works on all cores.
TOGETHER = 256


def make_corpus(config: CorpusConfig, folder: Path, generate: Generate) -> Corpus:
    """Write a corpus to `folder`; one that is there already is opened."""
    if (folder / "corpus.json").is_file():
        return open_corpus(folder)
    folder.mkdir(parents=True, exist_ok=True)
    skipped: list[str] = []
    tokenizer = _tokenizer(config, generate, skipped)
    tokenizer.save_pretrained(folder / "tokenizer")
    end = int(tokenizer.eos_token_id)
    dtype = "<u2" if len(tokenizer) < 2**16 else "<u4"
    sets: dict[str, Any] = {}
    for name, domain, documents, most in _sets(config, generate, skipped):
        sets[name] = {"domain": domain, **_write_set(folder, name, documents, tokenizer, end, dtype, most)}
    facts = {"format": FORMAT, "vocabulary": len(tokenizer), "end_id": end, "dtype": dtype, "sets": sets,
             "skipped": skipped, "config": config.model_dump(mode="json")}  # fmt: skip
    write_atomic(folder / "corpus.json", json.dumps(facts, indent=1).encode())
    return open_corpus(folder)


def _sets(
    config: CorpusConfig, generate: Generate, skipped: list[str]
) -> Iterator[tuple[str, str, Iterator[Document], int | None]]:
    """(name, domain, documents, most tokens) of every set."""
    most = config.measured_tokens
    if isinstance(config.held_out, float):
        share = config.held_out
        yield "train", "train", (d for d in _all(config.train, generate, skipped) if not is_held_out(d, share)), None
        yield "held_out", "in", (d for d in _all(config.train, generate, []) if is_held_out(d, share)), most
    else:
        yield "train", "train", _all(config.train, generate, skipped), None
        yield "held_out", "in", _all(config.held_out, generate, skipped), most
    for name, sources in config.out_of_domain.items():
        yield name, "out", _all(sources, generate, skipped), most


def is_held_out(document: Document, share: float) -> bool:
    """By its own hash: a text that stands twice is never on both sides."""
    digest = hashlib.sha256(document.text.encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def _all(sources: Iterable[TextSource], generate: Generate, skipped: list[str]) -> Iterator[Document]:
    return chain.from_iterable(read_documents(source, generate, skipped) for source in sources)


def _tokenizer(config: CorpusConfig, generate: Generate, skipped: list[str]) -> Any:
    if isinstance(config.tokenizer, FolderTokenizer):
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(config.tokenizer.path)
    return train_tokenizer(config.tokenizer, (d.text for d in _all(config.train, generate, [])))


def _write_set(
    folder: Path, name: str, documents: Iterator[Document], tokenizer: Any, end: int, dtype: str, most: int | None
) -> dict[str, int]:
    starts: list[int] = []
    written = size = 0
    with open(folder / f"{name}.tokens", "wb") as handle:
        while (part := list(islice(documents, TOGETHER))) and (most is None or written < most):
            encoded = tokenizer([d.text for d in part], add_special_tokens=False)["input_ids"]
            for document, ids in zip(part, encoded, strict=True):
                if most is not None and written >= most:
                    break
                starts.append(written)
                np.array([*ids, end], dtype=dtype).tofile(handle)
                written += len(ids) + 1
                size += len(document.text.encode())
    np.array(starts, dtype="<i8").tofile(folder / f"{name}.starts")
    return {"tokens": written, "documents": len(starts), "bytes": size}
