"""The shapes that a law may have: equations with free coefficients, none of them fitted here.

Three families. A *supervised* form gives a model's loss from its size and tokens. A
*student* form gives the loss of a purely distilled student from its teacher's loss
(Busbridge et al. 2025, arXiv 2502.08606). A *difference* form gives what a teacher
changes: student minus twin, from the gap x = teacher's loss minus twin's loss and the
weight w of the divergence. It is 0 at w = 0, where student and twin are one.

Sizes are body parameters (without embeddings and head), tokens those of training,
losses nats per token. Free coefficients are searched as logarithms, around the middle
of the grid: A / N^a is exp(log_A - a log(N / N0)), which keeps A and a from trading places.

No published coefficient is built in. Those of Busbridge et al. that the project's notes
recall, from memory and second hand, are E 1.22, a 0.408, b 0.431, g 0.452 (supervised) and
c0 2.55, c1 522.6, d1 1.315, f1 0.09, A 2243, a 0.321, B 24181, b 0.637, g 0.764 (student);
they belong to another tokenizer and corpus and say nothing about other data.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

Columns = Mapping[str, np.ndarray]  # name -> [n] float64
HOFFMANN = "Hoffmann et al. 2022 (arXiv 2203.15556), equation 2"
BUSBRIDGE = "Busbridge et al. 2025 (arXiv 2502.08606)"


@dataclass(frozen=True, slots=True)
class Form:
    """log L as a function of coefficients `theta` [..., P] and columns [n] -> [..., n]; complex theta allowed.

    The columns `size` and `tokens` are log(N / N0) and log(D / D0); `teacher_loss` and `supervised_loss`
    are nats per token. `kinds` names what each entry of theta is, so that bounds and plain values follow.
    """

    name: str
    equation: str
    source: str
    kinds: tuple[str, ...]
    log_loss: Callable[[np.ndarray, Columns], np.ndarray]
    needs: Mapping[str, int] = field(default_factory=dict)  # distinct values of a column that it takes

    @property
    def size(self) -> int:
        """Coefficients."""
        return len(self.kinds)

    def bounds(self, losses: np.ndarray) -> np.ndarray:
        """[P, 2] where coefficients are searched; the floor E stays under the lowest loss."""
        low, high = float(losses.min()), float(losses.max())
        ranges = {
            "E": (math.log(1e-3 * low), math.log(0.995 * low)),
            "A": (math.log(1e-4 * high), math.log(10 * high)),
            "B": (math.log(1e-4 * high), math.log(10 * high)),
            "K": (math.log(1e-6 * high), math.log(1e4 * high)),
            "a": (math.log(0.01), math.log(3.0)),
            "b": (math.log(0.01), math.log(3.0)),
            "g": (math.log(0.1), math.log(3.0)),
            "c0": (math.log(0.01), math.log(10.0)),
            "c1": (math.log(0.1), math.log(2000.0)),
            "d1": (math.log(0.2), math.log(5.0)),
            "f1": (math.log(0.01), math.log(5.0)),
        }
        return np.array([ranges[kind] for kind in self.kinds])

    def plain(self, theta: np.ndarray, centre: Mapping[str, float]) -> dict[str, float]:
        """The coefficients as in the equation, from theta [P] and the middle N0, D0 of the grid."""
        found = {kind: math.exp(value) for kind, value in zip(self.kinds, theta, strict=True)}
        size_exponent, token_exponent = found.get("a"), found.get("b", found.get("a"))
        if "A" in found and size_exponent is not None:
            found["A"] *= centre["size"] ** size_exponent
        if "B" in found and token_exponent is not None:
            found["B"] *= centre["tokens"] ** token_exponent
        if "K" in found and "b" in found:  # the power law
            found["K"] *= centre["size"] ** found["a"] * centre["tokens"] ** found["b"]
        return found


def _parts(theta: np.ndarray, *wanted: int) -> list[np.ndarray]:
    return [theta[..., index, None] for index in wanted]


def _falling(log_scale: np.ndarray, log_exponent: np.ndarray, log_x: np.ndarray) -> np.ndarray:
    """A / x^a."""
    return np.asarray(np.exp(log_scale - np.exp(log_exponent) * log_x))


def _power(theta: np.ndarray, at: Columns) -> np.ndarray:
    scale, size, tokens = _parts(theta, 0, 1, 2)
    return np.asarray(scale - np.exp(size) * at["size"] - np.exp(tokens) * at["tokens"])


def _tokens_only(theta: np.ndarray, at: Columns) -> np.ndarray:
    floor, scale, exponent = _parts(theta, 0, 1, 2)
    return np.asarray(np.log(np.exp(floor) + _falling(scale, exponent, at["tokens"])))


def _shared(theta: np.ndarray, at: Columns) -> np.ndarray:
    floor, first, exponent, second = _parts(theta, 0, 1, 2, 3)
    reducible = _falling(first, exponent, at["size"]) + _falling(second, exponent, at["tokens"])
    return np.asarray(np.log(np.exp(floor) + reducible))


def _hoffmann(theta: np.ndarray, at: Columns) -> np.ndarray:
    floor, first, size, second, tokens = _parts(theta, 0, 1, 2, 3, 4)
    return np.asarray(
        np.log(np.exp(floor) + _falling(first, size, at["size"]) + _falling(second, tokens, at["tokens"]))
    )


def _busbridge(theta: np.ndarray, at: Columns) -> np.ndarray:
    floor, first, size, second, tokens, power = _parts(theta, 0, 1, 2, 3, 4, 5)
    reducible = _falling(first, size, at["size"]) + _falling(second, tokens, at["tokens"])
    return np.asarray(np.log(np.exp(floor) + np.exp(np.exp(power) * np.log(reducible))))


def _log_one_plus_exp(u: np.ndarray) -> np.ndarray:
    """log(1 + e^u) without overflow, complex numbers too."""
    small = np.log1p(np.exp(np.where(u.real > 0, -u, u)))
    return np.asarray(np.where(u.real > 0, u + small, small))


def _student(theta: np.ndarray, at: Columns) -> np.ndarray:
    first, size, second, tokens, power = _parts(theta, 4, 5, 6, 7, 8)
    reducible = _falling(first, size, at["size"]) + _falling(second, tokens, at["tokens"])
    return _above_teacher(theta, at, np.exp(power) * np.log(reducible))


def _student_one_budget(theta: np.ndarray, at: Columns) -> np.ndarray:
    return _above_teacher(theta, at, theta[..., 4, None])


def _above_teacher(theta: np.ndarray, at: Columns, log_capacity: np.ndarray) -> np.ndarray:
    """log of L_T + L_T^-c0 (1 + (L_T / (L d1))^(1/f1))^(-c1 f1) exp(log_capacity)."""
    c0, c1, d1, f1 = (np.exp(part) for part in _parts(theta, 0, 1, 2, 3))
    teacher = at["teacher_loss"]
    bend = _log_one_plus_exp((np.log(teacher) - np.log(at["supervised_loss"]) - np.log(d1)) / f1)
    return np.asarray(np.log(teacher + np.exp(-c0 * np.log(teacher) - c1 * f1 * bend + log_capacity)))


#: From few coefficients to many: the order in which the simpler one is preferred.
SUPERVISED = (
    Form("tokens", "L = E + B/D^b", "one size: " + HOFFMANN, ("E", "B", "b"), _tokens_only, {"tokens": 3}),
    Form("power", "L = K/(N^a D^b)", "no floor", ("K", "a", "b"), _power, {"size": 2, "tokens": 2}),
    Form("shared", "L = E + A/N^a + B/D^a", "one exponent", ("E", "A", "a", "B"), _shared, {"size": 2, "tokens": 3}),
    Form(
        "hoffmann",
        "L = E + A/N^a + B/D^b",
        HOFFMANN,
        ("E", "A", "a", "B", "b"),
        _hoffmann,
        {"size": 3, "tokens": 3},
    ),
    Form(
        "busbridge",
        "L = E + (A/N^a + B/D^b)^g",
        BUSBRIDGE + ", supervised law",
        ("E", "A", "a", "B", "b", "g"),
        _busbridge,
        {"size": 3, "tokens": 3},
    ),
)
STUDENT = (
    Form(
        "busbridge one budget",
        "L_S = L_T + K L_T^-c0 (1 + (L_T/(L d1))^(1/f1))^(-c1 f1), L: the twin's loss",
        BUSBRIDGE + ", distillation law for one student size and token count",
        ("c0", "c1", "d1", "f1", "K"),
        _student_one_budget,
        {"teacher_loss": 5},
    ),
    Form(
        "busbridge student",
        "L_S = L_T + L_T^-c0 (1 + (L_T/(L d1))^(1/f1))^(-c1 f1) (A/N^a + B/D^b)^g, L: the twin's loss",
        BUSBRIDGE + ", distillation law (their equation 8)",
        ("c0", "c1", "d1", "f1", "A", "a", "B", "b", "g"),
        _student,
        {"teacher_loss": 5, "size": 3, "tokens": 3},
    ),
)


def student_loss(
    coefficients: Mapping[str, float],
    teacher_loss: np.ndarray | float,
    supervised_loss: np.ndarray | float,
    body_parameters: float,
    tokens: float,
) -> np.ndarray:
    """The distillation law of Busbridge et al. 2025 (equation 8) with coefficients c0, c1, d1, f1, A, a, B, b, g.

    `teacher_loss` L_T and `supervised_loss` L (of the same student without a teacher) in nats per token, any
    shapes that broadcast. Limits: for a strong teacher (L_T far under d1 L) it is L_T + C / L_T^c0, with
    C = (A/N^a + B/D^b)^g, which has its minimum at L_T = (c0 C)^(1 / (1 + c0)) and rises again below: the
    capacity gap. For a weak teacher it tends to L_T. It is above L_T everywhere, so a student that ends
    lower than its teacher is outside of this form.
    """
    one = coefficients
    capacity = (one["A"] / body_parameters ** one["a"] + one["B"] / tokens ** one["b"]) ** one["g"]
    teacher = np.asarray(teacher_loss, dtype=float)
    bend = np.logaddexp(0.0, np.log(teacher / (np.asarray(supervised_loss) * one["d1"])) / one["f1"])
    return np.asarray(teacher + capacity * np.exp(-one["c0"] * np.log(teacher) - one["c1"] * one["f1"] * bend))


SIZED = "s10"  # the coefficient of w n


@dataclass(frozen=True, slots=True)
class DifferenceForm:
    """d = sum of c_ij w^i x^j over `powers` (i, j), with i above 0: nothing happens without a teacher; and s10 w n
    where it is `sized`, with n = log(N_S / N_0): a larger student may gain more from the same teacher.

    Training on (1 - w) cross-entropy + w KL is training against the mixture of data and teacher. Near
    w = 0 the change is linear in w. What the teacher gets wrong enters with w squared, since cross-entropy
    is flat around its minimum; so the forms go up to w^2 and x^2.
    """

    name: str
    powers: tuple[tuple[int, int], ...]
    sized: bool = False

    @property
    def size(self) -> int:
        """Coefficients."""
        return len(self.names)

    @property
    def names(self) -> list[str]:
        return [f"c{i}{j}" for i, j in self.powers] + [SIZED] * self.sized

    @property
    def equation(self) -> str:
        """Words for people."""
        terms = [f"c{i}{j} {_power_word('w', i)}{_power_word(' x', j)}" for i, j in self.powers]
        return "d = " + (" + ".join(terms + [f"{SIZED} w n"] * self.sized) or "0")

    @property
    def needs(self) -> dict[str, int]:
        """Distinct weights and teachers; two teachers more than coefficients in x, so that their scatter is seen."""
        in_x = max((j for _, j in self.powers), default=0)
        weights = len({i for i, _ in self.powers})
        return {"weights": max(1, weights), "teachers": 3 + in_x} | ({"size": 3} if self.sized else {})

    def features(self, at: Columns) -> np.ndarray:
        """[n, P] from the columns `gap` x [n], `weight` w [n] and, where it is sized, `size` n [n]."""
        gap, weight = at["gap"], at["weight"]
        columns = [weight**i * gap**j for i, j in self.powers]
        if self.sized:
            columns.append(weight * at["size"])
        return np.stack(columns, axis=-1) if columns else np.zeros((*np.shape(gap), 0))


def _power_word(letter: str, power: int) -> str:
    return "" if power == 0 else letter if power == 1 else f"{letter}^{power}"


DIFFERENCE = (
    DifferenceForm("none", ()),
    DifferenceForm("even", ((1, 0),)),
    DifferenceForm("bend", ((1, 0), (2, 0))),
    DifferenceForm("line", ((1, 0), (1, 1))),
    DifferenceForm("line and bend", ((1, 0), (1, 1), (2, 0))),
    DifferenceForm("bend with x", ((1, 0), (2, 0), (2, 1))),
    DifferenceForm("parabola", ((1, 0), (1, 1), (1, 2))),
    DifferenceForm("lines", ((1, 0), (1, 1), (2, 0), (2, 1))),
    DifferenceForm("parabola and bend", ((1, 0), (2, 0), (2, 1), (2, 2))),
    DifferenceForm("parabolas", ((1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2))),
)
SIZED_DIFFERENCE = tuple(DifferenceForm(f"{form.name}, sized", form.powers, sized=True) for form in DIFFERENCE[3:8])
FORMS: Mapping[str, Form] = {form.name: form for form in (*SUPERVISED, *STUDENT)}
DIFFERENCE_FORMS: Mapping[str, DifferenceForm] = {form.name: form for form in (*DIFFERENCE, *SIZED_DIFFERENCE)}
