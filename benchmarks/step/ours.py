"""Some steps of Potstill's own loop on the prepared batches; one JSON line a step.

    python benchmarks/step/ours.py FOLDER STEPS LEARNING_RATE kept|every-step|sampled|final_hidden [PACK_TOKENS]

`kept`: the teacher's hidden states are computed once before the first step, as a run does;
`every-step`: the teacher runs in every step, as it does in GKD; the other two: from a cache on disk that is written
before, without a teacher in memory (50 draws a token, or states in fp32).
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from report import peak_mb, start
from transformers import AutoModelForCausalLM

from potstill.cached_teacher import CachedTeacher, settings_of
from potstill.config.cache import FinalHiddenCache, SampledCache
from potstill.config.objective import ObjectiveConfig
from potstill.config.schedule import ConstantRate
from potstill.config.training import Optimiser, Training
from potstill.data.cache_index import Header
from potstill.data.collate import Layout, Row
from potstill.data.targets_cache import CacheWriter, TargetsCache
from potstill.losses.objective import Objective
from potstill.models.scored import ScoredModel
from potstill.models.shrink import release_body
from potstill.models.vocabulary import Alignment
from potstill.sources import Planned
from potstill.teachers import LocalTeacher
from potstill.training.caching import complete, write_targets
from potstill.training.hardware import keep_freed_memory
from potstill.training.loop import Trainer
from potstill.training.optim import make_optimiser
from potstill.training.parallel import World


class InOrder:
    """A source that hands out the prepared batches one after the other."""

    plans: Any = ()

    def __init__(self, sizes: list[int]):
        self.sizes = sizes

    def planned(self, step: int) -> list[Planned]:
        first = sum(self.sizes[: step % len(self.sizes)])
        return [Planned("reference", i) for i in range(first, first + self.sizes[step % len(self.sizes)])]

    def epoch(self, step: int) -> float:
        return step / len(self.sizes)

    def replan(self, plan: object) -> None:
        raise RuntimeError(
            f"the prepared batches come in one order for the whole run, and a new plan was given: {plan}; "
            "measure a run that changes its plan with a source of potstill.sources"
        )


SPECS: dict[str, SampledCache | FinalHiddenCache] = {
    "sampled": SampledCache(format="sampled", draws=50),
    "final_hidden": FinalHiddenCache(format="final_hidden", dtype="fp32"),
}


def write(path: Path, name: str, scored: ScoredModel, rows: list[Row], layout: Layout, alignment: Alignment) -> None:
    """The targets of all rows, as `potstill cache` writes them."""
    spec = SPECS[name]
    blank = Header(
        name, "", "", "as_computed", "fp32", 0, None, None, None if name == "final_hidden" else 1.0,
        settings_of(spec, 0),
    )  # fmt: skip
    header = complete(blank, scored, "t", "teacher", alignment, layout)
    head = scored.head() if name == "final_hidden" else None
    with CacheWriter(path, header, head) as writer:
        write_targets(writer, scored, rows, layout, alignment, torch.device("cpu"), lambda count, tokens: False)


def main(folder: Path, steps: int, rate: float, teacher_runs: str, pack: int | None) -> None:
    """Train and report."""
    keep_freed_memory()
    batches = json.loads((folder / "batches.json").read_text())
    rows = [
        Row(f"p{i}", 0, "reference", tuple(r["prompt"]), (False,) * len(r["prompt"]), tuple(r["answer"]))
        for i, r in enumerate(r for batch in batches for r in batch)
    ]
    teacher, student = (
        AutoModelForCausalLM.from_pretrained(folder / name, dtype=torch.float32) for name in ("teacher", "student")
    )
    start()
    config = Training(
        steps=steps, batch_rows=len(batches[0]), precision="fp32", pack_tokens=pack,
        optimiser=Optimiser(learning_rate=rate, schedule=ConstantRate(kind="constant")),
    )  # fmt: skip
    world, layout = World(0, 1, torch.device("cpu")), Layout(0)
    width = student.get_output_embeddings().weight.shape[0]
    scored = ScoredModel(teacher.eval(), pack)
    alignment, keep = Alignment(None, width), 512.0 if teacher_runs == "kept" else 0.0
    said: LocalTeacher | CachedTeacher
    if teacher_runs in SPECS:
        cached = folder / f"cache-{teacher_runs}"
        if not cached.exists():
            write(cached, teacher_runs, scored, rows, layout, alignment)
        release_body(teacher)
        said = CachedTeacher(TargetsCache(cached), rows, range(len(rows)))
    else:
        said = LocalTeacher(scored, rows, layout, alignment, "t", keep, world.device, range(len(rows)))
    objective = Objective(
        ObjectiveConfig.model_validate({"terms": [{"kind": "forward_kl", "weight": 1.0, "on": ["reference"]}]})
    )
    wrapped = ScoredModel(student.train(), pack)
    source = InOrder([len(batch) for batch in batches])
    made = Trainer(wrapped, make_optimiser(wrapped, config.optimiser), objective, source, rows, layout, said, config,
                   world)  # fmt: skip
    started = time.perf_counter()
    if teacher_runs != "every-step":
        said.prepare(lambda rows, tokens: None)
    print(json.dumps({"teacher_seconds": time.perf_counter() - started}), flush=True)
    for _ in range(steps):
        started = time.perf_counter()
        metrics = made.train_step()
        seconds = time.perf_counter() - started
        print(
            json.dumps({"loss": metrics["loss"], "counted": metrics["counted_tokens"], "seconds": seconds}), flush=True
        )
    print(json.dumps({"peak_mb": peak_mb()}), flush=True)


if __name__ == "__main__":
    packed = int(sys.argv[5]) if len(sys.argv) > 5 else None
    main(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), sys.argv[4], packed)
