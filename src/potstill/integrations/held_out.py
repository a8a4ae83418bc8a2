"""Held-out prompts as people pass them from Python: dicts, or Prompt records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from potstill.config.data import Prompts
from potstill.data.prompts import parse_prompt, refuse_repeats
from potstill.data.splits import LEAST_HELD_OUT, halve
from potstill.data.tables import Entry, PromptError
from potstill.records import HELD_OUT, Prompt


def held_out_prompts(rows: Iterable[Mapping[str, Any] | Prompt], seed: int, *, has_oracle: bool) -> list[Prompt]:
    """Checked prompts, in their order, half of them 'selection' and half 'test'.

    A dict has `prompt`: text, taken as it stands, or chat messages ({role, content}),
    shown through the chat template; `messages` does as well. `reference` is the answer,
    `id` and `group` are used where present, other keys are not read. Records that all
    say selection or test keep it. Raises PromptError for a bad, repeated or missing row,
    ValueError where a reference is missing and there is no oracle.
    """
    given = list(rows)
    entries = [Entry(f"prompts[{i}]", row if isinstance(row, Mapping) else {}) for i, row in enumerate(given)]
    prompts = [_read(row, entry) for row, entry in zip(given, entries, strict=True)]
    refuse_repeats(entries, prompts)
    if len(prompts) < LEAST_HELD_OUT:
        raise PromptError(
            f"expected at least {LEAST_HELD_OUT} held-out prompts, found {len(prompts)}. Add some; a verdict needs 8, "
            "and 64 or more make it sharp."
        )
    plain = [prompt.id for prompt in prompts if prompt.reference is None]
    if plain and not has_oracle:
        raise ValueError(
            f"{len(plain)} of {len(prompts)} held-out prompts have no reference (first: {plain[0]!r}), and no oracle "
            "is given. The student must not be judged by its teacher alone: add a `reference` to each, or pass an "
            "oracle."
        )
    return prompts if all(prompt.split in HELD_OUT for prompt in prompts) else halve(prompts, seed)


def _read(row: Any, entry: Entry) -> Prompt:
    if isinstance(row, Prompt):
        return row
    if not isinstance(row, Mapping):
        raise PromptError(f"{entry.where}: expected a dict with prompt and reference, or a Prompt, found {row!r:.60}")
    column = "messages" if "messages" in row and "prompt" not in row else "prompt"
    chat = column if column == "messages" or isinstance(row.get(column), list) else None
    optional: dict[str, Any] = {name: name for name in ("reference", "group", "id") if row.get(name) is not None}
    return parse_prompt(entry, Prompts(path="prompts", messages=chat, chat=False, **optional))
