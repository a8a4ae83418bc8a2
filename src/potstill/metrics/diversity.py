"""How much a set of texts repeats itself, and how often a run repeats them.

A student that sees the same few prompts, or the same completions again and again,
learns its teacher's accidents (teacher hacking: Tiapkin et al. 2025, arXiv:2502.02671),
and its loss does not show it. So diversity is measured before and beside the run.

All these numbers fall or rise with how much text there is: compare sets of like size.
"""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from potstill.data.duplicates import near_duplicates_within, normalised_words
from potstill.records import Prompt

#: A text as words or token ids.
Tokens = Sequence[Hashable]

ORDERS = (1, 2, 3, 4)
#: Chen and Cherry 2014, method 1: what stands for a count of none, so that one missing 4-gram is no BLEU of 0.
SMOOTHING = 0.1


@dataclass(frozen=True, slots=True)
class Repeats:
    """How often things are seen: on average, and the one seen most."""

    mean: float
    largest: float


@dataclass(frozen=True, slots=True)
class Diversity:
    """What was measured; None where there was nothing to measure it on."""

    texts: int
    mean_length: float  # tokens, or words where text was given
    distinct_1: float | None  # share of n-grams that are the first of their kind; 1: nothing repeats
    distinct_2: float | None
    distinct_3: float | None
    distinct_4: float | None
    self_bleu: float | None  # 0 to 1; 1: every text is like another one
    self_bleu_texts: int  # how many it was measured on
    near_duplicates: float | None = None  # share of the prompts that nearly repeat another one
    repeats_per_prompt: Repeats | None = None
    repeats_per_completion: Repeats | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for a record."""
        return asdict(self)


def diversity(
    texts: Sequence[str | Tokens],
    *,
    prompts: Sequence[Prompt] = (),
    threshold: float = 0.8,
    visits: Iterable[tuple[str, int]] | Mapping[tuple[str, int], float] | None = None,
    seed: int = 0,
    most_bleu_texts: int = 500,
) -> Diversity:
    """Measure texts (plain, taken as words, or token ids), and where given prompts and visits.

    `visits` are (prompt id, index) pairs as they were seen, or how often each was. Near duplicates are
    prompts with a Jaccard similarity of at least `threshold`; self-BLEU is measured on at most
    `most_bleu_texts`, chosen by a key.
    """
    tokens = [normalised_words(text) if isinstance(text, str) else text for text in texts]
    compared = [text for text in keyed_sample(tokens, most_bleu_texts, seed) if len(text)]
    scores = self_bleu(compared)
    counts = None if visits is None else _counted(visits)
    near = near_duplicates_within(prompts, threshold) if prompts else []
    return Diversity(
        texts=len(tokens),
        mean_length=sum(map(len, tokens)) / max(1, len(tokens)),
        distinct_1=distinct(tokens, 1),
        distinct_2=distinct(tokens, 2),
        distinct_3=distinct(tokens, 3),
        distinct_4=distinct(tokens, 4),
        self_bleu=sum(scores) / len(scores) if scores else None,
        self_bleu_texts=len(scores),
        near_duplicates=len(near) / len(prompts) if prompts else None,
        repeats_per_prompt=None if counts is None else repeats(_by_prompt(counts)),
        repeats_per_completion=None if counts is None else repeats(counts),
    )


def distinct(texts: Iterable[Tokens], order: int) -> float | None:
    """Different n-grams over all n-grams of the texts together; None where there are none.

    distinct-n of Li et al. 2016 (A Diversity-Promoting Objective Function), who divide by the number of
    tokens. Divided by the number of n-grams it is 1 exactly where nothing repeats, at every order.
    """
    seen: set[tuple[Hashable, ...]] = set()
    total = 0
    for text in texts:
        found = _grams(text, order)
        seen.update(found)
        total += len(found)
    return len(seen) / total if total else None


def self_bleu(texts: Sequence[Tokens]) -> list[float]:
    """BLEU-4 of each text with all the others as its references, 0 to 1 each (Zhu et al. 2018, Texygen).

    Empty for fewer than two texts. Precisions are clipped by the largest count in any one reference, and the
    brevity penalty takes the reference of the closest length, the shorter of two (Papineni et al. 2002).
    Counts of none are smoothed to 0.1 (Chen and Cherry 2014, method 1, which Texygen takes); a text of less than
    four tokens is scored up to its own length. Two largest counts of each n-gram are all that must be
    known, so the work grows with the text and not with its square.
    """
    if len(texts) < 2:
        return []
    logs = [0.0] * len(texts)
    for order in ORDERS:
        counts = [Counter(_grams(text, order)) for text in texts]
        largest = _two_largest(counts)
        for at, count in enumerate(counts):
            if count:
                clipped = sum(min(number, largest[gram].without(at)) for gram, number in count.items())
                logs[at] += math.log((clipped or SMOOTHING) / count.total())
    lengths = [len(text) for text in texts]
    pairs = zip(logs, lengths, _closest(lengths), strict=True)
    return [
        math.exp(log / min(len(ORDERS), own) + min(0.0, 1 - other / own)) if own else 0.0 for log, own, other in pairs
    ]  # fmt: skip


def repeats(counts: Mapping[Any, float]) -> Repeats | None:
    """Mean and largest of how often each thing was seen; None where there is nothing."""
    return Repeats(sum(counts.values()) / len(counts), max(counts.values())) if counts else None


def keyed_sample(texts: Sequence[Any], most: int, seed: int) -> list[Any]:
    """At most so many of the texts, in their order; which ones follows from the seed and their places alone."""
    if len(texts) <= most:
        return list(texts)
    keys = [hashlib.sha256(f"{seed}|diversity|{at}".encode()).digest() for at in range(len(texts))]
    return [texts[at] for at in sorted(sorted(range(len(texts)), key=keys.__getitem__)[:most])]


@dataclass(slots=True)
class _Largest:
    """The largest count of an n-gram in one text, whose that is, and the largest in any other text."""

    first: int = 0
    owner: int = -1
    second: int = 0

    def without(self, at: int) -> int:
        return self.second if at == self.owner else self.first


def _two_largest(counts: Sequence[Counter[tuple[Hashable, ...]]]) -> dict[tuple[Hashable, ...], _Largest]:
    found: dict[tuple[Hashable, ...], _Largest] = {}
    for at, count in enumerate(counts):
        for gram, number in count.items():
            entry = found.setdefault(gram, _Largest())
            if number > entry.first:
                entry.first, entry.owner, entry.second = number, at, entry.first
            elif number > entry.second:
                entry.second = number
    return found


def _closest(lengths: Sequence[int]) -> list[int]:
    """For each text the length that is closest to its own among the others; the shorter of two."""
    often = Counter(lengths)
    steps = sorted(often)
    found = []
    for own in lengths:
        place = bisect_left(steps, own)
        others = [own] if often[own] > 1 else [steps[i] for i in (place - 1, place + 1) if 0 <= i < len(steps)]
        found.append(min(others, key=lambda other: (abs(other - own), other)))
    return found


def _grams(text: Tokens, order: int) -> list[tuple[Hashable, ...]]:
    return list(zip(*(text[start:] for start in range(order)), strict=False))


def _counted(visits: Iterable[tuple[str, int]] | Mapping[tuple[str, int], float]) -> Mapping[tuple[str, int], float]:
    return visits if isinstance(visits, Mapping) else Counter(visits)


def _by_prompt(counts: Mapping[tuple[str, int], float]) -> dict[str, float]:
    found: dict[str, float] = {}
    for (prompt_id, _), number in counts.items():
        found[prompt_id] = found.get(prompt_id, 0) + number
    return found
