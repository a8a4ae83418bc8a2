"""The inputs of every check: rows of hidden states and heads, and how each scenario lays them out.

Written with numpy alone, so that no toolkit and no version of torch has a say in them.
A scenario says which rows stand in which micro-batch of which process, on which side
they are padded, the temperature, and which variant of the numbers is used. Logits are
the float64 product of the stored hidden states and heads, rounded once.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

SEEDS = (0, 1)
VOCABULARY, WIDTH, PADDING_COLUMNS = 53, 16, 6
#: (prompt, answer) tokens; the last row's labels are all ignored.
LENGTHS = ((3, 5), (2, 40), (6, 12), (4, 3), (3, 7))
LEARNED = (0, 1, 2, 3)
MASKED = 4
SCALE, LARGE_SCALE = 3.0, 50.0

#: name -> layout; `world` is processes -> micro-batches -> rows.
SCENARIOS: dict[str, dict[str, Any]] = {
    "plain": {},
    "itself": {"variant": "itself"},
    "warm": {"temperature": 2.0},
    "hot": {"temperature": 4.0},
    "micro_batches": {"world": [[[0], [1], [2], [3]]]},
    "left": {"side": "left"},
    "wide": {"extra": 7},
    "masked_row": {"world": [[[0, 1, 2, 3, 4]]]},
    "masked_micro_batch": {"world": [[[0, 1, 2, 3], [4]]]},
    "two_ranks": {"world": [[[0, 1]], [[2, 3]]]},
    "large": {"variant": "large"},
    "bf16": {"variant": "bf16"},
    "teacher_wider": {"variant": "teacher_wider"},
    "teacher_narrower": {"variant": "teacher_narrower"},
}
DEFAULTS: dict[str, Any] = {
    "world": [[list(LEARNED)]], "side": "right", "extra": 0, "temperature": 1.0, "variant": "plain",
}  # fmt: skip


def scenario(name: str) -> dict[str, Any]:
    """A scenario with its defaults filled in."""
    return DEFAULTS | SCENARIOS[name]


def rows_of(name: str) -> list[int]:
    """Every row that stands in a scenario, in order."""
    return [row for rank in scenario(name)["world"] for micro in rank for row in micro]


def make(seed: int) -> dict[str, np.ndarray]:
    """Arrays of one seed, float64: heads [V, D], hidden states [T, D], ids and labels [T] of each row."""
    random = np.random.default_rng(1000 + seed)
    spread = np.sqrt(SCALE / WIDTH**0.5)
    wide = VOCABULARY + PADDING_COLUMNS
    cases: dict[str, np.ndarray] = {
        "student_head": spread * random.standard_normal((VOCABULARY, WIDTH)),
        "teacher_head": spread * random.standard_normal((wide, WIDTH)),
    }
    # Rows of a head that stand for no token keep what initialisation gave them: small numbers.
    cases["teacher_head"][VOCABULARY:] *= 0.1
    for row, (prompt, answer) in enumerate(LENGTHS):
        length = prompt + answer
        student = spread * random.standard_normal((length, WIDTH))
        cases[f"student_hidden_{row}"] = student
        cases[f"teacher_hidden_{row}"] = 0.6 * student + 0.8 * spread * random.standard_normal((length, WIDTH))
        ids = random.integers(3, VOCABULARY - PADDING_COLUMNS, length)
        labels = ids.copy()
        labels[: length if row == MASKED else prompt] = -100
        cases[f"ids_{row}"], cases[f"labels_{row}"] = ids, labels
    # Teacher and student agree about as much as a real pair does.
    cases["teacher_head"][:VOCABULARY] = 0.8 * cases["student_head"] + 0.6 * cases["teacher_head"][:VOCABULARY]
    return cases


def vary(cases: dict[str, np.ndarray], variant: str) -> dict[str, np.ndarray]:
    """The numbers that a variant starts from, rounded to float32 (or bfloat16) and kept as float64."""
    out = dict(cases)
    out["teacher_head"] = out["teacher_head"][:VOCABULARY]
    if variant == "itself":
        out["teacher_head"] = out["student_head"]
        out |= {f"teacher_hidden_{row}": out[f"student_hidden_{row}"] for row in range(len(LENGTHS))}
    elif variant == "large":
        for role in ("student_head", "teacher_head"):
            out[role] = out[role] * (LARGE_SCALE / SCALE)
    elif variant == "teacher_wider":
        out["teacher_head"] = cases["teacher_head"]
    elif variant == "teacher_narrower":
        out["teacher_head"] = out["teacher_head"][:-PADDING_COLUMNS]
    rounding = round_bf16 if variant == "bf16" else round_fp32
    return {name: rounding(value) if value.dtype == np.float64 else value for name, value in out.items()}


def logits(varied: dict[str, np.ndarray], role: str, row: int, bf16: bool) -> np.ndarray:
    """[T, V] logits of a row, rounded to what an adapter gets, as float64."""
    exact = varied[f"{role}_hidden_{row}"] @ varied[f"{role}_head"].T
    return round_bf16(exact) if bf16 else round_fp32(exact)


def round_fp32(values: np.ndarray) -> np.ndarray:
    """To the nearest float32, as float64."""
    return values.astype(np.float32).astype(np.float64)


def round_bf16(values: np.ndarray) -> np.ndarray:
    """To the nearest bfloat16, ties to even, as float64."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32).astype(np.uint64)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16) << 16
    return rounded.astype(np.uint32).view(np.float32).astype(np.float64)


def write(folder: Path) -> None:
    """One .npz for each seed and variant, and scenarios.json."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "scenarios.json").write_text(json.dumps({name: scenario(name) for name in SCENARIOS}, indent=1))
    for seed in SEEDS:
        cases = make(seed)
        for variant in sorted({scenario(name)["variant"] for name in SCENARIOS}):
            varied = vary(cases, variant)
            for row in range(len(LENGTHS)):
                for role in ("student", "teacher"):
                    varied[f"{role}_logits_{row}"] = logits(varied, role, row, variant == "bf16")
            np.savez(folder / f"{variant}-{seed}.npz", **varied)
