"""Which of several right answers to a prompt say the same, and which of them differ most.

Two solutions are the same if they do the same sums, whatever their words (Yuan et al. 2023, section 3.2);
texts without sums are the same if nearly all their words are. Of the same the one is kept that is furthest
from the others in edits. Everything here is a function of the texts in their order: no chance enters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from potstill.data.duplicates import jaccard, normalised_words
from potstill.verifiers.steps import equations

#: From this Jaccard similarity of word 3-grams, texts without sums count as the same.
NEAR = 0.8


def edit_distance(one: str, other: str) -> int:
    """Levenshtein's distance in characters; bit-parallel (Myers 1999, as simplified by Hyyrö 2001)."""
    if len(one) < len(other):
        one, other = other, one
    if not other:
        return len(one)
    where: dict[str, int] = {}
    for at, letter in enumerate(other):
        where[letter] = where.get(letter, 0) | 1 << at
    last, every = 1 << (len(other) - 1), (1 << len(other)) - 1
    rises, falls, distance = every, 0, len(other)
    for letter in one:
        matches = where.get(letter, 0)
        diagonal = (((matches & rises) + rises) ^ rises) | matches | falls
        up, down = falls | ~(diagonal | rises) & every, rises & diagonal
        distance += bool(up & last) - bool(down & last)
        up = up << 1 | 1
        rises, falls = (down << 1 | ~(diagonal | up)) & every, up & diagonal
    return distance


def classes(texts: Sequence[str], by: Literal["none", "text", "structure"]) -> list[list[int]]:
    """Positions of texts that say the same, each class in order; classes in the order of their first."""
    found: list[list[int]] = []
    known: dict[object, int] = {}
    wordy: list[tuple[frozenset[str], int]] = []  # 3-grams of a class's first text, for those without sums
    for at, text in enumerate(texts):
        words = tuple(normalised_words(text))
        sums = equations(text) if by == "structure" else ()
        key: object = at if by == "none" else ("sums", sums) if sums else ("words", words)
        if by == "structure" and not sums and key not in known:
            grams = map(" ".join, zip(words, words[1:], words[2:], strict=False))
            joined = frozenset(grams) or frozenset(words)
            near = next((number for other, number in wordy if jaccard(joined, other) >= NEAR), None)
            if near is None:
                wordy.append((joined, len(found)))
            else:
                known[key] = near
        number = known.setdefault(key, len(found))
        if number == len(found):
            found.append([])
        found[number].append(at)
    return found


def representatives(texts: Sequence[str], same: Sequence[Sequence[int]], others: Sequence[str] = ()) -> list[int]:
    """One position for each class: the text with the largest summed edit distance to the other classes' and `others`.

    The first of each class stands for it until its turn comes; ties go to the earlier text.
    """
    chosen = [members[0] for members in same]
    for number, members in enumerate(same):
        if len(members) > 1:
            rest = [texts[at] for other, at in enumerate(chosen) if other != number] + list(others)
            chosen[number] = max(members, key=lambda at: (sum(edit_distance(texts[at], t) for t in rest), -at))
    return chosen


def furthest_apart(texts: Sequence[str], structures: Sequence[int], positions: Sequence[int], most: int) -> list[int]:
    """At most `most` of the positions: new structures first, then the text furthest from its nearest kept one."""
    left, kept = list(positions), list(positions[:1])
    while len(kept) < min(most, len(positions)):
        left = [at for at in left if at not in kept]
        seen = {structures[at] for at in kept}
        fresh = [at for at in left if structures[at] not in seen] or left
        kept.append(max(fresh, key=lambda at: (min(edit_distance(texts[at], texts[k]) for k in kept), -at)))
    return sorted(kept[:most])
