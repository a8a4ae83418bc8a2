"""What a student costs, with and without a teacher, and what sizes cost per token.

Six operations per token and parameter to train (forward, and twice that backward), two
for the teacher's forward pass (Kaplan et al. 2020, section 2.1; Busbridge et al. 2025).
Parameters that count are those of the body and the head; looking up an embedding
costs nothing. Attention between positions is not counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from potstill.lab.amounts import amount_of, short


@dataclass(frozen=True, slots=True)
class Size:
    """A model's size: what laws use (body) and what a token costs (body and head)."""

    name: str
    body: float  # parameters without embeddings and head
    counted: float  # parameters that a token is multiplied with: body and head
    words: str


@dataclass(frozen=True, slots=True)
class Ledger:
    """FLOPs of one student with one teacher, and how far they would bring it without."""

    student_training: float
    teacher_forward: float
    teacher_training: float | None  # None: the teacher is there already
    plain_tokens: float  # for the same FLOPs without a teacher, as far as there is text
    capped: bool  # whether text, not FLOPs, ended there

    @property
    def total(self) -> float:
        return self.student_training + self.teacher_forward + (self.teacher_training or 0.0)


def ledger_of(
    student: Size, tokens: float, teacher: Size, teacher_tokens: float | None, unique_tokens: float | None
) -> Ledger:
    """6 N D for the student, 2 N_T D for its teacher's forward, 6 N_T D_T to train the teacher.

    `teacher_tokens` None leaves the teacher's training out. `unique_tokens` caps the plain student's text; it
    is never given less than `tokens`.
    """
    forward = 2 * teacher.counted * tokens
    training = None if teacher_tokens is None else 6 * teacher.counted * teacher_tokens
    wished = tokens + (forward + (training or 0.0)) / (6 * student.counted)
    most = wished if unique_tokens is None else max(tokens, unique_tokens)
    return Ledger(6 * student.counted * tokens, forward, training, min(wished, most), most < wished)


class Sizes:
    """The lab's sizes by name, and what lies between them."""

    def __init__(self, results: Mapping[str, Any]):
        costs: dict[str, list[float]] = {}
        for model in results.get("models") or []:
            training = (model.get("flops") or {}).get("training")
            if training:
                costs.setdefault(model["size"], []).append(training / (6 * model["tokens"]))
        self.total: dict[str, float] = {}
        self.named: dict[str, Size] = {}
        for name, size in (results.get("sizes") or {}).items():
            body, total = float(size["body_parameters"]), float(size["parameters"])
            counted = float(np.median(costs[name])) if name in costs else total
            head = (
                f"{short(counted)} with its head" if name in costs else f"{short(counted)} with a head like embeddings"
            )
            self.total[name] = total
            self.named[name] = Size(name, body, counted, f"{short(body)} in the body, {head}")

    def of(self, text: str, what: str) -> Size:
        """A size of the lab by name, or a number of parameters (all of them, as sizes are named).

        The body's share of a number is read off the lab's sizes, on logarithmic axes; without any, the number
        is taken for the body. Raises ValueError.
        """
        if text in self.named:
            return self.named[text]
        number = amount_of(text, what)
        if not self.named:
            words = "no sizes known: taken for the body's parameters, the head's cost is not counted"
            return Size(short(number), number, number, words)
        known = sorted((self.total[name], size.body, size.counted) for name, size in self.named.items())
        total, body, counted = np.log(np.array(known)).T
        at = np.log(number)
        shares = [float(np.exp(np.interp(at, total, column - total))) for column in (body, counted)]
        words = (
            f"{short(number * shares[0])} in the body, {short(number * shares[1])} with its head, by the lab's sizes"
        )
        return Size(short(number), number * shares[0], number * shares[1], words)
