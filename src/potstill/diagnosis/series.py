"""From measured cells to curves: the same held-out prompts at every evaluation."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from potstill.records import HELD_OUT, Curve

#: step -> prompt id -> what each of that prompt's completions gave: (sum, tokens)
Cells = dict[int, dict[str, list[tuple[float, float]]]]

MEAN = "mean"  # the prompt id of a curve of means


def assemble(cells: Mapping[str, Cells], splits: Mapping[str, str]) -> dict[str, Curve]:
    curves = {name: curve_of_cells(name, series, splits) for name, series in cells.items()}
    teacher = curves.pop("teacher_golden", None)
    if teacher is not None and "golden" in curves:
        curves["golden"] = with_teacher(curves["golden"], teacher)
    return curves


def curve_of_cells(name: str, cells: Cells, splits: Mapping[str, str]) -> Curve:
    """One series as [S, P], on the held-out prompts that every evaluation measured."""
    steps = sorted(cells)
    held_out = set.intersection(*(set(cells[step]) for step in steps))
    prompts = sorted(prompt for prompt in held_out if splits.get(prompt, "test") in HELD_OUT)
    if not prompts:
        raise ValueError(
            f"{name}: no held-out prompt was measured at all of its {len(steps)} evaluations; "
            f"measure the same prompts every time, with splits among {HELD_OUT}"
        )
    values = np.array([[average(cells[step][prompt]) for prompt in prompts] for step in steps])
    return Curve(
        name=name,
        steps=np.array(steps, dtype=np.int64),
        sums=values[..., 0],
        tokens=values[..., 1],
        prompt_ids=np.array(prompts, dtype=np.str_),
        splits=np.array([splits.get(prompt, "test") for prompt in prompts], dtype=np.str_),
        paired=prompts != [MEAN],
    )


def average(parts: list[tuple[float, float]]) -> tuple[float, float]:
    """Mean sum and mean token count of a prompt's completions (plain Python: it runs S x P times)."""
    return sum(total for total, _ in parts) / len(parts), sum(count for _, count in parts) / len(parts)


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
