"""Results of a pretraining lab as they would be if nature followed known laws: every coefficient is the test's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

SIZES = {"0.2M": (200_000, 150_000), "0.9M": (940_000, 790_000), "2M": (2_100_000, 1_900_000)}
HEAD = 100_000  # what the lab's FLOPs count beside the body
LAW = {"E": 1.5, "A": 120.0, "a": 0.40, "B": 500.0, "b": 0.42}
DIFFERENCE = {"c10": -0.15, "c11": 0.10, "c20": 0.08, "c21": 0.25}


def supervised(body: float, tokens: float, law: Mapping[str, float] = LAW) -> float:
    return law["E"] + law["A"] / body ** law["a"] + law["B"] / tokens ** law["b"]


def difference(gap: float, weight: float, coefficients: Mapping[str, float] = DIFFERENCE) -> float:
    one = coefficients
    return weight * (one["c10"] + one["c11"] * gap) + weight**2 * (one["c20"] + one["c21"] * gap)


def simulated(
    seed: int = 0,
    students: Sequence[tuple[str, int]] = (("0.9M", 1_000_000),),
    teacher_tokens: Sequence[int] = (300_000, 1_000_000, 3_000_000),
    weights: Sequence[float] = (0.5, 1.0),
    seeds: Sequence[int] = (1, 2, 3),
    plain_noise: float = 0.003,  # of log L, between seeds and cells
    teacher_noise: float = 0.005,  # nats, of what a teacher does beyond the law
    student_noise: float = 0.004,  # nats, between seeds
    law: Mapping[str, float] = LAW,
    effect: Callable[[float, float], float] = difference,
    choices: bool = True,
    other_set: bool = True,
) -> dict[str, Any]:
    """results.json's dictionary: teachers of every size, twins and students. Two sets, one benchmark."""
    rng = np.random.default_rng(seed)
    models: list[dict[str, Any]] = []

    def add(role: str, size: str, tokens: int, at: int, loss: float, **more: Any) -> dict[str, Any]:
        total, body = SIZES[size]
        teacher = more.get("teacher")
        forward = 0.0 if teacher is None else 2.0 * (SIZES[teacher["size"]][1] + HEAD) * tokens
        score = 0.9 - 0.1 * loss + rng.normal(0, 0.001)
        models.append(
            {
                "id": more.get("id", f"{role}-{size}-{tokens}-{at}"),
                "role": role,
                "size": size,
                "parameters": total,
                "body_parameters": body,
                "tokens": tokens,
                "seed": at,
                "teacher": teacher,
                "weight": more.get("weight", 0.0),
                "variant": more.get("variant", ""),
                "flops": {"training": 6.0 * (body + HEAD) * tokens, "teacher_forward": forward},
                "perplexity": {"held_out": {"nats_per_token": loss, "tokens": 1000}}
                | ({"technical": {"nats_per_token": 1.2 * loss, "tokens": 1000}} if other_set else {}),
                "choices": {"minimal pairs": {"accuracy": score, "margin": 2 * score}} if choices else {},
            }
        )
        return models[-1]

    for size in SIZES:
        for tokens in teacher_tokens:
            loss = supervised(SIZES[size][1], tokens, law) * np.exp(rng.normal(0, plain_noise))
            add("teacher", size, tokens, 0, loss, id=f"teacher-{size}-{tokens / 1e6:g}M")
    teachers = list(models)
    for size, tokens in students:
        own = {t["id"]: {w: rng.normal(0, teacher_noise) for w in weights} for t in teachers}
        base = supervised(SIZES[size][1], tokens, law)
        for at in seeds:
            twin = add("twin", size, tokens, at, base * np.exp(rng.normal(0, plain_noise)))
            plain = twin["perplexity"]["held_out"]["nats_per_token"]
            for teacher in teachers:
                gap = teacher["perplexity"]["held_out"]["nats_per_token"] - base
                known = {"id": teacher["id"], "size": teacher["size"], "tokens": teacher["tokens"]}
                for weight in weights:
                    change = effect(gap, weight) + own[teacher["id"]][weight] + rng.normal(0, student_noise)
                    # A twin's luck is not its student's: half of it stays with the twin.
                    loss = base + 0.5 * (plain - base) + change
                    id_ = f"student-{size}-{tokens}-{teacher['id']}-{weight}-{at}"
                    add("student", size, tokens, at, loss, id=id_, teacher=known, weight=weight)
    return {
        "lab": "pretraining",
        "preset": "simulated",
        "seeds": list(seeds),
        "sizes": {name: {"parameters": total, "body_parameters": body} for name, (total, body) in SIZES.items()},
        "corpus": {
            "train_tokens": 5_000_000,
            "sets": {"held_out": {"domain": "in"}, "technical": {"domain": "out"}},
        },
        "models": models,
        "differences": [],
        "best_weights": [],
        "claims": [],
    }
