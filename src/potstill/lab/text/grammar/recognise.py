"""Is it a sentence of the invented language? An exact answer, by looking for a derivation.

The recogniser tries the very rules that sentences are drawn from, to any depth. It knows nothing of weights: rare
sentences are as right as common ones.
"""

from __future__ import annotations

from potstill.lab.text.grammar.lexicon import PLACES
from potstill.lab.text.grammar.rules import RULES

_STOPS = (".", "?")


def is_grammatical(sentence: str) -> bool:
    """Whether the rules derive this one sentence, written with single blanks and its stop behind the last word.

    Unknown words, several sentences and other white space are not grammatical.
    """
    if sentence[-1:] not in _STOPS:
        return False
    words = [*sentence[:-1].split(" "), sentence[-1]]
    if any(word not in PLACES for word in words):
        return False
    return len(words) in _Chart([PLACES[word] for word in words]).ends("S", 0)


class _Chart:
    """Where each phrase that begins at a word can end, found once and kept."""

    def __init__(self, places: list[str]) -> None:
        self._places = places
        self._ends: dict[tuple[str, int], frozenset[int]] = {}

    def ends(self, symbol: str, start: int) -> frozenset[int]:
        """Positions behind the last word of every such phrase. No rule begins with itself, so this comes to an end."""
        if symbol not in RULES:
            fits = start < len(self._places) and self._places[start] == symbol
            return frozenset((start + 1,)) if fits else frozenset()
        key = (symbol, start)
        if key not in self._ends:
            self._ends[key] = frozenset(end for rule in RULES[symbol] for end in self._sequence(rule.parts, start))
        return self._ends[key]

    def _sequence(self, parts: tuple[str, ...], start: int) -> set[int]:
        reached = {start}
        for part in parts:
            reached = {end for at in reached for end in self.ends(part, at)}
            if not reached:
                break
        return reached
