"""What every adapter shares: micro-batches as a collator would give them, and the writing of results.

Runs inside the environment of a toolkit, so it imports torch and numpy and nothing else.
An adapter declares entries, one for each function, and calls `main`. The function of an
entry gets a world (processes -> micro-batches), runs every backward pass as the toolkit's
trainer does, and returns the losses. Gradients are then averaged over the processes as
DistributedDataParallel does, or summed where the toolkit sums them. The processes are
simulated: one after the other, in this one.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

IGNORED = -100
GARBAGE = 1.5  # what padding positions hold, as large as the rest: it must not matter


@dataclass
class Batch:
    """One micro-batch. B rows, T positions, V columns, D width; labels are not shifted."""

    rows: list[int]
    ids: Tensor  # [B, T]
    labels: Tensor  # [B, T], IGNORED on prompt and padding
    mask: Tensor  # [B, T], 1 where there is a token
    student: Tensor  # [B, T, V] logits, a leaf
    teacher: Tensor  # [B, T, V of the teacher]
    hidden: Tensor  # [B, T, D], a leaf
    teacher_hidden: Tensor  # [B, T, D]
    head: Tensor  # [V, D], a leaf that all micro-batches share
    teacher_head: Tensor  # [V of the teacher, D]
    starts: list[int]  # where each row's first token stands

    @property
    def counted(self) -> Tensor:
        """[B, T - 1], where output t predicts a label t + 1 that counts."""
        return self.labels[:, 1:] != IGNORED


World = list[list[Batch]]


@dataclass
class Entry:
    """One function of a toolkit: what it is, what it offers, and how its trainer calls it."""

    name: str
    function: str
    divergences: dict[str, Any]  # name in reference.py -> what this function calls it
    run: Callable[[World, Any, float], list[list[float]]]
    differentiates: str = "logits"  # or "hidden": hidden states and head
    temperature: bool = True
    not_offered: dict[str, str] = field(default_factory=dict)  # check -> why
    notes: dict[str, str] = field(default_factory=dict)  # check -> what its documentation says
    excluded: dict[str, str] = field(default_factory=dict)  # check -> what in its documentation rules the inputs out
    called_as: str = ""
    sums_over_ranks: bool = False


def make_world(arrays: dict[str, np.ndarray], scenario: dict[str, Any]) -> World:
    """The micro-batches of a scenario, with leaves that have no gradient yet."""
    dtype = torch.bfloat16 if scenario["variant"] == "bf16" else torch.float32
    head = torch.tensor(arrays["student_head"], dtype=dtype, requires_grad=True)
    teacher_head = torch.tensor(arrays["teacher_head"], dtype=dtype)
    return [[_batch(arrays, rows, scenario, dtype, head, teacher_head) for rows in rank] for rank in scenario["world"]]


def _batch(
    arrays: dict[str, np.ndarray], rows: list[int], scenario: dict[str, Any], dtype: torch.dtype, head: Tensor,
    teacher_head: Tensor,
) -> Batch:  # fmt: skip
    lengths = [len(arrays[f"ids_{row}"]) for row in rows]
    width = max(lengths) + scenario["extra"]
    left = scenario["side"] == "left"
    starts = [width - length if left else 0 for length in lengths]

    def lay(name: str, fill: float) -> np.ndarray:
        first = arrays[f"{name}_{rows[0]}"]
        out = np.full((len(rows), width, *first.shape[1:]), fill, first.dtype)
        if first.ndim > 1:  # no two columns alike, so that garbage makes a difference
            out *= np.where(np.arange(first.shape[1]) % 2, 1.0, -1.0)
        for place, (row, start, length) in enumerate(zip(rows, starts, lengths, strict=True)):
            out[place, start : start + length] = arrays[f"{name}_{row}"]
        return out

    def tensor(name: str) -> Tensor:
        return torch.tensor(lay(name, GARBAGE), dtype=dtype)

    mask = torch.zeros(len(rows), width, dtype=torch.long)
    for place, (start, length) in enumerate(zip(starts, lengths, strict=True)):
        mask[place, start : start + length] = 1
    return Batch(
        rows, torch.tensor(lay("ids", 0)), torch.tensor(lay("labels", IGNORED)), mask,
        tensor("student_logits").requires_grad_(), tensor("teacher_logits"),
        tensor("student_hidden").requires_grad_(), tensor("teacher_hidden"), head, teacher_head, starts,
    )  # fmt: skip


def collect(entry: Entry, world: World, losses: list[list[float]]) -> dict[str, np.ndarray]:
    """Losses, each row's gradient without padding, the head's, and the largest one that padding got."""
    share = 1.0 if entry.sums_over_ranks else 1.0 / len(world)
    out: dict[str, np.ndarray] = {"losses": np.array([loss for rank in losses for loss in rank])}
    leaked = 0.0
    for batch in (batch for rank in world for batch in rank):
        leaf = batch.student if entry.differentiates == "logits" else batch.hidden
        grad = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
        grad = grad.double() * share
        for place, (row, start) in enumerate(zip(batch.rows, batch.starts, strict=True)):
            length = int(batch.mask[place].sum())
            out[f"row_{row}"] = grad[place, start : start + length].numpy()
        outside = grad[batch.mask == 0].abs()
        leaked = max(leaked, float(outside.max())) if outside.numel() else leaked
    out["padding"] = np.array(leaked)
    if entry.differentiates == "hidden":
        head = world[0][0].head
        grad = torch.zeros_like(head) if head.grad is None else head.grad
        out["head"] = grad.double().numpy() * share
    return out


def backward(loss: Tensor) -> float:
    """Run the backward pass of a loss; one without a graph has no gradient to give."""
    if loss.requires_grad:
        loss.backward()
    return float(loss.detach())


def _asked(entry: Entry, name: str, scenario: dict[str, Any]) -> bool:
    return entry.temperature or scenario["temperature"] == 1


def run_entry(entry: Entry, folder: Path, scenarios: dict[str, Any], seeds: list[int]) -> dict[str, np.ndarray]:
    """Every scenario under every divergence; an exception is a result too."""
    found: dict[str, np.ndarray] = {}
    for seed in seeds:
        for name, scenario in scenarios.items():
            if not _asked(entry, name, scenario):
                continue
            with np.load(folder / f"{scenario['variant']}-{seed}.npz") as stored:
                arrays = dict(stored)
            for divergence, parameter in entry.divergences.items():
                key = f"{divergence}|{name}|{seed}"
                world = make_world(arrays, scenario)
                try:
                    losses = entry.run(world, parameter, scenario["temperature"])
                except Exception as error:  # a refusal is what some checks look for
                    text = f"{type(error).__name__}: {error}".splitlines()[0]
                    found[f"{key}|error"] = np.array(text[:300])
                    continue
                found |= {f"{key}|{part}": value for part, value in collect(entry, world, losses).items()}
    return found


def main(toolkit: str, versions: dict[str, str], entries: list[Entry], ran_under: str = "") -> None:
    """`python ADAPTER CASES OUTPUT`: read cases, run all entries, write one .npz each and entries.json."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    cases, output = Path(sys.argv[1]), Path(sys.argv[2])
    output.mkdir(parents=True, exist_ok=True)
    scenarios = json.loads((cases / "scenarios.json").read_text())
    seeds = sorted({int(path.stem.rsplit("-", 1)[1]) for path in cases.glob("*.npz")})
    said = []
    for number, entry in enumerate(entries):
        np.savez(output / f"{number}.npz", **run_entry(entry, cases, scenarios, seeds))
        said.append(
            {
                "name": entry.name,
                "function": entry.function,
                "divergences": list(entry.divergences),
                "differentiates": entry.differentiates,
                "temperature": entry.temperature,
                "not_offered": entry.not_offered,
                "notes": entry.notes,
                "excluded": entry.excluded,
                "called_as": entry.called_as,
            }
        )
    about = {"toolkit": toolkit, "versions": versions | {"torch": torch.__version__}, "entries": said}
    (output / "entries.json").write_text(json.dumps(about | {"ran_under": ran_under}, indent=1))
