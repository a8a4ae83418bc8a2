"""Documents of five kinds by name and seed, and texts of a given length made of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from itertools import count
from typing import Literal, get_args

from potstill.lab.text import docstrings, pydoc
from potstill.lab.text.grammar import paragraph
from potstill.lab.text.prose import piece
from potstill.lab.text.technical import manual

CorpusName = Literal["pydoc", "prose", "technical", "grammar", "docstrings"]
Part = Literal["all", "train", "held_out"]
CORPORA: tuple[CorpusName, ...] = get_args(CorpusName)
#: Which share of the documents is held out, whatever the seed.
HELD_OUT_SHARE = 0.1
SEPARATOR = "\n\n"

_MAKERS: dict[str, Callable[[int, int], str]] = {"prose": piece, "technical": manual, "grammar": paragraph}


def documents(name: CorpusName, seed: int) -> Iterator[str]:
    """The documents of a corpus, without end; those of pydoc and docstrings end, and their seed sets the order alone.

    Document number i depends on name, seed and i, on nothing else. Printable ASCII and newlines. Raises ValueError
    for an unknown name.
    """
    if name not in CORPORA:
        raise ValueError(f"expected one of {', '.join(CORPORA)}, found {name!r}")
    if name == "pydoc":
        return iter(pydoc.shuffled(seed))
    if name == "docstrings":
        return docstrings.shuffled(seed)
    maker = _MAKERS[name]
    return (maker(seed, index) for index in count())


def held_out(document: str) -> bool:
    """Whether a document belongs to the held-out tenth, by its own hash: a text is never on both sides."""
    digest = hashlib.sha256(document.encode()).digest()
    return int.from_bytes(digest[:8], "big") < HELD_OUT_SHARE * 2**64


def corpus(name: CorpusName, seed: int, num_chars: int, part: Part = "all") -> str:
    """Whole documents of one part, a blank line between them, until there are at least `num_chars` characters.

    Raises ValueError where the corpus has less than that, as pydoc and docstrings may, and for unknown names.
    """
    if part not in get_args(Part):
        raise ValueError(f"expected part to be one of {', '.join(get_args(Part))}, found {part!r}")
    chosen: list[str] = []
    length = -len(SEPARATOR)
    stream = documents(name, seed)
    while length < num_chars:
        document = next(stream, None)
        if document is None:
            raise ValueError(
                f"{name} (part {part}) has {max(length, 0)} characters, {num_chars} were asked for: ask for fewer, or"
                " take a corpus that is generated (prose, technical, grammar)"
            )
        if part == "all" or held_out(document) == (part == "held_out"):
            chosen.append(document)
            length += len(document) + len(SEPARATOR)
    return SEPARATOR.join(chosen)
