"""`potstill diagnose`: the verdict, in words or as JSON.

Exit code 0 with any verdict, 3 where `--fail-on` names it; 1 where the log cannot be
judged, 2 where the command itself was wrong.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

from rich.console import Console
from rich.markup import escape

import potstill.diagnosis
from potstill.diagnosis import judge, remedies
from potstill.diagnosis.readers import GoldenKind, Reading, read_golden_kind, read_log
from potstill.records import Verdict, VerdictName

FAILED = 3
EXAMPLES = Path(potstill.diagnosis.__file__).parent / "examples"


def diagnose_verb(
    path: Path | None,
    as_json: bool,
    columns: Sequence[str] = (),
    golden_kind: str | None = None,
    fail_on: str | None = None,
    example: str | None = None,
) -> None:
    """Judge a run directory or a log; exits with 3 on a verdict that `fail_on` names."""
    failing, mapping = failing_verdicts(fail_on), mapping_of(columns)
    if golden_kind not in (None, *get_args(GoldenKind)):
        raise ValueError(f"--golden-kind is oracle or reference_nll, found {golden_kind!r}")
    if example is not None:
        path, golden_kind = example_path(path, example), golden_kind or "oracle"
    if path is None:
        raise ValueError("expected the path of a run or a log; to see what comes out, try --example hacked")
    reading = read_log(path, mapping=mapping)
    verdict = judge(reading.curves, golden_kind or read_golden_kind(path))
    if as_json:
        print(json.dumps(asdict(verdict) | {"source": dict(reading.facts)}, indent=2, sort_keys=True))
    else:
        show(verdict, reading, example)
    if verdict.verdict in failing:
        sys.exit(FAILED)


def failing_verdicts(fail_on: str | None) -> set[str]:
    """The words of `--fail-on`. Raises ValueError for one that does not exist."""
    words = {word.strip() for word in (fail_on or "").split(",") if word.strip()}
    known = get_args(VerdictName)
    if unknown := sorted(words - set(known)):
        raise ValueError(f"--fail-on: no verdict is called {', '.join(unknown)}; there are {', '.join(known)}")
    if fail_on is not None and not words:
        raise ValueError(f"--fail-on names no verdict; there are {', '.join(known)}")
    return words | ({"suspected_hacking"} if "hacking" in words else set())


def mapping_of(columns: Sequence[str]) -> dict[str, str]:
    """NAME=COLUMN as column -> name. Raises ValueError."""
    mapping: dict[str, str] = {}
    for one in columns:
        name, sign, column = one.partition("=")
        if not sign or not name.strip() or not column.strip():
            raise ValueError(f"--map takes NAME=COLUMN, such as proxy=eval/kl, found {one!r}")
        if column.strip() in mapping:
            raise ValueError(f"--map names the column {column.strip()!r} twice")
        mapping[column.strip()] = name.strip()
    return mapping


def example_path(path: Path | None, example: str) -> Path:
    """The log in the package. Raises ValueError."""
    if path is not None:
        raise ValueError("give a path or --example, not both")
    there = sorted(found.stem for found in EXAMPLES.glob("*.csv"))
    if example not in there:
        raise ValueError(f"--example is {' or '.join(there)}, found {example!r}")
    return EXAMPLES / f"{example}.csv"


def show(verdict: Verdict, reading: Reading, example: str | None) -> None:
    """The verdict, what to do, and for logs what was read as what."""
    console = Console(highlight=False, soft_wrap=True)
    if example is not None:
        console.print(f"A run of Potstill's lab, with an oracle. The log: {escape(str(EXAMPLES / example))}.csv\n")
    console.print(f"[bold]{verdict.verdict.replace('_', ' ')}[/bold] (confidence {confidence(verdict)})")
    console.print(escape(verdict.sentence))
    for line in levels(verdict.evidence):
        console.print(line)
    if verdict.best_step is not None and "Best step" not in verdict.sentence:
        console.print(f"best step: {verdict.best_step}")
    for remedy in remedies(verdict):
        console.print(escape(f"- {remedy.action}: {remedy.why}"))
    if reading.facts["read_as"]:
        console.print(escape(how_it_was_read(reading.facts)), style="dim")


def confidence(verdict: Verdict) -> str:
    """Two digits, and never a rounded 1."""
    return "over 0.99" if verdict.confidence > 0.99 else f"{verdict.confidence:.2f}"


def levels(facts: Mapping[str, Any]) -> list[str]:
    """Where proxy and golden began, how low they came, where they ended."""
    lines = []
    for name in ("proxy", "golden"):
        known = facts[name]
        if known["first"] is None:
            continue
        teacher = facts["teacher_golden"] if name == "golden" else None
        beside = "" if teacher is None else f" (teacher {teacher:.3f})"
        lowest = min(known.values())  # the smoothed one can lie above the last
        span = f"first {known['first']:.3f}, lowest {lowest:.3f}, last {known['last']:.3f}"
        lines.append(f"{name:<7} {span} nats per token{beside}")
    return lines


def how_it_was_read(facts: Mapping[str, Any]) -> str:
    """A few lines on the log itself."""
    named = ", ".join(
        name if name == column else f"{name} from {column!r}" for name, column in facts["read_as"].items()
    )
    lines = [f"\nread {facts['path']} ({facts['kind']}, {facts['rows']} rows): {named}"]
    if unused := facts["unused_columns"]:
        more = f" and {len(unused) - 8} more" if len(unused) > 8 else ""
        lines.append(f"not used: {', '.join(unused[:8])}{more}")
    return "\n".join([*lines, *(f"note: {note}" for note in facts["notes"])])
