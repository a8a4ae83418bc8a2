"""The truth, in float64 numpy: values and gradients of mean divergences over the counted tokens."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Array = np.ndarray


@dataclass(frozen=True)
class Truth:
    """The mean over all counted tokens, and its gradient at the student's logits of every position."""

    value: float
    rows: dict[int, Array]  # row -> [T, V]

    def flat(self) -> Array:
        """All rows' gradients in one vector."""
        return np.concatenate([grad.ravel() for grad in self.rows.values()])

    def through_head(self, hidden: dict[int, Array], head: Array) -> Array:
        """The same for what a fused loss is differentiated by: hidden states of all rows, then the head."""
        states = [grad @ head for grad in self.rows.values()]
        weight = sum(grad.T @ hidden[row] for row, grad in self.rows.items())
        return np.concatenate([*(part.ravel() for part in states), np.asarray(weight).ravel()])


def log_softmax(values: Array) -> Array:
    """Over the last axis; -inf stays -inf."""
    shifted = values - values.max(-1, keepdims=True)
    with np.errstate(divide="ignore"):
        return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def per_token(kind: str, teacher: Array, student: Array) -> tuple[Array, Array]:
    """([N] nats, [N, V] gradients at the student's logits) from two [N, V] logits."""
    log_p, log_q = log_softmax(teacher), log_softmax(student)
    p, q = np.exp(log_p), np.exp(log_q)
    if kind == "forward_kl":
        return _expected(p, log_p - log_q), q - p
    if kind == "reverse_kl":
        gap = np.where(q > 0, log_q - log_p, 0.0)
        value = _expected(q, gap)
        return value, q * (gap - value[:, None])
    if kind == "jsd":
        log_m = np.logaddexp(log_p, log_q) - np.log(2)
        value = 0.5 * _expected(p, log_p - log_m) + 0.5 * _expected(q, log_q - log_m)
        from_student = _expected(q, log_q - log_m)
        return value, 0.5 * q * (log_q - log_m - from_student[:, None])
    if kind == "symmetric_kl":
        parts = [per_token(part, teacher, student) for part in ("forward_kl", "reverse_kl")]
        return 0.5 * (parts[0][0] + parts[1][0]), 0.5 * (parts[0][1] + parts[1][1])
    raise ValueError(f"expected a divergence, found {kind!r}")


def _expected(weights: Array, values: Array) -> Array:
    with np.errstate(invalid="ignore"):
        return np.where(weights > 0, weights * values, 0.0).sum(-1)


def counted(labels: Array) -> Array:
    """Positions whose output predicts a label that counts."""
    return np.flatnonzero(labels[1:] != -100)


def truth(
    kind: str, teacher: dict[int, Array], student: dict[int, Array], labels: dict[int, Array], temperature: float = 1.0
) -> Truth:
    """Mean over the counted tokens of all rows together. No T squared: that is measured, not assumed."""
    total = sum(len(counted(labels[row])) for row in student)
    value, rows = 0.0, {}
    for row, logits in student.items():
        where = counted(labels[row])
        rows[row] = np.zeros_like(logits)
        if len(where):
            values, grads = per_token(kind, teacher[row][where] / temperature, logits[where] / temperature)
            value += values.sum() / total
            rows[row][where] = grads / temperature / total
    return Truth(float(value), rows)


def vocabulary_readings(kind: str, teacher: Array, student: Array) -> dict[str, tuple[Array, Array]]:
    """What a loss may make of heads of different widths: name -> (teacher, student) of one width.

    The first two are sound: a column without a token gets no probability from the teacher, or
    columns that only one side has are left out on both. The other two invent logits.
    """
    widths = teacher.shape[-1], student.shape[-1]
    shared = min(widths)

    def padded(values: Array, with_what: float) -> Array:
        return np.pad(values, ((0, 0), (0, max(widths) - values.shape[-1])), constant_values=with_what)

    excluded = teacher[:, :shared] if widths[0] > widths[1] else padded(teacher, -np.inf)
    readings = {"shared columns only": (teacher[:, :shared], student[:, :shared])}
    if kind in ("forward_kl", "jsd"):
        readings["no probability for missing tokens"] = (excluded, student)
    readings["zero logits for missing columns"] = (padded(teacher, 0.0), padded(student, 0.0))
    copied_teacher, copied_student = padded(teacher, 0.0), padded(student, 0.0)
    if widths[0] > widths[1]:
        copied_student[:, shared:] = teacher[:, shared:]
    else:
        copied_teacher[:, shared:] = student[:, shared:]
    readings["other model's logits in missing columns"] = (copied_teacher, copied_student)
    return readings


SOUND = ("shared columns only", "no probability for missing tokens")
