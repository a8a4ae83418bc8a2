"""From measured cells to curves: the same held-out prompts at every evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from potstill.records import HELD_OUT, Curve, Measured

MEAN = "mean"  # the prompt id of a curve of means


class PromptMeans(NamedTuple):
    """One evaluation of one series: each prompt's sum and tokens, averaged over its completions."""

    prompt_ids: np.ndarray  # [P] str, sorted, each once
    sums: np.ndarray  # [P]
    tokens: np.ndarray  # [P]


#: step -> what was measured there
Cells = dict[int, PromptMeans]


def prompt_means(measured: Measured) -> PromptMeans:
    """Averages over the completions of each prompt."""
    ids, where = np.unique(measured.prompt_ids, return_inverse=True)
    rows = np.bincount(where)
    return PromptMeans(ids, np.bincount(where, measured.sums) / rows, np.bincount(where, measured.tokens) / rows)


def assemble(cells: Mapping[str, Cells], splits: Mapping[str, str]) -> dict[str, Curve]:
    curves = {name: curve_of_cells(name, series, splits) for name, series in cells.items()}
    teacher = curves.pop("teacher_golden", None)
    if teacher is not None and "golden" in curves:
        curves["golden"] = with_teacher(curves["golden"], teacher)
    return curves


def curve_of_cells(name: str, cells: Cells, splits: Mapping[str, str]) -> Curve:
    """One series as [S, P], on the held-out prompts that every evaluation measured."""
    steps = sorted(cells)
    found = [cells[step] for step in steps]
    shared = found[0].prompt_ids
    for other in found[1:]:
        if not np.array_equal(shared, other.prompt_ids):
            shared = np.intersect1d(shared, other.prompt_ids, assume_unique=True)
    theirs = [splits.get(prompt, "test") for prompt in shared.tolist()]
    kept = np.array([split in HELD_OUT for split in theirs], dtype=bool)
    prompts = shared[kept]
    if not len(prompts):
        raise ValueError(
            f"{name}: no held-out prompt was measured at all of its {len(steps)} evaluations; "
            f"measure the same prompts every time, with splits among {HELD_OUT}"
        )
    where = [np.searchsorted(one.prompt_ids, prompts) for one in found]
    return Curve(
        name=name,
        steps=np.array(steps, dtype=np.int64),
        sums=np.stack([one.sums[place] for one, place in zip(found, where, strict=True)]),
        tokens=np.stack([one.tokens[place] for one, place in zip(found, where, strict=True)]),
        prompt_ids=prompts.astype(np.str_),
        splits=np.array(theirs, dtype=np.str_)[kept],
        paired=prompts.tolist() != [MEAN],
    )


def with_teacher(golden: Curve, teacher: Curve) -> Curve:
    """`golden` with the teacher's last value, on the prompts that both have."""
    shared, mine, its = np.intersect1d(golden.prompt_ids, teacher.prompt_ids, return_indices=True)
    if len(shared) < len(golden.prompt_ids):
        raise ValueError(
            f"teacher_golden covers {len(shared)} of golden's {len(golden.prompt_ids)} prompts; "
            "measure both on the same prompts"
        )
    return Curve(
        name=golden.name,
        steps=golden.steps,
        sums=golden.sums[:, mine],
        tokens=golden.tokens[:, mine],
        prompt_ids=shared,
        splits=golden.splits[mine],
        teacher=teacher.sums[-1, its],
        paired=golden.paired,
    )
