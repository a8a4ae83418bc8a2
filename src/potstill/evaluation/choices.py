"""Questions with choices, and what a language model's likelihoods say about them.

An item is a text and several ways to go on. The model is never asked to write: the likeliest way counts as its
answer. Everything is kept per item, so that two models can be compared on the same items, which is far sharper
than comparing two percentages.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np

Metric = Literal["acc", "acc_norm", "acc_bytes"]


@dataclass(frozen=True, slots=True)
class Item:
    """One question: what stands before, the ways to go on, and which of them is right.

    `context` is one text for all choices, or one for each (then the choices may be equal: WinoGrande scores the same
    ending after two beginnings). Scored is delimiter + choice; a choice's length is that of the choice alone. An item
    with a single choice asks whether greedy decoding would write it (LAMBADA).
    """

    context: str | tuple[str, ...]
    choices: tuple[str, ...]
    right: int
    group: str = ""
    delimiter: str = " "

    def __post_init__(self) -> None:
        if not self.choices or not all(self.choices):
            raise ValueError(f"expected an item with choices that are not empty, found {self.choices!r}")
        if not 0 <= self.right < len(self.choices):
            raise ValueError(f"expected the right choice among 0 to {len(self.choices) - 1}, found {self.right}")
        if not isinstance(self.context, str) and len(self.context) != len(self.choices):
            raise ValueError(f"expected one context or {len(self.choices)}, found {len(self.context)}")

    def texts(self) -> list[tuple[str, str]]:
        """For each choice: what stands before it, and what is scored."""
        before = (self.context,) * len(self.choices) if isinstance(self.context, str) else self.context
        return [(text, self.delimiter + choice) for text, choice in zip(before, self.choices, strict=True)]


def pair_items(pairs: Iterable[tuple[str, str]], groups: Sequence[str] = ()) -> list[Item]:
    """Items from (right sentence, wrong sentence), without context; `groups` names each pair's phenomenon."""
    listed = list(pairs)
    names = groups or [""] * len(listed)
    return [Item("", (good, bad), 0, name) for (good, bad), name in zip(listed, names, strict=True)]


