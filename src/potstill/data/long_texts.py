"""Cuts a long text into pieces that a tokenizer can be handed one by one, where cutting changes no token.

A tokenizer needs some hundred bytes for every character that it is handed, so a line of 50 MB
would take gigabytes. Byte-level BPE splits a text into words before anything else, and a space
belongs to the word behind it (`GPT2Tokenizer`'s pattern ` ?\\p{L}+`): between a word and a
single space it never makes a token, and a cut there is exact. Other tokenizers are asked: a
place is taken if what stands around it has the same tokens in one piece and in two.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

#: Characters of a piece, about; shorter texts are not cut.
PIECE = 1 << 18
#: Where no place is found within so many characters, the cut falls anywhere.
REACH = 1 << 18
#: Characters on either side of a place that a tokenizer is asked about, and places that it is asked about.
AROUND, TRIES = 200, 8
_BEFORE_A_SPACE = re.compile(r"(?<=\S) (?=\S)")

#: text, place -> whether the tokens are the same with a cut there.
Agrees = Callable[[str, int], bool]


def pieces(text: str, agrees: Agrees | None = None) -> Iterator[tuple[str, bool]]:
    """A text's pieces in order, each with whether the cut at its end is exact.

    agrees: asked for every place before a space; None for a tokenizer that is known to split there. A tokenizer that
    agrees to none of TRIES places cannot be cut, and the rest of the text is one piece. Where there is no space in
    REACH characters the cut is made all the same, and is not exact.
    """
    start = 0
    while len(text) - start > PIECE:
        place, exact = _next_place(text, start + PIECE, agrees)
        if place is None:
            break
        yield text[start:place], exact
        start = place
    yield text[start:], True


def _next_place(text: str, goal: int, agrees: Agrees | None) -> tuple[int | None, bool]:
    tries = 0
    for found in _BEFORE_A_SPACE.finditer(text, goal, min(len(text), goal + REACH)):
        if agrees is None or agrees(text, found.start()):
            return found.start(), True
        tries += 1
        if tries == TRIES:
            return None, True
    return (goal, False) if tries == 0 and goal + REACH < len(text) else (None, True)
