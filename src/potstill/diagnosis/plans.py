"""What a data plan changes, in words: for the report and the model card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ARROW = "\N{RIGHTWARDS ARROW}"
STREAMS = {
    "teacher": "the teacher's answers",
    "reference": "references",
    "corpus": "corpus text",
    "online_teacher": "the teacher's fresh answers",
    "online_student": "the student's own answers",
    "replay": "the student's kept answers",
}


def plan_changes(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> tuple[str, ...]:
    """What a data plan changes, in words; all that it says where the plan before is not known."""
    said = []
    for key, label in (("completions_per_prompt", "completions of each prompt"), ("num_prompts", "prompts in use")):
        old, new = None if before is None else before[key], after[key]
        if old != new:
            said.append(f"{label}: {new:,}" if old is None else f"{label}: {old:,} {ARROW} {new:,}")
    shares = {} if before is None else before["fractions"]
    for stream in dict.fromkeys([*shares, *after["fractions"]]):
        old, new = shares.get(stream, 0.0), after["fractions"].get(stream, 0.0)
        if abs(old - new) > 1e-9:
            label = f"{STREAMS.get(stream, stream.replace('_', ' '))} in every batch"
            said.append(f"{label}: {_percent(new)}" if before is None else
                        f"{label}: {_percent(old)} {ARROW} {_percent(new)}")  # fmt: skip
    return tuple(said)


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
