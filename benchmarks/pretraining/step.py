"""What a teacher costs a pretraining step, against the floor: (6 N_student + 2 N_teacher) / 6 N_student.

    python benchmarks/pretraining/step.py [ROUNDS]

Plain, distilled with the teacher in the same batch, and distilled from kept hidden states take turns, one step each,
on the same random tokens; the ratio of a round is what a busy machine cannot shift, and its median is told with the
quartiles. N are the parameters that multiply at every token. Writes step.json beside this.
"""

from __future__ import annotations

import json
import platform
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from potstill.config.lab import TinyModel
from potstill.config.pretraining import LlamaModel, PretrainingRun
from potstill.data.collate import Layout, Row
from potstill.lab.pretraining import terms_of
from potstill.losses.objective import Objective
from potstill.models.scored import ScoredModel
from potstill.models.shapes import make_model, shape_parameters
from potstill.records import DataPlan
from potstill.sources.base import Planned
from potstill.targets import FinalHidden
from potstill.training.corpus_teachers import OnlineCorpusTeacher
from potstill.training.hardware import keep_freed_memory
from potstill.training.loop import Trainer, Training
from potstill.training.optim import make_optimiser
from potstill.training.parallel import World

HERE = Path(__file__).parent


def gpt2(hidden: int, layers: int) -> dict[str, Any]:
    return {"kind": "tiny", "hidden_size": hidden, "num_layers": layers, "ffn_size": 4 * hidden}


def llama(hidden: int, layers: int, ffn: int) -> dict[str, Any]:
    heads = hidden // 64
    return {"kind": "llama", "hidden_size": hidden, "num_layers": layers, "num_heads": heads, "ffn_size": ffn,
            "tie_embeddings": True}  # fmt: skip


#: name -> (student, teacher, vocabulary, tokens of a block, blocks of a step), by device
CASES = {
    "cpu": {
        "0.9M by 0.2M": (gpt2(128, 4), gpt2(64, 3), 1024, 128, 8),
        "0.9M by 0.9M": (gpt2(128, 4), gpt2(128, 4), 1024, 128, 8),
        "0.9M by 2M": (gpt2(128, 4), gpt2(192, 4), 1024, 128, 8),
        "10M by 10M": (llama(256, 8, 704), llama(256, 8, 704), 4096, 256, 4),
        "10M by 25M": (llama(256, 8, 704), llama(448, 9, 1216), 4096, 256, 4),
    },
    "cuda": {
        "45M by 10M": (llama(512, 12, 1408), llama(256, 8, 704), 16384, 1024, 32),
        "45M by 45M": (llama(512, 12, 1408), llama(512, 12, 1408), 16384, 1024, 32),
        "45M by 150M": (llama(512, 12, 1408), llama(896, 14, 2432), 16384, 1024, 32),
    },
}


class RandomBlocks:
    """Endless steps over the same rows."""

    plans: list[DataPlan]

    def __init__(self, rows: int):
        self.rows, self.plans = rows, []

    def planned(self, step: int) -> list[Planned]:
        return [Planned("corpus", i) for i in range(self.rows)]

    def epoch(self, step: int) -> float:
        return float(step)

    def replan(self, plan: DataPlan) -> None:
        raise RuntimeError(f"the benchmark has one plan, found {plan}")


class Remembered:
    """Hidden states that were computed before, as a lab keeps them on disk."""

    def __init__(self, scored: ScoredModel):
        self.scored, self.hidden = scored.eval(), None

    @torch.no_grad()
    def targets(self, row_ids: Any, batch: Any) -> FinalHidden:
        if self.hidden is None:
            self.hidden = self.scored.hidden(batch)
        return FinalHidden(self.hidden, self.scored.head(), "t")


def trainer(
    student: dict[str, Any], teacher: Any, weight: float, vocabulary: int, block: int, blocks: int, world: World
) -> Trainer:
    config = PretrainingRun.model_validate({
        "shape": student, "seed": 1, "block_tokens": block, "steps": 100_000, "batch_blocks": blocks,
        "optimiser": {"learning_rate": 1e-3}, "objective": {"terms": terms_of(weight)},
    })  # fmt: skip
    model = ScoredModel(make_model(config.shape, vocabulary, block, 1)).to(world.device).train()
    ids = torch.randint(3, vocabulary, (blocks, block + 1), generator=torch.Generator().manual_seed(0)).tolist()
    rows = [Row("", i, "corpus", tuple(row[:1]), (False,), tuple(row[1:])) for i, row in enumerate(ids)]
    precision = "bf16" if world.device.type == "cuda" else "fp32"
    how = Training(steps=100_000, batch_rows=blocks, optimiser=config.optimiser, precision=precision)
    return Trainer(model, make_optimiser(model, config.optimiser), Objective(config.objective), RandomBlocks(blocks),
                   rows, Layout(0), teacher, how, world)  # fmt: skip


def seconds(one: Trainer) -> float:
    start = time.perf_counter()
    one.train_step()
    if one.world.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def measure(case: tuple[Any, ...], rounds: int, world: World) -> dict[str, Any]:
    student, teacher, vocabulary, block, blocks = case
    of = [shape_parameters(_shape(tree), vocabulary, block)[2] for tree in (student, teacher)]
    scored = ScoredModel(make_model(_shape(teacher), vocabulary, block, 2)).to(world.device)
    runs = {
        "plain": trainer(student, None, 0.0, vocabulary, block, blocks, world),
        "online": trainer(student, OnlineCorpusTeacher(scored, "t"), 0.5, vocabulary, block, blocks, world),
        "kept": trainer(student, Remembered(scored), 0.5, vocabulary, block, blocks, world),
    }
    for one in runs.values():
        for _ in range(3):
            seconds(one)
    taken = np.array([[seconds(one) for one in runs.values()] for _ in range(rounds)])
    ratios = taken[:, 1:] / taken[:, :1]
    floor = (6 * of[0] + 2 * of[1]) / (6 * of[0])
    low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75], axis=0)
    return {
        "student_parameters": of[0], "teacher_parameters": of[1], "tokens_per_step": block * blocks,
        "plain_tokens_per_second": round(block * blocks / float(np.median(taken[:, 0]))),
        "floor_ratio": round(floor, 4),
        "online_ratio": round(float(middle[0]), 4),
        "online_quartiles": [round(float(low[0]), 4), round(float(high[0]), 4)],
        "online_over_floor": round(float(middle[0]) / floor, 4),
        "kept_ratio": round(float(middle[1]), 4), "rounds": rounds,
    }  # fmt: skip


def _shape(tree: dict[str, Any]) -> Any:
    return (TinyModel if tree["kind"] == "tiny" else LlamaModel).model_validate(tree)


def main(rounds: int) -> None:
    """All cases of the device at hand."""
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    keep_freed_memory()
    torch.set_num_threads(1 if kind == "cpu" else torch.get_num_threads())
    world = World(0, 1, torch.device(kind))
    name = torch.cuda.get_device_name() if kind == "cuda" else f"one thread of a CPU, {platform.machine()}"
    found: dict[str, Any] = {"hardware": f"{name}, torch {torch.__version__}", "cases": {}}
    for label, case in CASES[kind].items():
        found["cases"][label] = measure(case, rounds, world)
        print(label, json.dumps(found["cases"][label]), flush=True)
    (HERE / f"step-{kind}.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 30)
