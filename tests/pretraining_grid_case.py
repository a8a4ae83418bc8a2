"""A grid in miniature with every kind of model; run as a script it conducts a part of it and kills itself at a step."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from pretraining_case import LAB, die_after

from potstill.config.pretraining import PretrainingLab
from potstill.lab.pretraining_conducting import conduct_pretraining
from potstill.training.show import Show

GRID = LAB | {
    "block_tokens": 32,
    "completing": ["large"],
    "variants": {"temperature 2": {"divergence_temperature": 2.0}, "label smoothing": {"uniform_teacher": True}},
    "ablation": {"weights": [0.5], "teachers": ["small@1.92k"]},
}
#: One teacher, one twin, one student: steps of GRID.
PART = GRID | {
    "completing": [], "variants": {}, "ablation": {}, "seeds": [1], "weights": [0.5],
    "teachers": {"sizes": ["small"], "tokens": [1920]},
}  # fmt: skip
STEPS = (15, 10, 10)  # of each of them


def grid(**changes: Any) -> PretrainingLab:
    return PretrainingLab.model_validate(GRID | changes)


def main() -> None:
    """folder, after how many steps of this process to die."""
    torch.set_num_threads(1)
    die_after(int(sys.argv[2]))
    conduct_pretraining(PretrainingLab.model_validate(PART), "part", Path(sys.argv[1]), 1, Show(quiet=True))


if __name__ == "__main__":
    main()
