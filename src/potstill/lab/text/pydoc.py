"""The prose of Python's own reference, which every CPython carries as `pydoc_data.topics`.

It is read where Python keeps it and never copied into this project; its licence is Python's (PSF). Tables, grammar
rules, code and lists of links are left out: what stays are paragraphs of sentences. How much there is depends on
the version of Python.
"""

from __future__ import annotations

import re
from functools import cache

from potstill.lab.text.draw import Dice

#: Typographic quotation marks, dashes, dots and the multiplication sign, by code point.
_ASCII = {0x2018: "'", 0x2019: "'", 0x201C: '"', 0x201D: '"', 0x2013: "-", 0x2014: "-", 0x2026: "...", 0xD7: "x"}
_UNDERLINE = re.compile(r"[*=~^\-+|#.]{3,}\s*$")
_ENDS = (".", ":", "!", "?", ")", '"')
#: A section longer than this is split between paragraphs, so that documents are of like size.
_LONGEST = 3000
_SHORTEST = 200


@cache
def sections() -> tuple[str, ...]:
    """The documents, in the order of the reference. None is repeated, none is shorter than 200 characters."""
    from pydoc_data.topics import topics  # half a megabyte or more that only this corpus needs

    found: dict[str, None] = {}
    for name in sorted(topics):
        for section in _split(topics[name]):
            kept = [text for text in (_paragraph(block) for block in section) if text]
            found.update(dict.fromkeys(_documents(kept)))
    return tuple(found)


def shuffled(seed: int) -> list[str]:
    """All documents in an order drawn by the seed."""
    documents = list(sections())
    return Dice("pydoc", seed, 0).some(documents, len(documents))


def _split(topic: str) -> list[list[str]]:
    """Blocks between blank lines, a new list at every underlined heading."""
    parts: list[list[str]] = [[]]
    for block in re.split(r"\n[ \t]*\n", topic):
        lines = block.strip("\n").split("\n")
        if len(lines) == 2 and _UNDERLINE.match(lines[1]):
            parts.append([])
        else:
            parts[-1].append(block.strip("\n"))
    return parts


def _paragraph(block: str) -> str:
    """The block as one line where it is made of sentences, or nothing."""
    if "::=" in block or ">>>" in block or "|" in block or "---" in block or "===" in block:
        return ""
    text = re.sub(r"^(\*|-|\d+\.) ", "", " ".join(block.split()))
    text = text.translate(_ASCII).replace("**", "").replace("*", "")
    text = re.sub(r" ?\[\d+\]", "", text)
    words = re.findall(r"[A-Za-z]{2,}", text)
    sentence_like = text[:1].isalpha() and len(words) >= 6 and text.endswith(_ENDS)
    symbols = sum(not (c.isalnum() or c.isspace() or c in ".,'\"-") for c in text)
    if not sentence_like or symbols > len(text) * 0.08 or re.match(r"[a-z]+ .*[=({]", text):
        return ""
    return text if text.isascii() and text.isprintable() else ""


def _documents(paragraphs: list[str]) -> list[str]:
    documents = [""]
    for text in paragraphs:
        if len(documents[-1]) + len(text) > _LONGEST and documents[-1]:
            documents.append("")
        documents[-1] += ("\n" if documents[-1] else "") + text
    return [text for text in documents if len(text) >= _SHORTEST]
