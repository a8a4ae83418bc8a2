"""What fed the student, from the metrics of its steps; what a verifier said of it; what rejection kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Fed:
    """One stream over the whole run."""

    stream: str
    rows: int
    row_share: float
    token_share: float
    staleness: float | None  # steps, mean over rows; of the student's own
    most_stale: float | None  # the largest mean of a step


@dataclass(frozen=True, slots=True)
class Passed:
    """Whose held-out answers a verifier passed."""

    label: str
    passed: int
    asked: int
    low: float
    high: float


def describe_feeding(metrics: Iterable[Mapping[str, Any]]) -> list[Fed]:
    """Each stream's part; empty for runs whose metrics do not say."""
    rows: dict[str, int] = {}
    tokens: dict[str, int] = {}
    stale: dict[str, list[tuple[float, int]]] = {}
    for line in metrics:
        for key, value in line.items():
            kind, _, stream = key.partition("/")
            if kind == "rows":
                rows[stream] = rows.get(stream, 0) + value
                tokens[stream] = tokens.get(stream, 0) + line[f"tokens/{stream}"]
                if f"staleness/{stream}" in line:
                    stale.setdefault(stream, []).append((line[f"staleness/{stream}"], value))
    all_rows, all_tokens = max(1, sum(rows.values())), max(1, sum(tokens.values()))
    found = []
    for stream, count in sorted(rows.items()):
        ages = stale.get(stream)
        mean = None if ages is None else sum(age * n for age, n in ages) / sum(n for _, n in ages)
        most = None if ages is None else max(age for age, _ in ages)
        found.append(Fed(stream, count, count / all_rows, tokens[stream] / all_tokens, mean, most))
    return found


def describe_benchmark(stored: Mapping[str, Any] | None) -> list[Passed]:
    """Teacher, student before and after; empty where the run has no benchmark."""
    labels = {"teacher": "teacher", "start": "student before", "student": "student after"}
    return [
        Passed(label, stored[name]["passed"], stored[name]["asked"], stored[name]["low"], stored[name]["high"])
        for name, label in labels.items()
        if stored is not None and name in stored
    ]
