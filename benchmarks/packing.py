"""What packing saves over padding.

The quickstart's student (20 layers of SmolLM2-135M-Instruct), 12 rows of 40 to 120 tokens,
cross-entropy on the second half of each row, forward and backward: padded to the longest row, and
laid end to end in bins of several sizes, the largest of which holds all rows. All take turns on one
model, so that a noisy machine is noisy for all of them; medians and ratios are printed after every
round, and kept beside this file with the hardware.

    python benchmarks/packing.py [ROUNDS]
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path

import torch
from blocks import RECIPE, TERM, batch, step

from potstill.config import load_run
from potstill.config.objective import ObjectiveConfig
from potstill.losses.objective import Objective
from potstill.models.load import load_model
from potstill.models.packing import pack, verify_packing
from potstill.models.scored import ScoredModel
from potstill.models.student import build_student
from potstill.training.hardware import environment, keep_freed_memory

CAPACITIES = {"padded": None, "bins of 128": 128, "bins of 256": 256, "one bin": 2048}


def main() -> None:
    """Measure and print, after every round, so that a run may be cut short."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    keep_freed_memory()
    config = load_run(RECIPE)
    student, _, _ = build_student(config.student, load_model(config.teacher, torch.float32), 0)
    verify_packing(student)
    objective = Objective(ObjectiveConfig.model_validate({"terms": [TERM]}))
    model = ScoredModel(student)
    times: dict[str, list[float]] = {name: [] for name in CAPACITIES}
    positions: dict[str, list[float]] = {name: [] for name in CAPACITIES}
    for turn in range(-1, rounds):  # the first one warms up
        data = batch(10 + turn, model.vocabulary_width, objective)
        for name, capacity in CAPACITIES.items():
            model.pack_tokens = capacity
            seconds = step(model, data, objective)
            if turn >= 0:
                computed = data.input_ids if capacity is None else pack(data, capacity).input_ids
                times[name].append(seconds)
                positions[name].append(computed.numel() / data.num_tokens)
        if turn >= 0:
            found = figures(times, positions)
            kept = {"rounds": turn + 1, "figures": found, "environment": environment(torch.device("cpu"))}
            Path(__file__).with_suffix(".json").write_text(json.dumps(kept, indent=2) + "\n")
            print(f"after round {turn + 1}")
            for name, one in found.items():
                print(
                    f"{name:>12}: {one['median_seconds']:.2f} s a step ({one['times_padded']:.2f} times padded), "
                    f"{one['positions_per_token']:.2f} positions a token",
                    flush=True,
                )


def figures(times: dict[str, list[float]], positions: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """What is printed and kept, by name."""
    return {
        name: {
            "median_seconds": statistics.median(times[name]),
            "times_padded": statistics.median(t / p for t, p in zip(times[name], times["padded"], strict=True)),
            "positions_per_token": statistics.mean(positions[name]),
        }
        for name in CAPACITIES
    }


if __name__ == "__main__":
    main()