def digest(items: Sequence[Item]) -> str:
    """A name for just these items in this order, so that no two models are compared on different ones."""
    plain = [(item.texts(), item.right, item.group) for item in items]
    return hashlib.sha256(json.dumps(plain).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Accuracy:
    """A share of right answers, what guessing would bring, and how sure it is."""

    value: float
    se: float  # of the mean; nan for a single item
    chance: float
    se_of_guessing: float  # what `se` would be if the model guessed
    items: int

    @property
    def beats_chance(self) -> bool:
        """Whether it is more than two standard errors above chance, by the larger of the two standard errors.

        The observed one alone is 0 where all of three items are right by luck.
        """
        return self.value - self.chance > 2 * max(self.se, self.se_of_guessing)


@dataclass(frozen=True, eq=False)
class ChoiceScores:
    """What a model makes of I items with at most C choices; where an item has fewer, nan and 0 stand."""

    log_likelihood: np.ndarray  # [I, C] float64, nats, of the whole choice
    greedy: np.ndarray  # [I, C] bool: every token of the choice is the model's likeliest
    tokens: np.ndarray  # [I, C] int64, scored tokens (with the delimiter's)
    characters: np.ndarray  # [I, C] int64, of the choice without delimiter
    bytes: np.ndarray  # [I, C] int64, the same in UTF-8
    right: np.ndarray  # [I] int64
    cut: np.ndarray  # [I] int64: tokens of context lost because the model's own context is shorter, most over choices
    groups: np.ndarray  # [I] str
    digest: str  # of the items

    @property
    def choices(self) -> np.ndarray:
        """[I] how many choices each item has."""
        return np.asarray((self.tokens > 0).sum(1))

    def answers(self, metric: Metric = "acc") -> np.ndarray:
        """[I] the chosen one: highest log-likelihood, or highest per character (acc_norm) or byte (acc_bytes)."""
        divisors = {"acc": np.ones_like(self.tokens), "acc_norm": self.characters, "acc_bytes": self.bytes}
        if metric not in divisors:
            raise ValueError(f"expected metric to be one of {', '.join(divisors)}, found {metric!r}")
        there = self.tokens > 0
        per_length = self.log_likelihood / np.where(there, divisors[metric], 1)
        return np.asarray(np.where(there, per_length, -np.inf).argmax(1))

    def correct(self, metric: Metric = "acc") -> np.ndarray:
        """[I] 1.0 where the answer is right; with a single choice, where greedy decoding would write it.

        Of choices that are exactly as likely the first is the answer, as in lm-eval.
        """
        chosen = self.answers(metric) == self.right
        return np.where(self.choices == 1, self.greedy[:, 0], chosen).astype(np.float64)

    @property
    def margin(self) -> np.ndarray:
        """[I] log-likelihood of the right choice minus that of the best wrong one, nats; nan with a single choice."""
        rows = np.arange(len(self.right))
        wrong = np.where(self.tokens > 0, self.log_likelihood, -np.inf)
        right = wrong[rows, self.right]
        wrong[rows, self.right] = -np.inf
        return np.where(self.choices > 1, right - wrong.max(1), np.nan)

    @property
    def chance(self) -> np.ndarray:
        """[I] the share that guessing gets right; 0 with a single choice, which nobody guesses."""
        return np.where(self.choices > 1, 1.0 / self.choices, 0.0)

    def accuracy(self, metric: Metric = "acc", equal_groups: bool = False) -> Accuracy:
        """Over all items, or as the mean of the groups' accuracies, each group weighing the same (BLiMP)."""
        groups = self.groups if equal_groups else np.zeros(len(self.right))
        correct, chance = self.correct(metric), self.chance
        parts = [np.flatnonzero(groups == name) for name in np.unique(groups)]
        errors = [_standard_error(correct[part]) for part in parts]
        guessing = [float((chance[part] * (1 - chance[part])).mean() / len(part)) for part in parts]
        return Accuracy(
            float(np.mean([correct[part].mean() for part in parts])),
            math.sqrt(sum(error**2 for error in errors)) / len(parts),
            float(np.mean([chance[part].mean() for part in parts])),
            math.sqrt(sum(guessing)) / len(parts),
            len(correct),
        )

    def by_group(self, metric: Metric = "acc") -> dict[str, Accuracy]:
        """One accuracy for each group."""
        return {str(name): self.only(self.groups == name).accuracy(metric) for name in np.unique(self.groups)}

    def only(self, chosen: np.ndarray) -> ChoiceScores:
        """Some of the items: `chosen` [I] bool."""
        mine = {f.name: getattr(self, f.name) for f in fields(self)}
        marked = f"{self.digest}/{hashlib.sha256(np.flatnonzero(chosen).tobytes()).hexdigest()[:8]}"
        return ChoiceScores(**{k: v if k == "digest" else v[chosen] for k, v in mine.items()} | {"digest": marked})

    def as_dict(self, metric: Metric = "acc", equal_groups: bool = False) -> dict[str, Any]:
        """Numbers for a results file. `accuracy` is by `metric`; what cannot be said (one item's error) is null."""
        found, margin = self.accuracy(metric, equal_groups), self.margin
        several = ~np.isnan(margin)
        lost = int((self.cut > 0).sum())
        return {
            "accuracy": found.value,
            "margin": float(margin[several].mean()) if several.any() else None,
            "items": found.items,
            "chance": found.chance,
            "se": None if math.isnan(found.se) else found.se,
            "metric": metric,
            "beats_chance": found.beats_chance,
            "cut_items": lost,
            "nats_of_right": float(-self.log_likelihood[np.arange(len(self.right)), self.right].mean()),
        }

    def arrays(self) -> dict[str, np.ndarray]:
        """For numpy.savez; `from_arrays` reads them."""
        return {f.name: np.asarray(getattr(self, f.name)) for f in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> ChoiceScores:
        """What `arrays` gave, such as an open .npz file. Raises KeyError where one is missing."""
        found: dict[str, Any] = {f.name: arrays[f.name] for f in fields(cls)}
        return cls(**found | {"digest": str(found["digest"])})


def compare(one: ChoiceScores, other: ChoiceScores, metric: Metric = "acc") -> dict[str, Any]:
    """`one` minus `other`, item by item: accuracy and margin (nats) with the standard errors of the differences.

    `gained` and `lost` count items that only one of the two has right. The errors are over items alone: they say
    nothing of other seeds. Raises ValueError where the two did not answer the same items.
    """
    if one.digest != other.digest:
        raise ValueError(
            f"expected the same items, found {len(one.right)} ({one.digest}) and {len(other.right)} ({other.digest}): "
            "score both models on one list"
        )
    change = one.correct(metric) - other.correct(metric)
    margin = one.margin - other.margin
    margin = margin[~np.isnan(margin)]
    return {
        "accuracy": float(change.mean()),
        "accuracy_se": _or_none(_standard_error(change)),
        "margin": float(margin.mean()) if len(margin) else None,
        "margin_se": _or_none(_standard_error(margin)),
        "gained": int((change > 0).sum()),
        "lost": int((change < 0).sum()),
        "items": len(change),
    }


def _standard_error(values: np.ndarray) -> float:
    """Of the mean, with n - 1 as lm-eval has it; nan below two values."""
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value
