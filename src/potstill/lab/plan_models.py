"""What a plan knows: the laws, and what was measured of teachers, twins and students.

Measured numbers come before laws: a teacher of the lab has its measured loss, and a
student whose size and tokens have a twin in the lab has that twin's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from potstill.lab.amounts import amount_of
from potstill.lab.law_points import HELD_OUT, Measure, models_of
from potstill.lab.ledger import Size, Sizes
from potstill.lab.predictions import Doubtful, Law, certain, draws_in, supervised_loss

DOMAINS = {"held_out": "in", "out-of-domain": "out", "downstream": "downstream"}
NOTHING: Mapping[str, Any] = {"status": "none", "why": "the laws do not have it"}


@dataclass(frozen=True, slots=True)
class Teacher:
    """One teacher at hand. `model` is its entry in the results, `loss` what somebody said of held-out text."""

    name: str
    size: Size
    tokens: float
    loss: float | None = None
    model: Mapping[str, Any] | None = None


class Known:
    """Laws and measured models of one lab."""

    def __init__(self, results: Mapping[str, Any], laws: Mapping[str, Any]):
        if not isinstance(laws.get("measures"), dict) or not laws["measures"]:
            raise ValueError(
                'the results hold no measured model of the main grid (models with variant ""), and no laws; '
                "run `potstill lab pretraining` first"
            )
        self.entries: dict[str, Any] = laws["measures"]
        self.models = models_of(results) if "models" in results else []

    def measures_of(self, objective: str) -> tuple[list[str], str]:
        """The measures that stand for an objective, and what there is to say about the others."""
        of_domain = [name for name, entry in self.entries.items() if entry["domain"] == DOMAINS[objective]]
        wanted = [name for name in of_domain if self._stands_for(name, objective)]
        fitted = [name for name in wanted if self.law(name, "difference").get("status") == "fitted"]
        missing = [f"{name}: {self.law(name, 'difference')['why']}" for name in wanted if name not in fitted]
        if not wanted:
            return [], "it was not measured"
        return fitted, "; ".join(missing)

    @staticmethod
    def _stands_for(name: str, objective: str) -> bool:
        if objective == "held_out":
            return name == HELD_OUT
        return objective != "downstream" or name.endswith(" accuracy")

    def law(self, measure: str, kind: str) -> Law:
        found: Law = self.entries.get(measure, {}).get(kind, NOTHING)
        return found

    def sign(self, measure: str) -> float:
        return 1.0 if self.entries[measure]["better"] == "lower" else -1.0

    def gap(self, measure: str, student: Size, tokens: float, teacher: Teacher) -> Doubtful:
        """x: the teacher's loss minus the twin's, nats per token. Raises ValueError where no law says one of them."""
        on, count = self.entries[measure]["set_of_gap"], draws_in(self.law(measure, "difference"))
        twin = self.measured_twin(on, student, tokens)
        known = [None if twin is None else certain(twin, count), self.teacher_loss(on, teacher, count)]
        if None in known and self.law(on, "supervised").get("status") != "fitted":
            whose = "the student without a teacher" if known[0] is None else f"the teacher {teacher.name}"
            why = self.law(on, "supervised")["why"]
            raise ValueError(f"nobody measured the loss of {whose} on {on}, and there is no law of it: {why}")
        law, rng = self.law(on, "supervised"), np.random.default_rng(11)
        base = known[0] or supervised_loss(law, student.body, tokens, rng)
        return (known[1] or supervised_loss(law, teacher.size.body, teacher.tokens, rng)) - base

    def teacher_loss(self, on: str, teacher: Teacher, count: int) -> Doubtful | None:
        """Measured, or said; None where a law has to say it."""
        if teacher.loss is not None and on == HELD_OUT:
            return certain(teacher.loss, count)
        value = None if teacher.model is None else loss_on(on).of(teacher.model)
        return None if value is None else certain(value, count)

    def measured_twin(self, on: str, student: Size, tokens: float) -> float | None:
        """Mean over seeds of plain models of this size and these tokens."""
        found = [loss_on(on).of(m) for m in self.models if m["role"] == "twin" and same(m, student, tokens)]
        values = [value for value in found if value is not None]
        return float(np.mean(values)) if values else None

    def measured(self, measures: Sequence[str], student: Size, tokens: float, teacher: Teacher) -> list[dict[str, Any]]:
        """Cells of the laws that were fitted to exactly this student and teacher."""
        return [
            {"measure": name, "weight": cell["weight"], "difference": cell["measured"]}
            for name in measures
            for cell in self.law(name, "difference")["cells"]
            if cell["teacher"] == teacher.name
            and close(cell["body_parameters"], student.body)
            and close(cell["tokens"], tokens)
        ]


def loss_on(name: str) -> Measure:
    return Measure(name, "in", "nats per token", "lower")


def close(first: float, second: float) -> bool:
    """Within one per cent: 1M and 1,003,520 tokens are the same budget."""
    return abs(first - second) <= 0.01 * second


def same(model: Mapping[str, Any], student: Size, tokens: float) -> bool:
    return close(model["body_parameters"], student.body) and close(model["tokens"], tokens)


def teachers_of(texts: Sequence[str], known: Known, sizes: Sizes) -> list[Teacher]:
    """The teachers that were named, or all of the results. Raises ValueError where there are none."""
    there = {model["id"]: model for model in known.models if model["role"] == "teacher"}
    found = [teacher_of(text, there, sizes) for text in texts or there]
    if not found:
        raise ValueError("no teachers: the results have none; give --teacher NAME=PARAMS,TOKENS[,LOSS]")
    names = [teacher.name for teacher in found]
    if len(set(names)) < len(names):
        raise ValueError(f"--teacher names one twice: {', '.join(names)}")
    return found


def teacher_of(text: str, there: Mapping[str, Mapping[str, Any]], sizes: Sizes) -> Teacher:
    """NAME=PARAMS,TOKENS[,LOSS], or the id of a teacher in the results."""
    name, sign, rest = text.partition("=")
    if not sign:
        if name not in there:
            raise ValueError(
                f"--teacher takes NAME=PARAMS,TOKENS[,LOSS] or a teacher of the results "
                f"({', '.join(there) or 'there are none'}), found {text!r}"
            )
        model = there[name]
        size = sizes.named.get(model["size"]) or Size(model["size"], model["body_parameters"], model["parameters"], "")
        return Teacher(name, size, float(model["tokens"]), None, model)
    parts = [part.strip() for part in rest.split(",")]
    if len(parts) not in (2, 3) or not name.strip():
        raise ValueError(f"--teacher takes NAME=PARAMS,TOKENS[,LOSS], such as big=2M,3M,3.4, found {text!r}")
    loss = amount_of(parts[2], f"--teacher {name}, loss") if len(parts) == 3 else None
    size, tokens = sizes.of(parts[0], f"--teacher {name}"), amount_of(parts[1], f"--teacher {name}, tokens")
    return Teacher(name.strip(), size, tokens, loss)
