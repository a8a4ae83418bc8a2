"""The terms that an objective may be made of: what each compares, and which tokens it weighs how.

Every kind says its parameters by what they do. What papers call alpha, beta and
lambda (and mean different things by) has names here: `weight`, `teacher_weight`,
`teacher_share`, `student_share`. `docs/guide/objectives.md` has the formulas.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from potstill.config.base import Frozen
from potstill.config.schedule import WeightSchedule

RowKind = Literal["reference", "teacher", "student", "corpus"]


class EntropyWeighting(Frozen):
    """Weigh tokens by how unsure the teacher is of them: H / (H + half_at_nats), or its complement."""

    kind: Literal["teacher_entropy"]
    favours: Literal["high", "low"] = "high"
    """high: forks, where the teacher sees several ways on. low: where it knows."""
    half_at_nats: float = Field(default=1.0, gt=0)
    """Entropy of the teacher's distribution, nats, at which the weight is one half."""


class PositionWeighting(Frozen):
    """Weigh tokens by their place among the counted tokens of their row: 2^(-place / half_life), or 1 less it."""

    kind: Literal["position"]
    favours: Literal["early", "late"] = "early"
    """Which end of the answer weighs more."""
    half_life_tokens: float = Field(gt=0)
    """Tokens over which the early weight halves."""


class PartWeighting(Frozen):
    """Weigh the reasoning trace and the answer after it apart; `data.trace_ends_with` says where one ends."""

    kind: Literal["part"]
    trace: float = Field(ge=0)
    """Weight of the tokens up to and with the marker."""
    answer: float = Field(ge=0)
    """Weight of those after it, and of rows without a marker."""

    @model_validator(mode="after")
    def _not_both_nothing(self) -> PartWeighting:
        if self.trace == 0 == self.answer:
            raise ValueError("trace and answer both weigh 0: nothing would be learned")
        return self


TokenWeighting = Annotated[EntropyWeighting | PositionWeighting | PartWeighting, Field(discriminator="kind")]


class Term(Frozen):
    """What all terms share."""

    in_nats: ClassVar[bool] = True
    compares_with_teacher: ClassVar[bool] = True

    kind: str
    weight: Annotated[float, Field(ge=0)] | WeightSchedule
    """Factor of this term in the sum; a number, or a schedule over the run."""
    on: tuple[RowKind | Literal["any"], ...] = Field(min_length=1)
    """Rows it applies to, by who wrote them; any: whatever the source feeds."""
    called: str | None = Field(default=None, pattern=r"^[A-Za-z][A-Za-z0-9_.-]*$")
    """Name in metrics; needed only where the same kind stands twice."""
    token_weighting: TokenWeighting | None = None
    """A rule that weighs tokens against each other. The number to divide by stays the count of counted
    tokens, so weights below 1 make the term smaller."""

    @model_validator(mode="after")
    def _any_stands_alone(self) -> Term:
        if "any" in self.on and len(self.on) > 1:
            raise ValueError(f"`on` has any beside others, which adds nothing: found {list(self.on)}")
        return self

    def applies_to(self, written_by: str) -> bool:
        """Whether rows that `written_by` wrote count for this term."""
        return "any" in self.on or written_by in self.on

    @property
    def name(self) -> str:
        """What the term is called in metrics."""
        return self.called or self.default_name

    @property
    def default_name(self) -> str:
        return self.kind

    @property
    def needs_teacher(self) -> bool:
        """Whether the teacher must say something about each token."""
        weighting = self.token_weighting
        return self.compares_with_teacher or (weighting is not None and weighting.kind == "teacher_entropy")

    @property
    def needs_every_column(self) -> bool:
        """Infinite, or without a value, where the student's head has columns that the teacher's lacks."""
        return False

    @property
    def scale(self) -> float:
        """Factor of the value and its gradient, before any weight."""
        return 1.0

    @property
    def largest_weight(self) -> float:
        return self.weight if isinstance(self.weight, float) else self.weight.largest

    def weight_at(self, progress: float) -> float:
        """The weight at `progress`, 0 at the first step and 1 at the last."""
        return self.weight if isinstance(self.weight, float) else self.weight.at(progress)

    def mean_weight(self, points: int = 101) -> float:
        """Mean over the run: what a ruler that must not change during it uses."""
        if isinstance(self.weight, float):
            return self.weight
        return sum(self.weight_at(i / (points - 1)) for i in range(points)) / points


