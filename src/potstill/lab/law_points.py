"""What a law is fitted to, read from the results of `potstill lab pretraining`.

Plain models (teachers and twins) give losses over size and tokens. Students and their
twins give differences, paired by seed: the same seed is the same initial weights and the
same order of data. Only the main grid counts (variant ""); ablations answer other questions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

HELD_OUT = "held_out"


@dataclass(frozen=True, slots=True)
class Measure:
    """One number that a model has: a loss on a set, or an accuracy or margin of a benchmark of choices."""

    name: str
    domain: str  # "in", "out", "downstream"
    unit: str
    better: str  # "lower", "higher"

    @property
    def set_of_gap(self) -> str:
        """On which set teacher and twin are compared: the measure's own, or held-out text."""
        return HELD_OUT if self.domain == "downstream" else self.name

    def of(self, model: Mapping[str, Any]) -> float | None:
        """The model's number, None where it was not measured."""
        if self.domain != "downstream":
            value = (model.get("perplexity") or {}).get(self.name, {}).get("nats_per_token")
        else:
            benchmark, _, what = self.name.rpartition(" ")
            value = (model.get("choices") or {}).get(benchmark, {}).get(what)
        return None if value is None else float(value)


@dataclass(frozen=True, slots=True)
class Grid:
    """Losses of plain models: one entry a cell (size, tokens), with every model in it."""

    body: np.ndarray  # [C] body parameters
    tokens: np.ndarray  # [C]
    losses: tuple[np.ndarray, ...]  # C of [models in the cell], nats per token

    @property
    def means(self) -> np.ndarray:
        return np.array([np.exp(np.log(cell).mean()) for cell in self.losses])


@dataclass(frozen=True, slots=True)
class Pairs:
    """Differences of students to their twins: one entry a cell (size, tokens, teacher, weight)."""

    sizes: tuple[str, ...]  # C
    body: np.ndarray  # [C]
    tokens: np.ndarray  # [C]
    teachers: tuple[str, ...]  # C ids
    weights: np.ndarray  # [C]
    teacher_loss: np.ndarray  # [C] on the set of the gap, nats per token
    twin_loss: np.ndarray  # [C, S] on that set; NaN where a seed is missing
    differences: np.ndarray  # [C, S] in the measure's unit
    seeds: tuple[int, ...]  # S

    @property
    def gaps(self) -> np.ndarray:
        """x [C]: teacher's loss minus the twin's, mean over seeds."""
        return np.asarray(self.teacher_loss - np.nanmean(self.twin_loss, axis=1))

    @property
    def means(self) -> np.ndarray:
        """d [C], mean over seeds."""
        return np.asarray(np.nanmean(self.differences, axis=1))


def models_of(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The models of the main grid. Raises ValueError where the file is something else."""
    models = results.get("models")
    if not isinstance(models, list):
        raise ValueError(
            "expected the results of `potstill lab pretraining`, with a list under 'models'; "
            f"found the keys {', '.join(sorted(map(str, results))[:8]) or '(none)'}"
        )
    return [model for model in models if not model.get("variant")]


def measures_of(models: Iterable[Mapping[str, Any]], sets: Mapping[str, Any]) -> list[Measure]:
    """Everything that was measured: held-out text, other sets, benchmarks. `sets`: results.corpus.sets."""
    perplexities = sorted({name for model in models for name in model.get("perplexity") or {}})
    benchmarks = sorted({name for model in models for name in model.get("choices") or {}})
    found = []
    for name in sorted(perplexities, key=lambda name: name != HELD_OUT):
        domain = sets.get(name, {}).get("domain", "in" if name == HELD_OUT else "out")
        found.append(Measure(name, domain, "nats per token", "lower"))
    for name in benchmarks:
        found.append(Measure(f"{name} accuracy", "downstream", "share", "higher"))
        found.append(Measure(f"{name} margin", "downstream", "nats", "higher"))
    return found


def grid_of(models: Iterable[Mapping[str, Any]], measure: Measure) -> Grid:
    """Losses of teachers and twins by (body parameters, tokens)."""
    cells: dict[tuple[float, float], list[float]] = {}
    for model in models:
        value = measure.of(model)
        if model["role"] in ("teacher", "twin") and value is not None:
            cells.setdefault((float(model["body_parameters"]), float(model["tokens"])), []).append(value)
    keys = sorted(cells)
    return Grid(
        np.array([body for body, _ in keys]),
        np.array([tokens for _, tokens in keys]),
        tuple(np.array(cells[key]) for key in keys),
    )


def pairs_of(models: list[dict[str, Any]], measure: Measure) -> Pairs:
    """Student minus twin for each cell of the main grid that has a twin and a measured teacher."""
    gap = Measure(measure.set_of_gap, "in", "nats per token", "lower")
    by_id = {model["id"]: model for model in models}
    twins = {(m["size"], m["tokens"], m["seed"]): m for m in models if m["role"] == "twin"}
    cells: dict[tuple[str, int, str, float], dict[int, tuple[float, float]]] = {}
    for model in models:
        if model["role"] != "student" or not model["weight"] or model["teacher"]["id"] not in by_id:
            continue
        twin = twins.get((model["size"], model["tokens"], model["seed"]))
        if twin is None or gap.of(by_id[model["teacher"]["id"]]) is None:
            continue
        mine, its, base = measure.of(model), measure.of(twin), gap.of(twin)
        if mine is not None and its is not None and base is not None:
            key = (model["size"], model["tokens"], model["teacher"]["id"], float(model["weight"]))
            cells.setdefault(key, {})[model["seed"]] = (base, mine - its)
    seeds = tuple(sorted({seed for found in cells.values() for seed in found}))
    return _pairs(cells, seeds, {model["size"]: float(model["body_parameters"]) for model in models}, by_id, gap)


def _pairs(
    cells: Mapping[tuple[str, int, str, float], Mapping[int, tuple[float, float]]],
    seeds: tuple[int, ...],
    bodies: Mapping[str, float],
    by_id: Mapping[str, Mapping[str, Any]],
    gap: Measure,
) -> Pairs:
    keys = sorted(cells)
    nothing = (float("nan"), float("nan"))
    table = np.array([[cells[key].get(seed, nothing) for seed in seeds] for key in keys], dtype=float)
    table = table.reshape(len(keys), len(seeds), 2)
    return Pairs(
        sizes=tuple(key[0] for key in keys),
        body=np.array([bodies[key[0]] for key in keys]),
        tokens=np.array([float(key[1]) for key in keys]),
        teachers=tuple(key[2] for key in keys),
        weights=np.array([key[3] for key in keys]),
        teacher_loss=np.array([gap.of(by_id[key[2]]) for key in keys], dtype=float),
        twin_loss=table[:, :, 0],
        differences=table[:, :, 1],
        seeds=seeds,
    )
