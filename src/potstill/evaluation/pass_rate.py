"""How many prompts a model answers rightly, as verifiers see it: a measure that the teacher has no part in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from potstill.generation.base import Generator, Request
from potstill.generation.rejection import verify_all
from potstill.records import Completion, Prompt
from potstill.verifiers.base import Verifier


@dataclass(frozen=True)
class PassRate:
    """Who passed what."""

    passed: dict[str, bool]  # by prompt id
    labels: dict[str, dict[str, int]]  # verifier -> label -> answers
    groups: dict[str, tuple[int, int]]  # group -> passed, asked

    @property
    def rate(self) -> float:
        return sum(self.passed.values()) / len(self.passed)

    def interval(self) -> tuple[float, float]:
        """95 %, Clopper-Pearson."""
        from scipy.stats import binomtest  # a second to import

        found = binomtest(sum(self.passed.values()), len(self.passed)).proportion_ci(0.95)
        return float(found.low), float(found.high)

    def as_dict(self) -> dict[str, Any]:
        low, high = self.interval()
        return {
            "passed": sum(self.passed.values()), "asked": len(self.passed), "rate": self.rate, "low": low, "high": high,
            "labels": self.labels, "groups": {name: list(counts) for name, counts in self.groups.items()},
        }  # fmt: skip


def pass_rate(
    prompts: Sequence[Prompt], requests: Sequence[Request], generator: Generator, verifiers: Sequence[Verifier]
) -> tuple[PassRate, list[Completion]]:
    """Answers to `requests` (one a prompt) and what verifiers say of them; raises VerifierError."""
    answers = list(generator.generate(requests))
    verified = verify_all(prompts, answers, verifiers)
    labels: dict[str, Counter[str]] = {}
    groups: dict[str, tuple[int, int]] = {}
    for one in verified:
        for name, outcome in one.outcomes:
            labels.setdefault(name, Counter())[outcome.label] += 1
        right, asked = groups.get(one.prompt.group, (0, 0))
        groups[one.prompt.group] = (right + one.passed, asked + 1)
    rate = PassRate(
        {one.prompt.id: one.passed for one in verified},
        {name: dict(sorted(counts.items())) for name, counts in sorted(labels.items())},
        dict(sorted(groups.items())),
    )
    return rate, [one.completion for one in verified]


def better_by_chance(one: PassRate, other: PassRate) -> float:
    """Two-sided p of the same prompts being passed as often: McNemar's exact test on those that differ."""
    from scipy.stats import binomtest

    gained = sum(other.passed[name] and not one.passed[name] for name in one.passed)
    lost = sum(one.passed[name] and not other.passed[name] for name in one.passed)
    return 1.0 if gained + lost == 0 else float(binomtest(gained, gained + lost).pvalue)
