"""What compiling the student's blocks, and computing them again in the backward pass, cost and save.

The quickstart's student (20 layers of SmolLM2-135M-Instruct), 12 rows of 40 to 120 tokens,
cross-entropy on the second half of each row, forward and backward. Plain, recomputed and
compiled steps take turns in one process, so that a noisy machine is noisy for all of them;
medians and ratios are printed, and kept beside this file with the hardware. Bytes are those of
the tensors that autograd keeps for the backward pass, parameters excepted.

    python benchmarks/blocks.py [ROUNDS]
"""

from __future__ import annotations

import copy
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from potstill.batch import TokenBatch
from potstill.config import load_run
from potstill.config.objective import ObjectiveConfig
from potstill.data.collate import Layout, Row, collate
from potstill.losses.objective import Objective
from potstill.models.load import load_model
from potstill.models.recompute import recompute_blocks
from potstill.models.scored import ScoredModel
from potstill.models.student import build_student
from potstill.training.hardware import environment, keep_freed_memory
from potstill.training.parallel import blocks

RECIPE = Path(__file__).parent.parent / "recipes" / "quickstart.yaml"
TERM = {"kind": "cross_entropy", "weight": 1.0, "on": ["reference"]}


def batch(seed: int, vocabulary: int, objective: Objective) -> TokenBatch:
    """Twelve rows whose lengths differ from step to step, as real ones do."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for i in range(12):
        length = int(torch.randint(40, 121, (), generator=generator))
        ids = torch.randint(0, vocabulary, (length,), generator=generator).tolist()
        half = length // 2
        rows.append(Row(f"p{i}", 0, "reference", tuple(ids[:half]), (False,) * half, tuple(ids[half:])))
    return objective.weigh(collate(rows, Layout(0)))


def step(model: ScoredModel, data: TokenBatch, objective: Objective) -> float:
    """Seconds of one forward and backward."""
    model.zero_grad(set_to_none=True)
    started = time.perf_counter()
    (model(data, objective).total / data.num_counted).backward()
    return time.perf_counter() - started


def kept_bytes(model: ScoredModel, data: TokenBatch, objective: Objective) -> int:
    """Bytes that autograd keeps between forward and backward."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    seen: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        scored = model(data, objective)
    total = sum(seen.values())
    del scored
    return total


def main() -> None:
    """Measure and print."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    keep_freed_memory()
    config = load_run(RECIPE)
    plain, _, _ = build_student(config.student, load_model(config.teacher, torch.float32), 0)
    objective = Objective(ObjectiveConfig.model_validate({"terms": [TERM]}))
    models: dict[str, Any] = {"plain": ScoredModel(plain)}
    models["recomputed"] = ScoredModel(copy.deepcopy(plain))
    recompute_blocks(models["recomputed"].model)
    models["compiled"] = ScoredModel(copy.deepcopy(plain))
    for block in blocks(models["compiled"]):
        block.compile(dynamic=True)
    vocabulary = models["plain"].vocabulary_width
    first = {
        name: [step(model, batch(s, vocabulary, objective), objective) for s in (0, 1)]
        for name, model in models.items()
    }
    times: dict[str, list[float]] = {name: [] for name in models}
    for turn in range(rounds):
        data = batch(10 + turn, vocabulary, objective)
        for name, model in models.items():
            times[name].append(step(model, data, objective))
    data = batch(5, vocabulary, objective)
    found: dict[str, Any] = {
        name: {
            "first_two_steps_seconds": first[name],
            "median_seconds": statistics.median(times[name]),
            "times_plain": statistics.median(t / p for t, p in zip(times[name], times["plain"], strict=True)),
            "kept_megabytes": kept_bytes(models[name], data, objective) / 2**20,
        }
        for name in ("plain", "recomputed", "compiled")
    }
    for name, figures in found.items():
        print(
            f"{name:>10}: {figures['median_seconds']:.2f} s a step ({figures['times_plain']:.2f} times plain), "
            f"{figures['kept_megabytes']:,.0f} MB kept, first steps "
            + ", ".join(f"{s:.1f} s" for s in figures["first_two_steps_seconds"])
        )
    kept = {"rounds": rounds, "figures": found, "environment": environment(torch.device("cpu"))}
    Path(__file__).with_suffix(".json").write_text(json.dumps(kept, indent=2) + "\n")


if __name__ == "__main__":
    main()
