"""Minimal pairs: a right sentence and a wrong one that differ in a single word and a single feature.

Asking which of the two a language model finds more likely measures its grammar apart from its style. That the wrong
one is wrong is checked against all rules, since changing one word sometimes makes another right sentence.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

from potstill.lab.text.draw import Dice
from potstill.lab.text.grammar.lexicon import CLASSES, FORMS, TENSES
from potstill.lab.text.grammar.recognise import is_grammatical
from potstill.lab.text.grammar.sentences import Drawn, Speaker, write_words

Phenomenon = Literal[
    "determiner-noun number",
    "determiner-noun class",
    "adjective-noun number",
    "adjective-noun class",
    "subject-verb number",
    "subject-verb class",
    "coordinated-subject-verb number",
    "subject-relative-verb number",
    "subject-relative-verb class",
    "object-relative-verb number",
    "object-relative-verb class",
    "relative-pronoun number",
    "relative-pronoun class",
    "reflexive number",
    "reflexive class",
    "tense",
]
PHENOMENA: tuple[Phenomenon, ...] = get_args(Phenomenon)


@dataclass(frozen=True, slots=True)
class MinimalPair:
    """A right and a wrong sentence that differ in the word at `position` alone."""

    good: str
    bad: str
    phenomenon: Phenomenon
    #: Words from the one that commands the agreement to the one that shows it: 1 where they are neighbours.
    distance: int
    #: Nouns and names between the two that would ask for the wrong form. Always 0 for tense.
    attractors: int
    #: Which word differs, counted from 0 with words split at blanks.
    position: int


def minimal_pairs(count: int, seed: int, phenomenon: Phenomenon | None = None) -> list[MinimalPair]:
    """`count` pairs, the phenomena in turn (or one of them alone), no right sentence twice.

    Of the places in a sentence where a phenomenon shows, one is drawn, in every second pair the farthest. Raises
    ValueError for a negative count or a phenomenon that is not in PHENOMENA.
    """
    if count < 0:
        raise ValueError(f"expected a count of pairs, found {count}: ask for 0 or more")
    if phenomenon is not None and phenomenon not in PHENOMENA:
        raise ValueError(f"expected one of {', '.join(PHENOMENA)}, found {phenomenon!r}")
    kinds = PHENOMENA if phenomenon is None else (phenomenon,)
    pairs: list[MinimalPair] = []
    seen: set[str] = set()
    index = 0
    while len(pairs) < count:
        dice = Dice("grammar-pairs", seed, index)
        drawn = Speaker(dice).sentence()
        index += 1
        pair = _pair(drawn, kinds[len(pairs) % len(kinds)], dice, farthest=len(pairs) % 2 == 0)
        if pair is not None and pair.good not in seen:
            seen.add(pair.good)
            pairs.append(pair)
    return pairs


def _pair(drawn: Drawn, phenomenon: Phenomenon, dice: Dice, farthest: bool) -> MinimalPair | None:
    """A pair from this sentence, where it shows the phenomenon and the changed one is wrong."""
    kind, _, feature = phenomenon.partition(" ")
    links = [link for link in drawn.links if link[0] == kind]
    if not links:
        return None
    _, controller, target = max(links, key=lambda link: abs(link[1] - link[2])) if farthest else dice.pick(links)
    name, stem = drawn.places[target]
    other = dice.pick(list(_changed(name, feature or "tense")))
    words = list(drawn.words)
    words[target] = FORMS[other][stem]
    bad = write_words(words)
    if is_grammatical(bad):
        return None
    attractors = _attractors(drawn, controller, target, other, feature)
    return MinimalPair(drawn.text(), bad, phenomenon, abs(target - controller), attractors, target)


def _changed(name: str, feature: str) -> Iterator[str]:
    """The preterminals that differ from this one in one feature alone."""
    kind, agreement, *tense = name.split(".")
    if feature == "tense":
        yield from (f"{kind}.{agreement}.{other}" for other in TENSES if [other] != tense)
    elif feature == "number":
        yield ".".join([kind, ("p" if agreement[0] == "s" else "s") + agreement[1], *tense])
    else:
        yield from (".".join([kind, agreement[0] + other, *tense]) for other in CLASSES if other != agreement[1])


def _attractors(drawn: Drawn, controller: int, target: int, wrong: str, feature: str) -> int:
    if not feature:
        return 0
    at = 0 if feature == "number" else 1
    asked = wrong.split(".")[1][at]
    low, high = sorted((controller, target))
    between = (name.split(".") for name, _ in drawn.places[low + 1 : high])
    return sum(parts[0] in ("N", "NAME") and parts[1][at] == asked for parts in between)
