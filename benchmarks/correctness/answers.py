"""One function's numbers under one divergence and seed, beside the truth that they are compared with."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cases
import numpy as np
import reference
import torch

Array = np.ndarray


def distance(found: Array, expected: Array) -> float:
    """Norm of the difference over the norm of what is expected."""
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def factor(found: Array, expected: Array) -> tuple[float, float]:
    """The multiple of `expected` that is nearest to `found`, and how far the rest is off, relative to it."""
    scale = float(found @ expected / (expected @ expected))
    if scale == 0 or not np.isfinite(scale):
        return scale, float("inf")
    return scale, float(np.linalg.norm(found - scale * expected) / np.linalg.norm(scale * expected))


@dataclass
class Inputs:
    """The cases on disk, read once."""

    folder: Path
    _read: dict[tuple[str, int], dict[str, Array]] = field(default_factory=dict)

    def of(self, scenario: str, seed: int) -> dict[str, Array]:
        variant = cases.scenario(scenario)["variant"]
        if (variant, seed) not in self._read:
            with np.load(self.folder / f"{variant}-{seed}.npz") as stored:
                self._read[variant, seed] = dict(stored)
        return self._read[variant, seed]


@dataclass
class Answers:
    """What an adapter wrote for one entry, divergence and seed."""

    entry: dict[str, Any]
    kind: str
    seed: int
    stored: dict[str, Array]
    inputs: Inputs
    sound: tuple[str, ...] = reference.SOUND
    _truths: dict[str, reference.Truth] = field(default_factory=dict)

    def _get(self, scenario: str, part: str) -> Array:
        key = f"{self.kind}|{scenario}|{self.seed}"
        if f"{key}|error" in self.stored:
            raise RuntimeError(f"{self.entry['name']}, {key}: {self.stored[f'{key}|error']}")
        return self.stored[f"{key}|{part}"]

    def error(self, scenario: str) -> str:
        """The exception that the function raised there, or nothing."""
        return str(self.stored.get(f"{self.kind}|{scenario}|{self.seed}|error", ""))

    def why(self, check: str) -> str:
        """The adapter's reason for leaving a check out, or nothing."""
        return str(self.entry["not_offered"].get(check, ""))

    def losses(self, scenario: str) -> Array:
        return self._get(scenario, "losses")

    def loss(self, scenario: str) -> float:
        """Of a scenario of one micro-batch."""
        return float(self.losses(scenario)[0])

    def of_row(self, scenario: str, row: int) -> Array:
        return self._get(scenario, f"row_{row}")

    def gradient(self, scenario: str) -> Array:
        """All rows in one vector; the head's after them where there is one."""
        parts = [self.of_row(scenario, row).ravel() for row in cases.rows_of(scenario)]
        if self.entry["differentiates"] == "hidden":
            parts.append(self._get(scenario, "head").ravel())
        return np.concatenate(parts)

    def leak(self, scenario: str) -> float:
        """Largest gradient at padding, and at positions of rows that predict nothing that counts."""
        largest = float(self._get(scenario, "padding"))
        for row in cases.rows_of(scenario):
            grad = np.abs(self.of_row(scenario, row))
            outside = np.setdiff1d(np.arange(len(grad)), reference.counted(self._labels(scenario)[row]))
            largest = max(largest, float(grad[outside].max()))
        return largest

    def _labels(self, scenario: str) -> dict[int, Array]:
        arrays = self.inputs.of(scenario, self.seed)
        return {row: arrays[f"labels_{row}"] for row in cases.rows_of(scenario)}

    def logits(self, scenario: str, role: str) -> dict[int, Array]:
        """Row -> float64 logits of what the function was given: rounded logits, or rounded states and head."""
        arrays = self.inputs.of(scenario, self.seed)
        if self.entry["differentiates"] == "logits":
            return {row: arrays[f"{role}_logits_{row}"] for row in cases.rows_of(scenario)}
        head = arrays[f"{role}_head"]
        return {row: arrays[f"{role}_hidden_{row}"] @ head.T for row in cases.rows_of(scenario)}

    def truth(self, scenario: str) -> reference.Truth:
        """Mean over the counted tokens of all rows of the scenario."""
        if scenario not in self._truths:
            teacher, student = (self.logits(scenario, role) for role in ("teacher", "student"))
            temperature = cases.scenario(scenario)["temperature"]
            self._truths[scenario] = reference.truth(self.kind, teacher, student, self._labels(scenario), temperature)
        return self._truths[scenario]

    def expected(self, scenario: str) -> Array:
        """The truth's gradient in the form of `gradient`."""
        return self._in_form(scenario, self.truth(scenario))

    def _in_form(self, scenario: str, truth: reference.Truth) -> Array:
        if self.entry["differentiates"] == "logits":
            return truth.flat()
        arrays = self.inputs.of(scenario, self.seed)
        hidden = {row: arrays[f"student_hidden_{row}"] for row in truth.rows}
        return truth.through_head(hidden, arrays["student_head"])

    def readings(self, scenario: str) -> dict[str, Array]:
        """What each way to read missing columns expects, over the student's own columns."""
        teacher, student = (self.logits(scenario, role) for role in ("teacher", "student"))
        width = next(iter(student.values())).shape[-1]
        widened: dict[str, tuple[dict[int, Array], dict[int, Array]]] = {}
        for row in student:
            for name, pair in reference.vocabulary_readings(self.kind, teacher[row], student[row]).items():
                sides = widened.setdefault(name, ({}, {}))
                sides[0][row], sides[1][row] = pair
        out = {}
        for name, (p, q) in widened.items():
            truth = reference.truth(self.kind, p, q, self._labels(scenario))
            rows = {row: _to_width(grad, width) for row, grad in truth.rows.items()}
            out[name] = self._in_form(scenario, reference.Truth(truth.value, rows))
        return out

    def invented_mass(self, scenario: str, reading: str) -> float:
        """Mean probability that the side without the columns gets on them, over counted tokens."""
        teacher, student = (self.logits(scenario, role) for role in ("teacher", "student"))
        labels, masses = self._labels(scenario), []
        for row in student:
            where = reference.counted(labels[row])
            pair = reference.vocabulary_readings(self.kind, teacher[row][where], student[row][where])[reading]
            widths = teacher[row].shape[-1], student[row].shape[-1]
            invented = pair[0] if widths[0] < widths[1] else pair[1]
            masses.append(np.exp(reference.log_softmax(invented))[:, min(widths) :].sum(-1))
        return float(np.concatenate(masses).mean())

    def yardstick(self, scenario: str) -> float:
        """The gradient error of plain fp32 torch on the same inputs: the least that can be asked."""
        arrays = self.inputs.of(scenario, self.seed)
        dtype = torch.bfloat16 if cases.scenario(scenario)["variant"] == "bf16" else torch.float32
        states = self.entry["differentiates"] == "hidden"
        name = "hidden" if states else "logits"
        leaves = {
            row: torch.tensor(arrays[f"student_{name}_{row}"], dtype=dtype, requires_grad=True)
            for row in cases.rows_of(scenario)
        }
        head = torch.tensor(arrays["student_head"], dtype=dtype, requires_grad=True)
        teacher_head = torch.tensor(arrays["teacher_head"], dtype=dtype)
        labels, total = self._labels(scenario), 0
        loss = torch.zeros(())
        for row, leaf in leaves.items():
            where = torch.tensor(reference.counted(labels[row]))
            said = torch.tensor(arrays[f"teacher_{name}_{row}"], dtype=dtype)[where]
            student = leaf[where]
            if states:
                student, said = student @ head.T, said @ teacher_head.T
            loss = loss + plain_torch(self.kind, said.float(), student.float())
            total += len(where)
        (loss / total).backward()
        parts = [leaf.grad.double().numpy().ravel() for leaf in leaves.values() if leaf.grad is not None]
        if states and head.grad is not None:
            parts.append(head.grad.double().numpy().ravel())
        return distance(np.concatenate(parts), self.expected(scenario))


def plain_torch(kind: str, teacher: torch.Tensor, student: torch.Tensor) -> torch.Tensor:
    """The sum over tokens as a textbook writes it, in the precision of its inputs."""
    p, q = torch.log_softmax(teacher, -1), torch.log_softmax(student, -1)
    forward, reverse = (p.exp() * (p - q)).sum(), (q.exp() * (q - p)).sum()
    if kind == "jsd":
        m = torch.logaddexp(p, q) - float(np.log(2))
        return 0.5 * (p.exp() * (p - m)).sum() + 0.5 * (q.exp() * (q - m)).sum()
    return {"forward_kl": forward, "reverse_kl": reverse, "symmetric_kl": 0.5 * (forward + reverse)}[kind]


def _to_width(grad: Array, width: int) -> Array:
    """Gradients of columns that the student does not have are nobody's; of those cut away, 0."""
    return np.pad(grad, ((0, 0), (0, max(0, width - grad.shape[-1]))))[:, :width]
