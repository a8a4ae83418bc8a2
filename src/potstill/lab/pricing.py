"""What an experiment will cost, before it does: FLOPs, hours, bytes, by who spends them.

FLOPs are 6 N a token for training and 2 N for a teacher's forward pass, N the parameters that
multiply at every token (body and head). Hours come from a few real steps of each size on this
machine, cut short where one would take long; on a machine without the lab's device they stay unknown.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch

from potstill.config.pretraining import PretrainingLab, PretrainingRun
from potstill.config.training import Training
from potstill.data.collate import Layout, Row, collate
from potstill.lab.pretraining import Grid, Model, in_words
from potstill.lab.pretraining_results import sizes
from potstill.losses.objective import Objective
from potstill.models.scored import ScoredModel
from potstill.models.shapes import make_model
from potstill.training.loop import precision
from potstill.training.optim import clip, make_optimiser
from potstill.training.parallel import World, start_world

PROBE_FLOPS = {"cpu": 3e10, "cuda": 3e13}  # of one probed step at most
PROBE_STEPS = 4
BYTES = 4  # of a kept hidden value


@dataclass(frozen=True)
class Price:
    """What one kind of work costs, all models together."""

    what: str
    models: int
    tokens: int
    flops: float
    seconds: float  # of one worker; NaN where the device is not here


@dataclass(frozen=True)
class Bill:
    """All prices of a lab."""

    prices: tuple[Price, ...]
    kept_bytes: int  # of teachers' hidden states
    weight_bytes: int  # of all models
    rates: dict[str, float]  # size -> tokens a second in training, NaN where the device is not here

    def hours(self, workers: int) -> float:
        """Of all work, `workers` steps at a time. Corpus and measuring are not in it."""
        return sum(price.seconds for price in self.prices) / workers / 3600


def price(lab: PretrainingLab, vocabulary: int, threads: int) -> Bill:
    """Prices of all models that are known beforehand, and of completing sizes at one weight a teacher."""
    grid = Grid(lab)
    models = grid.main()
    for size in lab.completing:
        models += grid.students(size, {(t.size, t.tokens): lab.weights[:1] for t in grid.teachers()})
    models += other_teachers(lab, models)
    known = sizes(lab, vocabulary)
    rates = {size: training_rate(lab, size, vocabulary, threads) for size in sorted({m.size for m in models})}

    def training(what: str, some: list[Model]) -> Price:
        flops = sum(6.0 * known[m.size]["computing_parameters"] * m.tokens for m in some)
        return Price(what, len(some), sum(m.tokens for m in some), flops, sum(m.tokens / rates[m.size] for m in some))

    def forward() -> Price:
        asked = [(m.teacher[0], m.tokens) for m in models if m.teacher is not None and not is_uniform(lab, m)]
        if lab.targets == "kept":
            asked = [(t.size, lab.student_tokens) for t in by_role["teacher"]]
        flops = sum(2.0 * known[size]["computing_parameters"] * tokens for size, tokens in asked)
        seconds = sum(tokens / (3 * rates[size]) for size, tokens in asked)
        return Price("teachers' forward passes", len(asked), sum(t for _, t in asked), flops, seconds)

    by_role = {role: [m for m in models if m.role == role] for role in ("teacher", "twin", "student")}
    prices = (
        training("training teachers", by_role["teacher"]),
        forward(),
        training("training twins", by_role["twin"]),
        training("training students", by_role["student"]),
    )
    kept = 0
    if lab.targets == "kept":
        kept = sum(BYTES * lab.sizes[t.size].hidden_size * lab.student_tokens for t in by_role["teacher"])
    weights = sum(4 * known[m.size]["parameters"] for m in models)
    return Bill(prices, kept, weights, rates)


def other_teachers(lab: PretrainingLab, models: list[Model]) -> list[Model]:
    """Those of variants whose teacher learned from other text; students of several seeds and weights share one."""
    found = [
        Model("teacher", *m.teacher, lab.teachers.seed, variant=m.variant)
        for m in models
        if m.teacher is not None and m.variant and lab.variants[m.variant].teacher_corpus is not None
    ]
    return list(dict.fromkeys(found))


def is_uniform(lab: PretrainingLab, model: Model) -> bool:
    return bool(model.variant) and lab.variants[model.variant].uniform_teacher


def training_rate(lab: PretrainingLab, size: str, vocabulary: int, threads: int) -> float:
    """Tokens a second of plain training of this size, from a few steps on random tokens; NaN without the device."""
    if lab.device == "cuda" and not torch.cuda.is_available():
        return math.nan
    world = start_world(lab.device)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return _probe(lab, size, vocabulary, world)
    finally:
        torch.set_num_threads(before)


def _probe(lab: PretrainingLab, size: str, vocabulary: int, world: World) -> float:
    shape = lab.sizes[size]
    config = Grid(lab).run(Model("twin", size, lab.student_tokens, 0))
    per_block = 6.0 * sizes(lab, vocabulary)[size]["computing_parameters"] * lab.block_tokens
    blocks = max(1, min(lab.batch_blocks, int(PROBE_FLOPS[world.device.type] / per_block)))
    model = ScoredModel(make_model(shape, vocabulary, lab.block_tokens, 0)).to(world.device).train()
    optimiser, objective = make_optimiser(model, config.optimiser), Objective(config.objective)
    ids = torch.randint(0, vocabulary, (blocks, lab.block_tokens + 1), generator=torch.Generator().manual_seed(0))
    rows = [Row("", i, "corpus", tuple(row[:1]), (False,), tuple(row[1:])) for i, row in enumerate(ids.tolist())]
    seconds = []
    for _ in range(PROBE_STEPS):
        start = time.perf_counter()
        _step(model, optimiser, objective, rows, config, world)
        seconds.append(time.perf_counter() - start)
    return blocks * lab.block_tokens / sorted(seconds[1:])[len(seconds[1:]) // 2]


def _step(
    model: ScoredModel, optimiser: torch.optim.Optimizer, objective: Objective, rows: list[Row],
    config: PretrainingRun, world: World,
) -> None:  # fmt: skip
    batch = objective.weigh(collate(rows, Layout(0))).to(world.device)
    how = Training(steps=1, batch_rows=len(rows), optimiser=config.optimiser, precision=config.precision)
    with precision(how, world):
        (model(batch, objective, objective.weights()).total / batch.num_counted).backward()
    clip(model, config.optimiser.clip_norm)
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    if world.device.type == "cuda":
        torch.cuda.synchronize()


def bill_lines(bill: Bill, workers: int) -> list[str]:
    """For people."""
    lines = [f"{'':<26}{'models':>7}{'tokens':>9}{'PFLOP':>10}{'hours':>8}"]
    for one in bill.prices:
        amounts = f"{one.models:>7}{in_words(one.tokens):>9}{one.flops / 1e15:>10.3g}"
        lines.append(f"{one.what:<26}{amounts}{_hours(one.seconds / workers / 3600)}")
    together = f"{'':>7}{'':>9}{sum(p.flops for p in bill.prices) / 1e15:>10.3g}"
    lines.append(f"{'together':<26}{together}{_hours(bill.hours(workers))}")
    lines.append(f"kept targets {bill.kept_bytes / 1e9:.2f} GB, weights {bill.weight_bytes / 1e9:.2f} GB")
    if any(math.isnan(rate) for rate in bill.rates.values()):
        lines.append("hours are not known: the lab's device is cuda and no GPU is visible here")
    else:
        lines.append("a second, one worker: " + ", ".join(f"{s} {r:,.0f} tokens" for s, r in bill.rates.items()))
    lines.append("reading the corpus and measuring are not in it; completing sizes are priced at one weight a teacher")
    return lines


def _hours(hours: float) -> str:
    return f"{'?' if math.isnan(hours) else f'{hours:.2f}':>8}"
