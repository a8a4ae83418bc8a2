"""The training loop; `examples/plain_loop.py` is its twin without abstractions.

    rows of this step -> micro-batches -> count what counts, over all processes
    -> for each: teacher's targets, student's sums, divide by that count, backward
    -> clip, learning rate, step -> metrics -> now and then evaluate, save

It knows nothing of who generated what or why: the data carries the intent.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from potstill.batch import TokenBatch
from potstill.config.source import WRITTEN_BY
from potstill.config.training import Training
from potstill.data.collate import Layout, Rows, collate
from potstill.losses.objective import Objective
from potstill.sources.base import Planned, Source
from potstill.teachers import Teacher
from potstill.training.optim import clip, learning_rate, set_learning_rate
from potstill.training.parallel import World, sync_only_last, total


@dataclass
class Trainer:
    """All that an optimiser step needs. What changes from step to step: weights, optimiser, `step`."""

    student: nn.Module  # a ScoredModel, wrapped for its world
    optimiser: torch.optim.Optimizer
    objective: Objective
    source: Source
    rows: Rows
    layout: Layout
    teacher: Teacher | None
    config: Training
    world: World
    step: int = 0

    def train_step(self, stop_here: bool = False) -> dict[str, Any]:
        """One optimiser step; returns its metrics (nats per counted token, and `stop`).

        `stop_here` says that somebody asked this process to stop; `stop` in the result
        says whether anybody was asked, so that all processes leave together.
        """
        parts = self.micro_batches()
        batches = [batch for _, batch in parts]
        fed = self.fed()
        counts = torch.tensor(
            [self.objective.denominator(batches), sum(b.num_counted for b in batches), stop_here,
             sum(b.num_tokens for b in batches), *(value for facts in fed.values() for value in facts)],
            dtype=torch.float64, device=self.world.device,
        )  # fmt: skip
        denominator, counted, stops, tokens, *shares = total(counts, self.world).tolist()
        if denominator == 0:
            raise ValueError(f"step {self.step}: no token of this batch counts; the loss would be 0 / 0")
        weights = self.objective.weights(self.step, self.config.steps)
        sums = {name: torch.zeros((), device=self.world.device) for name in self.objective.names}
        for i, (row_ids, batch) in enumerate(parts):
            sync_only_last(self.student, i == len(parts) - 1)
            for name, value in self.backward(row_ids, batch, weights, denominator).items():
                sums[name] += value
        norm = clip(self.student, self.config.optimiser.clip_norm)
        rate = learning_rate(self.config.optimiser, self.step, self.config.steps)
        set_learning_rate(self.optimiser, rate)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        terms = total(torch.stack(list(sums.values())).double(), self.world) / denominator
        loss = sum(w * v for w, v in zip(weights.values(), terms.tolist(), strict=True))
        metrics = {
            "step": self.step + 1,
            "loss": loss,
            **{f"term/{name}": v for name, v in zip(sums, terms.tolist(), strict=True)},
            **{f"weight/{t.name}": weights[t.name] for t in self.objective.terms if not isinstance(t.weight, float)},
            "grad_norm": norm,
            "learning_rate": rate,
            "counted_tokens": int(counted),
            "epoch": round(self.source.epoch(self.step + 1), 6),
            **named_shares(fed, shares),
        }
        if not (loss == loss and norm == norm) or norm == float("inf"):
            raise FloatingPointError(
                f"step {self.step + 1}: loss {loss}, gradient norm {norm}. The last checkpoint is from before "
                "this; lower training.optimiser.learning_rate or lengthen warmup_steps in a new run."
            )
        self.step += 1
        return metrics | {"stop": stops > 0, "tokens": int(tokens)}

    def backward(
        self, row_ids: Sequence[int], batch: TokenBatch, weights: dict[str, float], denominator: float
    ) -> dict[str, Tensor]:
        """Add one micro-batch's share to the gradients; returns its detached, undivided sums."""
        batch = batch.to(self.world.device)
        with precision(self.config, self.world):
            if self.teacher is not None:
                batch.targets = self.teacher.targets(row_ids, batch)
            scored = self.student(batch, self.objective, weights)
            # The one division, by a number that is the same on every process.
            (scored.total / denominator).backward()
        sums: dict[str, Tensor] = scored.sums
        return sums

    def micro_batches(self) -> list[tuple[list[int], TokenBatch]]:
        """This process's rows of the step, cut into micro-batches; as many on every process."""
        mine = [planned.row for planned in self.my_rows()]
        size = self.config.micro_batch_rows or len(mine)
        cuts = [mine[i : i + size] for i in range(0, len(mine), size)]
        return [(ids, self.objective.weigh(collate([self.rows[i] for i in ids], self.layout))) for ids in cuts]

    def my_rows(self) -> list[Planned]:
        """This process's rows of the step."""
        return self.source.planned(self.step)[self.world.rank :: self.world.size]

    def fed(self) -> dict[str, list[float]]:
        """Stream -> this process's rows, counted tokens, and staleness summed over rows (steps).

        All processes name the same streams in the same order.
        """
        found = {name: [0.0, 0.0, 0.0] for name in dict.fromkeys(p.stream for p in self.source.planned(self.step))}
        for stream, row_id in self.my_rows():
            row = self.rows[row_id]
            facts = (1, row.num_counted, 0 if row.sampled_at is None else self.step - row.sampled_at)
            found[stream] = [before + now for before, now in zip(found[stream], facts, strict=True)]
        return found


def named_shares(fed: Mapping[str, Sequence[float]], sums: Sequence[float]) -> dict[str, float]:
    """What came from where, for the metrics: rows, counted tokens, and mean staleness of the student's own."""
    named: dict[str, float] = {}
    for i, stream in enumerate(fed):
        rows, tokens, stale = sums[3 * i : 3 * i + 3]
        named |= {f"rows/{stream}": int(rows), f"tokens/{stream}": int(tokens)}
        if WRITTEN_BY.get(stream) == "student":
            named[f"staleness/{stream}"] = round(stale / rows, 6)
    return named


def precision(config: Training, world: World) -> AbstractContextManager[Any]:
    """bf16 computes under autocast, whatever wraps the model; the weights stay in fp32."""
    if config.precision == "fp32":
        return nullcontext()
    return torch.autocast(world.device.type, dtype=torch.bfloat16)


class Stopwatch:
    """Seconds by activity, for timing.jsonl and the monitor's share."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, activity: str) -> float:
        """Book the time since the last lap under `activity`."""
        now = time.perf_counter()
        passed, self._last = now - self._last, now
        self.seconds[activity] = self.seconds.get(activity, 0.0) + passed
        return passed
