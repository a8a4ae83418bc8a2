"""The same steps by TRL's `GKDTrainer`, whole: its collated batches are ours, its loop is its own.

    python benchmarks/step/trl_gkd.py FOLDER STEPS LEARNING_RATE [--checkpointing]

lmbda 0 (offline), beta 0 (forward KL), constant rate, AdamW as in `ours.py`. `--checkpointing`
leaves gradient checkpointing on, which is GKDConfig's default.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from report import peak_mb, start
from torch.utils.data import SequentialSampler
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl.experimental.gkd import GKDConfig, GKDTrainer


def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Padded on the right; labels -100 on prompt and padding, as TRL's own collator has them."""
    longest = max(len(r["prompt"]) + len(r["answer"]) for r in rows)
    made = {name: [] for name in ("input_ids", "attention_mask", "labels")}
    for row in rows:
        ids, empty = row["prompt"] + row["answer"], longest - len(row["prompt"]) - len(row["answer"])
        made["input_ids"].append(ids + [0] * empty)
        made["attention_mask"].append([1] * len(ids) + [0] * empty)
        made["labels"].append([-100] * len(row["prompt"]) + row["answer"] + [-100] * empty)
    return {name: torch.tensor(value) for name, value in made.items()}


class Noted(GKDTrainer):
    """GKD that takes the rows in order and notes its losses in full precision."""

    def _get_train_sampler(self, *_: Any) -> SequentialSampler:
        return SequentialSampler(self.train_dataset)

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        now = time.perf_counter()
        if self.note is not None:
            print(json.dumps(self.note | {"seconds": now - self.since}), flush=True)
        self.since = now
        counted = int((inputs["labels"][:, 1:] != -100).sum())
        loss = super().training_step(model, inputs, num_items_in_batch)
        self.note = {"loss": float(loss), "counted": counted}
        return loss

    note: dict[str, Any] | None = None
    since: float = 0.0


def main(folder: Path, steps: int, rate: float, checkpointing: bool) -> None:
    """Train and report; a step lasts from one training_step to the next, optimiser included."""
    batches = json.loads((folder / "batches.json").read_text())
    rows = [row for i in range(steps + 1) for row in batches[i % len(batches)]]
    teacher, student = (
        AutoModelForCausalLM.from_pretrained(folder / name, dtype=torch.float32) for name in ("teacher", "student")
    )
    start()
    with tempfile.TemporaryDirectory() as scratch:
        settings = GKDConfig(
            output_dir=scratch, lmbda=0.0, beta=0.0, per_device_train_batch_size=len(batches[0]), max_steps=steps + 1,
            learning_rate=rate, lr_scheduler_type="constant", adam_beta2=0.95, weight_decay=0.0, max_grad_norm=1.0,
            report_to="none", save_strategy="no", bf16=False, use_cpu=True, gradient_checkpointing=checkpointing,
            logging_strategy="no", disable_tqdm=True,
        )  # fmt: skip
        trainer = Noted(
            model=student, teacher_model=teacher, args=settings, data_collator=collate,
            train_dataset=Dataset.from_list(rows), processing_class=AutoTokenizer.from_pretrained(folder / "teacher"),
        )  # fmt: skip
        trainer.train()
    print(json.dumps({"peak_mb": peak_mb()}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), "--checkpointing" in sys.argv)
