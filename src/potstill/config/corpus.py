"""Text for pretraining: where documents come from, how they become tokens, what is held out."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, model_validator

from potstill.config.base import Frozen
from potstill.config.lab import Bpe, Characters, Corpus


class FilesText(Frozen):
    """Documents in files."""

    kind: Literal["files"]
    paths: tuple[str, ...] = Field(min_length=1)
    """Files, or patterns such as `books/*.jsonl.gz`: .txt, .jsonl or .parquet; text may be compressed (.gz, .xz)."""
    text: str = "text"
    """Column that holds a document's text, in .jsonl and .parquet."""
    txt_documents: Literal["file", "paragraph", "line"] = "file"
    """What a document is in a .txt file."""
    on_broken: Literal["refuse", "skip"] = "refuse"
    """What to do with a line, row or file that cannot be read (no UTF-8, no JSON): refuse the corpus, or leave
    it out and say so with its place."""


class HubText(Frozen):
    """Documents of a data set on the hub, streamed."""

    kind: Literal["hub"]
    id: str
    revision: str
    """Commit of its repository."""
    split: str = "train"
    subset: str | None = None
    text: str = "text"
    """Column that holds a document's text."""
    documents: int | None = Field(default=None, ge=1)
    """The first so many; null: all."""
    on_broken: Literal["refuse", "skip"] = "refuse"
    """What to do with a row that holds no text: refuse the corpus, or leave it out and say so."""


class GeneratedText(Frozen):
    """Documents that the package writes itself, or that Python brings (pydoc)."""

    kind: Literal["generated"]
    corpus: Corpus
    chars: int = Field(ge=1000)
    """At least so many characters, in whole documents."""
    seed: int = 0


TextSource = Annotated[FilesText | HubText | GeneratedText, Field(discriminator="kind")]


class FolderTokenizer(Frozen):
    """A tokenizer that exists: a folder as `save_pretrained` writes it."""

    kind: Literal["folder"]
    path: str


class CorpusConfig(Frozen):
    """A corpus: documents to train on, a held-out share of them, and sets from elsewhere."""

    train: tuple[TextSource, ...] = Field(min_length=1)
    """Documents to train on."""
    held_out: float | tuple[TextSource, ...] = 0.02
    """The share of the training documents that is set aside, chosen by a hash of each text; or documents of
    their own. It is the in-domain set."""
    out_of_domain: dict[str, tuple[TextSource, ...]] = Field(default={})
    """Sets that are only measured on, by name."""
    tokenizer: Annotated[Bpe | Characters | FolderTokenizer, Field(discriminator="kind")]
    """Trained on the training documents, or taken from a folder."""
    measured_tokens: int = Field(default=1_000_000, ge=1000)
    """Most tokens of the held-out set, and of every other set, that are kept to measure on."""
    contamination_words: int = Field(default=13, ge=3)
    """Length, in words, of the pieces that a measured document must not share with the training text."""
    most_contaminated: float = Field(default=0.1, ge=0, le=1)
    """Share of a set's documents with such a piece, above which the corpus is refused. 1: only told."""

    @model_validator(mode="after")
    def _names_fit(self) -> CorpusConfig:
        for name in self.out_of_domain:
            if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name) or name in ("train", "held_out", "tokenizer"):
                raise ValueError(
                    f"out_of_domain: {name!r} cannot name a set; use small letters, digits, - and _, and not train, "
                    "held_out or tokenizer"
                )
        if isinstance(self.held_out, float) and not 0 < self.held_out < 0.5:
            raise ValueError(f"held_out must be a share between 0 and 0.5, or documents, found {self.held_out}")
        return self

    def sources(self) -> list[TextSource]:
        """Of every set, the training text's first."""
        held_out = () if isinstance(self.held_out, float) else self.held_out
        return [*self.train, *held_out, *(source for some in self.out_of_domain.values() for source in some)]


__all__ = ["CorpusConfig", "FilesText", "FolderTokenizer", "GeneratedText", "HubText", "TextSource"]
