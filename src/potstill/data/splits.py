"""Which prompts train and which are held out, decided once and for good.

Every choice is a hash of (seed, id), or of (seed, group), never a draw: the same
prompts give the same split on every machine and in every order, and prompts
that come later do not move the others.

A fraction of single prompts is cut by the hash itself: held out is whatever
falls below `fraction` on a scale from 0 to 1. Ranking the hashes and taking the
first round(fraction * n) would hit the number exactly, but each added prompt
could push another across the line, and a held-out prompt that a later run
trains on makes the two runs' measurements incomparable. The price is that the
number scatters by sqrt(n fraction (1 - fraction)): 70 +- 7.5 for a fifth of 352.
Groups are few, so there that scatter would be too large and they are ranked:
prompts added to known groups move nothing, only a new group can move one.
"""

from __future__ import annotations

import difflib
import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from potstill.config.data import HeldOut, HeldOutFraction, HeldOutGroups, HeldOutPrompts, NearDuplicates
from potstill.data.duplicates import NearDuplicate, near_duplicates
from potstill.data.prompts import PromptError, read_prompts
from potstill.data.tables import excerpt
from potstill.records import Prompt

LEAST_HELD_OUT = 4  # two of each split: one alone has no spread
_SHOWN = 5


def split_prompts(
    prompts: Sequence[Prompt], held_out: HeldOut, near: NearDuplicates, seed: int
) -> tuple[list[Prompt], list[Prompt], list[str]]:
    """(training, held out, notes for the user); both in the order they came in.

    The held-out ones say split 'selection' or 'test', half and half.
    """
    if isinstance(held_out, HeldOutPrompts):
        training, aside = list(prompts), read_prompts(held_out.prompts)
    else:
        chosen = _chosen(prompts, held_out, seed)
        training = [prompt for prompt in prompts if prompt.id not in chosen]
        aside = [prompt for prompt in prompts if prompt.id in chosen]
    aside, notes = _without_near_duplicates(training, aside, near)
    _refuse_shared_ids(training, aside)
    _refuse_too_few(training, aside, held_out, notes)
    return [replace(prompt, split="train") for prompt in training], halve(aside, seed), notes


def hash_share(seed: int, purpose: str, name: str) -> float:
    """A number from 0 to 1 that belongs to this name; purposes are independent of each other."""
    key = f"{seed}\0{purpose}\0{name}".encode()
    return int.from_bytes(hashlib.sha256(key).digest()[:8], "big") / 2**64


def _chosen(prompts: Sequence[Prompt], held_out: HeldOutFraction | HeldOutGroups, seed: int) -> set[str]:
    """Ids of the held-out prompts."""
    if isinstance(held_out, HeldOutFraction) and not held_out.by_group:
        return {prompt.id for prompt in prompts if hash_share(seed, "held out", prompt.id) < held_out.fraction}
    sizes = _group_sizes(prompts)
    if isinstance(held_out, HeldOutGroups):
        groups = _named_groups(sizes, held_out)
    else:
        ranked = sorted(sizes, key=lambda group: hash_share(seed, "held-out group", group))
        groups = set(ranked[: max(1, round(held_out.fraction * len(ranked)))])
    return {prompt.id for prompt in prompts if prompt.group in groups}


def _group_sizes(prompts: Sequence[Prompt]) -> Counter[str]:
    sizes = Counter(prompt.group for prompt in prompts)
    if "" in sizes:
        raise PromptError(
            f"expected every prompt to have a group, found {sizes['']} of {len(prompts)} without. Name the "
            "column that holds it (`prompts.group`), or hold out a fraction without by_group."
        )
    return sizes


