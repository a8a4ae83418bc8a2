"""Three steps, then the lead writes losses and weights; torchrun runs it from test_parallel.py for each way in turn."""

from __future__ import annotations

import json
import sys

import torch
from safetensors.torch import save_file
from test_invariance import LENGTHS, VOCABULARY, AllRows, make, objective, rows

from potstill.config.adapter import Lora
from potstill.config.training import Optimiser, Training
from potstill.models.adapt import adapt
from potstill.models.recompute import recompute_blocks
from potstill.models.scored import ScoredModel
from potstill.models.vocabulary import Alignment
from potstill.teachers import LocalTeacher
from potstill.training.checkpoint import weights
from potstill.training.loop import Trainer
from potstill.training.optim import make_optimiser
from potstill.training.parallel import World, start_world, whole, wrap


def three_steps(world: World, family: str, tie: bool, parallel: str, output: str, adapted: bool) -> None:
    """Writes OUTPUT.safetensors and OUTPUT.json."""
    teacher, student, layout = make(family, tie)
    if adapted:
        adapt(student, Lora(kind="lora", rank=4), 0)
        recompute_blocks(student)
    config = Training(
        steps=3, batch_rows=len(LENGTHS), micro_batch_rows=3, precision="fp32",
        optimiser=Optimiser(learning_rate=1e-2, warmup_steps=1, weight_decay=0.1, clip_norm=0.5),
    )  # fmt: skip
    said = LocalTeacher(
        ScoredModel(teacher), rows(), layout, Alignment(None, VOCABULARY), "t", 64.0, world.device, range(len(LENGTHS))
    )
    wrapped = wrap(ScoredModel(student), world, parallel)  # type: ignore[arg-type]
    optimiser = make_optimiser(wrapped, config.optimiser)
    made = Trainer(wrapped, optimiser, objective(), AllRows(), rows(), layout, said, config, world)
    metrics = [made.train_step() for _ in range(3)]
    tensors = {name: whole(value).contiguous() for name, value in weights(student).items()}
    if world.leads:
        save_file(tensors, f"{output}.safetensors")
        with open(f"{output}.json", "w") as handle:
            json.dump(metrics, handle)


if __name__ == "__main__":
    torch.set_num_threads(1)
    here = start_world("cpu")
    for way in ("ddp", "fsdp"):
        three_steps(here, sys.argv[1], sys.argv[2] == "tied", way, f"{sys.argv[3]}/{way}", sys.argv[4] == "adapted")
