"""The parts of a page on several runs: settings that differ, differences at the end, samples."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from potstill.report.numbers import Estimate, estimate
from potstill.report.reading import Reading
from potstill.report.sections import Sample, by_prompt

ABSENT = "\N{EN DASH}"  # this configuration has no such setting
SHOWN = {"proxy": "Proxy", "proxy_fkl": "Forward KL", "golden": "Golden"}
SHARED = ("proxy_fkl", "golden")  # one ruler for all runs; proxy is each run's own


@dataclass(frozen=True, slots=True)
class Gap:
    """How far two runs are apart at their last evaluations, on the same prompts."""

    runs: str
    steps: tuple[int, int]
    values: dict[str, Estimate]  # by series


def gaps(runs: Sequence[Reading]) -> list[Gap]:
    """Every other run less the first one. Pairing by prompt makes this much sharper than two bands."""
    first = runs[0]
    found = []
    for other in runs[1:]:
        values = {}
        for name in SHARED:
            mine, base = other.curves.get(name), first.curves.get(name)
            if mine is not None and base is not None and np.array_equal(mine.prompt_ids, base.prompt_ids):
                values[name] = estimate(mine, mine.sums[-1], mine.tokens[-1], (base.sums[-1], base.tokens[-1]))
        if values:
            found.append(Gap(f"{other.name} less {first.name}", (other.steps[-1], first.steps[-1]), values))
    return found


def warnings(runs: Sequence[Reading]) -> list[str]:
    """What makes the runs not comparable, though each of them is sound."""
    said = []
    for name in SHARED:
        curves = [found.curves[name] for found in runs if name in found.curves]
        label = SHOWN[name]
        if any(not np.array_equal(curve.prompt_ids, curves[0].prompt_ids) for curve in curves):
            said.append(
                f"{label}: the runs were measured on different held-out prompts. Their planes and curves "
                "are not comparable: a gap between two runs may be a gap between two sets of prompts."
            )
        elif any(not np.array_equal(curve.tokens[-1], curves[0].tokens[-1]) for curve in curves):
            said.append(
                f"{label}: the prompts are the same, but the texts that were scored are not (their tokens "
                "differ in number). Other teachers' answers or another tokenizer: values per token are not "
                "comparable."
            )
    lacking = {name: [found.name for found in runs if name not in found.curves] for name in SHARED}
    said += [f"{SHOWN[name]} was not measured in {', '.join(who)}." for name, who in lacking.items() if who]
    return said


# -- configurations -----------------------------------------------------------


#: What a setting that is not used looks like.
NOTHING = {ABSENT, "null", "[]", "false"}


def differences(configs: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
    """Flattened settings whose values differ; `output` differs always and says nothing.

    A setting that one run has empty and another does not have at all is no difference:
    it belongs to another version, or to a part that is not used.
    """
    flat = [dict(flattened(config)) for config in configs]
    keys = sorted({key for found in flat for key in found} - {"output"})
    rows = [(key, [found.get(key, ABSENT) for found in flat]) for key in keys]
    return [(key, values) for key, values in rows if len(set(values)) > 1 and not set(values) <= NOTHING]


def flattened(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """key.path and value as text; parts of a list go by their `kind`, where each has its own."""
    parts: Mapping[str, Any] | None = None
    if isinstance(value, Mapping) and value:
        parts = value
    elif isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
        kinds = [str(item.get("kind")) for item in value]
        if len(set(kinds)) == len(kinds) and all(len(item) > 1 for item in value):
            parts = {kind: _without(item, "kind") for kind, item in zip(kinds, value, strict=True)}
        else:
            parts = {str(i): item for i, item in enumerate(value)}
    if parts is None:
        yield key, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
        return
    for name, item in parts.items():
        yield from flattened(item, f"{key}.{name}" if key else str(name))


def _without(item: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in item.items() if name != key}


# -- samples ------------------------------------------------------------------


def shared_samples(runs: Sequence[Reading]) -> list[Sample]:
    """Prompts that every run answered: teacher and reference once, each run's last student."""
    last = [
        {prompt: lines[-1] for prompt, lines in by_prompt(found.run.lines("samples.jsonl")).items()} for found in runs
    ]
    shared = [prompt for prompt in last[0] if all(prompt in answers for answers in last)]
    samples = []
    for prompt in shared:
        lines = [answers[prompt] for answers in last]
        if len({str(line["prompt"]) for line in lines}) > 1:
            continue  # one id, two prompts: not the same question
        students = [
            (f"{found.name}, step {line['step']}", str(line["student"]))
            for found, line in zip(runs, lines, strict=True)
        ]
        answers = (*_once("teacher", runs, lines), *students, *_once("reference", runs, lines))
        samples.append(Sample(prompt, str(lines[0]["prompt"]), answers))
    return samples


def _once(whose: str, runs: Sequence[Reading], lines: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """An answer that the runs share stands once; different ones stand with their runs' names."""
    texts = [line.get(whose) for line in lines]
    if len(set(texts)) == 1:
        return [] if texts[0] is None else [(whose, str(texts[0]))]
    pairs = zip(runs, texts, strict=True)
    return [(f"{whose} of {found.name}", str(text)) for found, text in pairs if text is not None]
