"""Sentences and paragraphs of the invented language, drawn from its rules.

A paragraph keeps to a few words of each kind, as a text with a subject does, and mixes in others by how common
they are.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from potstill.lab.text.draw import Dice, zipf
from potstill.lab.text.grammar.lexicon import FORMS, KINDS
from potstill.lab.text.grammar.rules import CUMULATIVE, MAX_DEPTH, OUTER, RULES

_SIZES = {KINDS[name]: len(words) for name, words in FORMS.items()}
_ZIPF = {kind: zipf(size) for kind, size in _SIZES.items()}
_FAVOURITES = 8
_FAVOURITE_SHARE = 0.7


@dataclass(slots=True)
class Drawn:
    """A sentence with what is known about its words."""

    words: list[str] = field(default_factory=list)
    #: Preterminal and stem of every word.
    places: list[tuple[str, int]] = field(default_factory=list)
    #: (kind, position of the controller, position of the word that agrees with it).
    links: list[tuple[str, int, int]] = field(default_factory=list)

    def text(self) -> str:
        """The sentence as it is written, its stop behind the last word."""
        return write_words(self.words)


def write_words(words: list[str]) -> str:
    """Words with blanks between, but none before the stop."""
    return " ".join(words[:-1]) + words[-1]


class Speaker:
    """Draws the sentences of one document."""

    def __init__(self, dice: Dice) -> None:
        self._dice = dice
        self._favourites: dict[str, list[int]] = {}

    def sentence(self) -> Drawn:
        """One sentence of the language."""
        drawn = Drawn()
        self._expand("S", 0, OUTER, drawn)
        return drawn

    def _expand(self, symbol: str, depth: int, outer: int, drawn: Drawn) -> int:
        """Append the words of a phrase; the position of its head."""
        if symbol not in RULES:
            stem = self._stem(KINDS[symbol])
            drawn.words.append(FORMS[symbol][stem])
            drawn.places.append((symbol, stem))
            return len(drawn.words) - 1
        rule = RULES[symbol][self._dice.weighted(CUMULATIVE[symbol][depth])]
        inner = min(depth + rule.nests, MAX_DEPTH)
        heads: list[int] = []
        for at, part in enumerate(rule.parts):
            whose = rule.outers[at] if rule.outers else OUTER
            heads.append(self._expand(part, inner, outer if whose == OUTER else heads[whose], drawn))
        for link in rule.links:
            controller = outer if link.controller == OUTER else heads[link.controller]
            drawn.links.append((link.kind, controller, heads[link.target]))
        return heads[rule.head]

    def _stem(self, kind: str) -> int:
        size = _SIZES[kind]
        if size == 1:
            return 0
        if size <= _FAVOURITES or not self._dice.chance(_FAVOURITE_SHARE):
            return self._dice.weighted(_ZIPF[kind])
        favourites = self._favourites.get(kind)
        if favourites is None:
            favourites = [self._dice.weighted(_ZIPF[kind]) for _ in range(_FAVOURITES)]
            self._favourites[kind] = favourites
        return self._dice.pick(favourites)


def paragraph(seed: int, index: int) -> str:
    """Document `index` of the grammar corpus: four to sixteen sentences on one line."""
    dice = Dice("grammar", seed, index)
    speaker = Speaker(dice)
    return " ".join(speaker.sentence().text() for _ in range(dice.whole(4, 16)))
