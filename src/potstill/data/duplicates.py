"""Held-out prompts that training has seen, word for word or nearly.

Two prompts are compared by their word 3-grams: what both have, divided by what
either has (Jaccard similarity). An exact copy up to case, spacing and
punctuation has similarity 1, so it is found at every threshold.

The search is exact and does not compare all pairs. If the similarity is at
least t, a prompt of n grams shares at least ceil(t n) of them, so two such
prompts share a gram already among the n - ceil(t n) + 1 rarest of each: only
those are indexed (prefix filtering: Chaudhuri, Ganti, Kaushik, "A primitive operator for
similarity joins in data cleaning", ICDE 2006).
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from potstill.records import Prompt

_PUNCTUATION = (
    r"\s!-/:-@\[-`{-~\u00a1-\u00bf\u00d7\u00f7\u060c\u061b\u061f\u0964\u0965"
    r"\u2000-\u206f\u2212\u2e00-\u2e7f\u3000-\u303f"
)
_NO_SPACES = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3041-\u3096\u30a1-\u30fa\u3400-\u4dbf\u4e00-\u9fff"
#: Punctuation goes, but not where it is what is asked: "3 - 4" is not "3 + 4",
#: and 3.5 is not 35. Where a script has no spaces, a letter counts as a word.
_WORDS = re.compile(
    rf"[-\u2212](?=\s?\d)|[.:](?=\d)|[+*/^<>=%\u00d7\u00f7]|[{_NO_SPACES}]|[^{_PUNCTUATION}{_NO_SPACES}]+"
)


@dataclass(frozen=True, slots=True)
class NearDuplicate:
    """A held-out prompt and the first training prompt that is nearly the same."""

    training: Prompt
    held_out: Prompt
    similarity: float


def near_duplicates(training: Iterable[Prompt], held_out: Sequence[Prompt], threshold: float) -> list[NearDuplicate]:
    """The held-out prompts with a similarity of at least `threshold` to a training prompt, in order."""
    held_out_grams = [word_grams(prompt) for prompt in held_out]
    frequency = Counter(gram for grams in held_out_grams for gram in grams)
    index: defaultdict[str, list[int]] = defaultdict(list)
    for at, grams in enumerate(held_out_grams):
        for gram in _rarest(grams, frequency, threshold):
            index[gram].append(at)
    found: dict[int, NearDuplicate] = {}
    for prompt in training:
        grams = word_grams(prompt)
        if sum(gram in frequency for gram in grams) < _least_shared(grams, threshold):
            continue  # nearly all of a large training set ends here
        candidates = {at for gram in _rarest(grams, frequency, threshold) for at in index.get(gram, ())}
        for at in candidates - found.keys():
            similarity = jaccard(grams, held_out_grams[at])
            if similarity >= threshold:
                found[at] = NearDuplicate(prompt, held_out[at], similarity)
    return [found[at] for at in sorted(found)]


def near_duplicates_within(prompts: Sequence[Prompt], threshold: float) -> list[int]:
    """The places of the prompts that have a similarity of at least `threshold` to another one among them."""
    all_grams = [word_grams(prompt) for prompt in prompts]
    frequency = Counter(gram for grams in all_grams for gram in grams)
    index: defaultdict[str, list[int]] = defaultdict(list)
    found: set[int] = set()
    for at, grams in enumerate(all_grams):
        prefix = _rarest(grams, frequency, threshold)
        candidates = {other for gram in prefix for other in index[gram]}
        for other in candidates:
            if not {at, other} <= found and jaccard(grams, all_grams[other]) >= threshold:
                found |= {at, other}
        for gram in prefix:
            index[gram].append(at)
    return sorted(found)


def word_grams(prompt: Prompt) -> frozenset[str]:
    """The prompt's word 3-grams; of one or two words, the words."""
    words = prompt_words(prompt)
    if len(words) < 3:
        return frozenset(words)
    return frozenset(map(" ".join, zip(words, words[1:], words[2:], strict=False)))


def prompt_words(prompt: Prompt) -> list[str]:
    """Its words. System messages do not count: one that all prompts share would make all alike."""
    text = prompt.text
    if text is None:
        text = "\n".join(turn.content for turn in prompt.messages or () if turn.role != "system")
    return normalised_words(text)


def normalised_words(text: str) -> list[str]:
    """Words without case, spacing and punctuation; a text of nothing else is one word."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return _WORDS.findall(folded) or [folded.strip()]


def jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    """What both have, divided by what either has."""
    shared = len(one & other)
    return shared / (len(one) + len(other) - shared)


def _least_shared(grams: frozenset[str], threshold: float) -> int:
    """How many of these grams a near duplicate has at least (the 1e-9 is for 0.7 * 10 > 7)."""
    return math.ceil(threshold * len(grams) - 1e-9)


def _rarest(grams: frozenset[str], frequency: Counter[str], threshold: float) -> list[str]:
    """The prefix: a near duplicate has one of these among its own."""
    ordered = sorted(grams, key=lambda gram: (frequency[gram], gram))
    return ordered[: len(grams) - _least_shared(grams, threshold) + 1]
