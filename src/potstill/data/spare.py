"""Prompts that wait: a run uses them only if the remedy more_prompts is taken."""

from __future__ import annotations

from collections.abc import Sequence

from potstill.config.data import Prompts
from potstill.data.duplicates import near_duplicates
from potstill.data.prompts import read_prompts
from potstill.data.tables import PromptError
from potstill.records import Prompt


def read_spare(
    config: Prompts, training: Sequence[Prompt], held_out: Sequence[Prompt], threshold: float
) -> tuple[list[Prompt], list[str]]:
    """The prompts of a file that the run does not use yet, and a note on those that were left out.

    Left out: training prompts, and near duplicates of held-out ones (`threshold`: Jaccard similarity of word
    3-grams). Raises PromptError: nothing is left, or an id names another prompt here than there.
    """
    found = read_prompts(config)
    known = {prompt.id: prompt.flat_text() for prompt in (*training, *held_out)}
    clashes = [p.id for p in found if p.id in known and known[p.id] != p.flat_text()]
    if clashes:
        raise PromptError(
            f"{config.path}: the id {clashes[0]!r} names another prompt in data.prompts. Make ids unique over both "
            "files, or leave `id` out in both: a hash of the content names them then."
        )
    texts = set(known.values())
    new = [p for p in found if p.flat_text() not in texts]
    seen = {one.held_out.id for one in near_duplicates(held_out, new, threshold)}  # held_out: whom it looks for
    kept = [p for p in new if p.id not in seen]
    if not kept:
        raise PromptError(
            f"{config.path}: none of its {len(found)} prompts is new, all are training prompts or (nearly) held-out "
            "ones. on_alarm.spare_prompts are for prompts that the run does not use yet."
        )
    lost = [f"spare prompts left out: {len(found) - len(new)} already in use, {len(seen)} nearly held out"]
    return kept, lost if len(kept) < len(found) else []