def _named_groups(sizes: Counter[str], held_out: HeldOutGroups) -> set[str]:
    unknown = [group for group in held_out.groups if group not in sizes]
    if unknown:
        near = [name for group in unknown for name in difflib.get_close_matches(group, sizes, n=1)]
        hint = f" Did you mean {', '.join(map(repr, near))}?" if near else ""
        found = ", ".join(f"{group!r} ({size})" for group, size in sorted(sizes.items())[:50])
        more = f" and {len(sizes) - 50} more" if len(sizes) > 50 else ""
        raise PromptError(
            f"no prompt belongs to the held-out group {', '.join(map(repr, unknown))}.{hint} "
            f"Groups found (prompts): {found}{more}. Correct `held_out.groups`."
        )
    return set(held_out.groups)


def halve(aside: list[Prompt], seed: int) -> list[Prompt]:
    """Half is for choosing, half for reporting.

    Ranked, so the halves differ by at most one; a prompt added later moves at most one other.
    """
    ranked = sorted(aside, key=lambda prompt: hash_share(seed, "selection or test", prompt.id))
    selection = {prompt.id for prompt in ranked[: len(ranked) // 2]}
    return [replace(prompt, split="selection" if prompt.id in selection else "test") for prompt in aside]


def _without_near_duplicates(
    training: list[Prompt], aside: list[Prompt], near: NearDuplicates
) -> tuple[list[Prompt], list[str]]:
    """The held-out prompts that training has not seen, and notes about the others."""
    found = near_duplicates(training, aside, near.threshold)
    if found and near.on_found == "refuse":
        raise PromptError(_refusal(found, len(aside), near.threshold))
    dropped = {duplicate.held_out.id for duplicate in found}
    notes = [f"dropped a held-out prompt that training has seen:\n{_pair(one)}" for one in found]
    return [prompt for prompt in aside if prompt.id not in dropped], notes


def _refusal(found: list[NearDuplicate], num_held_out: int, threshold: float) -> str:
    more = [f"  and {len(found) - _SHOWN} more"] if len(found) > _SHOWN else []
    return "\n".join(
        [
            f"{len(found)} of {num_held_out} held-out prompts are near duplicates of training prompts",
            f"(Jaccard similarity of word 3-grams at least {threshold}):",
            *map(_pair, found[:_SHOWN]),
            *more,
            "They would measure memory, not skill. Remove one of each pair, or hold out whole groups,",
            "or set near_duplicates.on_found: drop, which leaves these held-out prompts out.",
        ]
    )


def _pair(duplicate: NearDuplicate) -> str:
    held_out, training = duplicate.held_out, duplicate.training
    return (
        f"  {duplicate.similarity:.2f}  held out {held_out.id}: {excerpt(held_out.flat_text())}\n"
        f"        training {training.id}: {excerpt(training.flat_text())}"
    )


def _refuse_shared_ids(training: list[Prompt], aside: list[Prompt]) -> None:
    """Completions and measurements are filed under the id, so one id is one prompt."""
    shared = sorted({prompt.id for prompt in training} & {prompt.id for prompt in aside})
    if shared:
        raise PromptError(
            f"{len(shared)} ids name both a training and a held-out prompt, with different texts: "
            f"{', '.join(shared[:_SHOWN])}. Make ids unique over both files, or leave `id` out in both: a "
            "hash of the content names them then."
        )


def _refuse_too_few(training: list[Prompt], aside: list[Prompt], held_out: HeldOut, notes: list[str]) -> None:
    mend = {
        "fraction": ("Raise held_out.fraction, or add prompts.", "Lower held_out.fraction, or add prompts."),
        "groups": ("Name more groups in held_out.groups.", "Name fewer groups in held_out.groups."),
        "prompts": ("Add prompts to the held-out file.", "Add training prompts."),
    }[held_out.kind]
    dropped = f" after {len(notes)} near duplicates were dropped" if notes else ""
    if len(aside) < LEAST_HELD_OUT:
        raise PromptError(
            f"expected at least {LEAST_HELD_OUT} held-out prompts (two to choose with, two to report), found "
            f"{len(aside)} beside {len(training)} for training{dropped}. {mend[0]}"
        )
    if not training:
        raise PromptError(f"no prompt is left for training: all {len(aside)} are held out. {mend[1]}")
