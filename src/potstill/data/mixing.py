"""Several sets of prompts as one, in the shares that the configuration names."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

from potstill.config.data import PromptSets
from potstill.data.prompts import PromptError, read_prompts
from potstill.data.tables import excerpt
from potstill.records import Prompt


def read_all(data: PromptSets, seed: int) -> tuple[list[Prompt], list[str]]:
    """The prompts of all sets, and a note on what was taken of each where shares are named.

    Of each set the first so many in an order keyed by seed and id. Raises PromptError: one prompt or
    id in two sets, a set too small for its share of `num_prompts`.
    """
    configs = (data.prompts, *data.more_prompts)
    sets = [read_prompts(config) for config in configs]
    notes: list[str] = []
    if configs[0].share is not None:
        shares = [config.share or 0.0 for config in configs]
        counts = mixed_counts([len(found) for found in sets], shares, data.num_prompts)
        sets = [_some(found, count, seed) for found, count in zip(sets, counts, strict=True)]
        taken = (f"{count} of {config.path}" for count, config in zip(counts, configs, strict=True))
        notes = [f"prompts mixed: {', '.join(taken)}"]
    _refuse_shared(sets, [config.path for config in configs])
    return [prompt for found in sets for prompt in found], notes


def mixed_counts(sizes: Sequence[int], shares: Sequence[float], total: int | None) -> list[int]:
    """How many of each set: its share of `total`, or of the most that the smallest set allows.

    Largest remainders round, so the counts sum to the total. Raises PromptError.
    """
    most = min(math.floor(size / share + 1e-9) for size, share in zip(sizes, shares, strict=True))
    wanted = most if total is None else total
    exact = [share * wanted for share in shares]
    counts = [math.floor(value + 1e-9) for value in exact]
    by_remainder = sorted(range(len(exact)), key=lambda i: (counts[i] - exact[i], i))
    for i in by_remainder[: wanted - sum(counts)]:
        counts[i] += 1
    short = [i for i, (count, size) in enumerate(zip(counts, sizes, strict=True)) if count > size]
    if short and total is not None:
        i = short[0]
        raise PromptError(
            f"data.num_prompts {total} needs {counts[i]} prompts of set {i + 1}, which has {sizes[i]}. These shares "
            f"allow {most} in all; lower num_prompts, or the set's share."
        )
    return [min(count, size) for count, size in zip(counts, sizes, strict=True)]


def _some(prompts: Sequence[Prompt], count: int, seed: int) -> list[Prompt]:
    """The first `count` in an order keyed by seed and id, in the set's own order."""
    keyed = sorted(prompts, key=lambda p: hashlib.sha256(f"{seed}|mix|{p.id}".encode()).digest())
    kept = {prompt.id for prompt in keyed[:count]}
    return [prompt for prompt in prompts if prompt.id in kept]


def _refuse_shared(sets: Sequence[Sequence[Prompt]], paths: Sequence[str]) -> None:
    first: dict[str, str] = {}
    for found, path in zip(sets, paths, strict=True):
        for prompt in found:
            for name in (f"the id {prompt.id!r}", f"the prompt {excerpt(prompt.flat_text())}"):
                other = first.setdefault(name, path)
                if other != path:
                    raise PromptError(
                        f"{path}: {name} is in {other} too. Remove it from one of them, or leave `id` out so that "
                        "contents name the prompts."
                    )
