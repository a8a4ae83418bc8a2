"""Models and cells of the pretraining lab as they would be: losses, answers and scores of tokens are the test's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from potstill.evaluation.choices import ChoiceScores
from potstill.lab.pretraining import Model
from potstill.lab.pretraining_reading import Cell, Made
from potstill.run_dir import npz_bytes, write_atomic

PARAMETERS = {"S": 100, "M": 200, "L": 400}
TWIN = 4.0  # nats per token of every twin in-domain; out of domain one more
NOISE = (0.0, 0.01, -0.01)  # of three seeds
PAIRS = "minimal pairs"


def answers(hits: int, items: int = 100) -> dict[str, Any]:
    """So many right answers of two choices each, by one nat."""
    right = np.arange(items) < hits
    likelihood = np.where(right[:, None], [[-1.0, -2.0]], [[-2.0, -1.0]])
    ones, none = np.ones((items, 2), dtype=np.int64), np.zeros(items, dtype=np.int64)
    scores = ChoiceScores(likelihood, ones > 1, ones, ones, ones, none, none, none.astype(str), "test")
    return scores.as_dict()


def made(
    model: Model, held: float, outside: float | None = None, choices: Mapping[str, Any] | None = None,
    folder: Path = Path(), tokens: Mapping[str, Any] | None = None,
) -> Made:  # fmt: skip
    sets = {"held_out": {"nats_per_token": held, "tokens": 1000}}
    if outside is not None:
        sets["technical"] = {"nats_per_token": outside, "tokens": 1000}
    count = PARAMETERS.get(model.size, 1)
    facts = {"parameters": count, "body_parameters": count, "tokens": model.tokens, "training_seconds": 1.0}
    if tokens is not None:
        folder = folder / f"{model.name}-{model.weight:g}"
        folder.mkdir(parents=True)
        write_atomic(folder / "tokens.npz", npz_bytes({key: np.asarray(value) for key, value in tokens.items()}))
    taught = None if model.teacher is None else "teacher-{}-{}".format(*model.teacher)
    own = f"teacher-{model.size}-{model.tokens}" if model.role == "teacher" else model.name
    return Made(model, own, taught, facts, {"perplexity": sets, "choices": choices or {}}, folder)


def teacher(size: str, tokens: int, gap: float) -> Made:
    """`gap` above 0: weaker than the twin."""
    return made(Model("teacher", size, tokens, 42), TWIN + gap, TWIN + 1 + gap)


def cell(
    by: Made, weight: float, gain: float | Sequence[float], outside: float | Sequence[float] | None = 0.0,
    hits: tuple[int, int] | None = None, seeds: Sequence[int] = (1, 2, 3), size: str = "S",
) -> Cell:  # fmt: skip
    """Students better than their twins by `gain` in-domain and `outside` (None: no such set), in nats.

    One number has a scatter of 0.01 over seeds. `hits`: right answers of student and twin, of 100.
    """
    pairs = []
    inside = spread(gain, seeds)
    beyond = None if outside is None else spread(outside, seeds)
    for i, seed in enumerate(seeds):
        far = None if beyond is None else TWIN + 1
        twin = made(Model("twin", size, 100, seed), TWIN, far, asked(hits, 1))
        moved = None if beyond is None else TWIN + 1 - beyond[i]
        model = Model("student", size, 100, seed, (by.model.size, by.model.tokens), weight)
        pairs.append((made(model, TWIN - inside[i], moved, asked(hits, 0)), twin))
    return Cell(size, 100, by, weight, "", tuple(pairs))


def asked(hits: tuple[int, int] | None, which: int) -> dict[str, Any]:
    return {} if hits is None else {PAIRS: answers(hits[which])}


def spread(gain: float | Sequence[float], seeds: Sequence[int]) -> list[float]:
    return [gain + NOISE[seed - 1] for seed in seeds] if isinstance(gain, int | float) else list(gain)
