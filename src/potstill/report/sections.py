"""The parts of one run's page that are words and numbers: the table and the samples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from potstill.records import Curve
from potstill.report.numbers import Row, before_after

GOLDEN = {
    "oracle": "distance to the oracle",
    "reference_nll": "NLL of references that the teacher did not write",
}


@dataclass(frozen=True, slots=True)
class Sample:
    """Everybody's answer to one prompt, with whose it is."""

    prompt_id: str
    prompt: str
    answers: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Variety:
    """How varied some texts are, and how often the run meant to show each."""

    label: str
    unit: str  # of their length
    measured: Mapping[str, Any]  # texts, mean_length, distinct_2, self_bleu, near_duplicates, as measured by the run
    visits: float | None


def describe_variety(provenance: Mapping[str, Any] | None) -> list[Variety]:
    """The prompts and each stream of completions, as the run wrote them down; empty where it did not."""
    found = (provenance or {}).get("diversity")
    if not found:
        return []
    planned = found["planned_visits"]
    prompts = Variety("prompts", "words", found["prompts"], planned["per_prompt"])
    return [prompts] + [
        Variety(f"{name} completions", "tokens", measured, planned["per_completion"].get(name))
        for name, measured in found["completions"].items()
    ]


def compare(curves: Mapping[str, Curve], best_step: int | None, golden_kind: str) -> list[Row]:
    """The table's rows; golden's says against what it was measured."""
    rows = {name: before_after(curve, best_step) for name, curve in curves.items()}
    if "golden" in rows and golden_kind in GOLDEN:
        rows["golden"] = replace(rows["golden"], meaning=GOLDEN[golden_kind])
    return list(rows.values())


def describe_prompts(curves: Mapping[str, Curve]) -> str:
    """Which prompts the numbers come from, in words."""
    if not curves:
        return ""
    curve = next(iter(curves.values()))
    if not curve.paired:
        return "means only, unpaired: weak"
    names = {str(name) for name in curve.splits}
    return f"{curve.prompt_ids.size} {names.pop() if len(names) == 1 else 'held-out'} prompts"


def side_by_side(lines: Iterable[Mapping[str, Any]]) -> list[Sample]:
    """Per prompt: the teacher's answer, the student's before and after, the reference."""
    samples = []
    for prompt_id, found in by_prompt(lines).items():
        first, last = found[0], found[-1]
        students = [(f"student, step {last['step']}", str(last["student"]))]
        if len(found) > 1:
            before = "before" if first["step"] == 0 else "first"
            students = [
                (f"student {before}, step {first['step']}", str(first["student"])),
                (f"student after, step {last['step']}", str(last["student"])),
            ]
        answers = [*_answer("teacher", last), *students, *_answer("reference", last)]
        samples.append(Sample(prompt_id, str(last["prompt"]), tuple(answers)))
    return samples


def by_prompt(lines: Iterable[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """The lines of samples.jsonl, each prompt's in order of steps."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for line in lines:
        found.setdefault(str(line["prompt_id"]), []).append(line)
    return {name: sorted(answers, key=lambda line: int(line["step"])) for name, answers in found.items()}


def _answer(whose: str, line: Mapping[str, Any]) -> list[tuple[str, str]]:
    text = line.get(whose)
    return [] if text is None else [(whose, str(text))]