class CrossEntropy(Term):
    """-log q(token): the flavour that needs nothing of the teacher but its text."""

    compares_with_teacher: ClassVar[bool] = False
    kind: Literal["cross_entropy"]

    @model_validator(mode="after")
    def _not_on_itself(self) -> CrossEntropy:
        if "student" in self.on:
            raise ValueError(
                "cross_entropy on the student's own samples only sharpens what it says already; "
                "remove 'student' from `on` or use a divergence there"
            )
        return self


class Divergence(Term):
    """A term between whole distributions, both softened by one temperature."""

    divergence_temperature: float = Field(default=1.0, gt=0)
    """Divides both models' logits inside the divergence. Not the temperature of sampling."""

    @property
    def parameter(self) -> float | None:
        """What tells two of a kind apart, beside the temperature."""
        return None

    @property
    def default_name(self) -> str:
        own = "" if self.parameter is None else f"_{self.parameter:g}"
        at = "" if self.divergence_temperature == 1 else f"_T{self.divergence_temperature:g}"
        return f"{self.kind}{own}{at}"

    @property
    def scale(self) -> float:
        """Softening divides the gradient of a smooth divergence by about T^2; this gives it back."""
        return self.divergence_temperature**2


class ForwardKL(Divergence):
    """KL(teacher || student), mode-covering, times divergence_temperature squared."""

    kind: Literal["forward_kl"]


class ReverseKL(Divergence):
    """KL(student || teacher), mode-seeking, times divergence_temperature squared."""

    kind: Literal["reverse_kl"]

    @property
    def needs_every_column(self) -> bool:
        return True


class JensenShannon(Divergence):
    """Generalised Jensen-Shannon: both against their mixture, times divergence_temperature squared."""

    kind: Literal["jensen_shannon"]
    teacher_weight: float = Field(default=0.5, ge=0, le=1)
    """The teacher's part w of the mixture, and the weight of its own divergence from it."""
    normalised: bool = False
    """Divide by w (1 - w): the scale of a KL at every w, with forward KL at 0 and reverse KL at 1. Raw
    (GKD's form) it vanishes towards both ends, and the learning rate must follow."""

    @property
    def parameter(self) -> float:
        return self.teacher_weight

    @property
    def needs_every_column(self) -> bool:
        return self.teacher_weight == 1

    @model_validator(mode="after")
    def _not_nothing(self) -> JensenShannon:
        if self.teacher_weight in (0, 1) and not self.normalised:
            raise ValueError(
                f"a raw Jensen-Shannon divergence with teacher_weight {self.teacher_weight:g} is 0 for every "
                "student; use forward_kl (the limit at 0) or reverse_kl (at 1), or set normalised: true"
            )
        return self


class SkewForwardKL(Divergence):
    """KL(teacher || s teacher + (1 - s) student) of DistiLLM, times divergence_temperature squared."""

    kind: Literal["skew_forward_kl"]
    teacher_share: float = Field(default=0.1, ge=0, lt=1)
    """The teacher's part s of the mixture; 0 is forward KL."""

    @property
    def parameter(self) -> float:
        return self.teacher_share


class SkewReverseKL(Divergence):
    """KL(student || (1 - s) teacher + s student) of DistiLLM, times divergence_temperature squared."""

    kind: Literal["skew_reverse_kl"]
    student_share: float = Field(default=0.1, ge=0, lt=1)
    """The student's part s of the mixture; 0 is reverse KL."""

    @property
    def parameter(self) -> float:
        return self.student_share

    @property
    def needs_every_column(self) -> bool:
        return self.student_share == 0


class TotalVariation(Divergence):
    """Half the sum of |p - q|, a probability; times divergence_temperature."""

    in_nats: ClassVar[bool] = False
    kind: Literal["total_variation"]

    @property
    def scale(self) -> float:
        """Its gradient does not shrink with the difference, so softening divides it by T only."""
        return self.divergence_temperature


class LogitMSE(Term):
    """Mean squared difference of centred logits: the known-bad control, kept to be measured against."""

    in_nats: ClassVar[bool] = False
    kind: Literal["logit_mse"]

    @property
    def needs_every_column(self) -> bool:
        return True


AnyTerm = Annotated[
    CrossEntropy | ForwardKL | ReverseKL | JensenShannon | SkewForwardKL | SkewReverseKL | TotalVariation | LogitMSE,
    Field(discriminator="kind"),
]
