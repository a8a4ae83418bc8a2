"""The objective: a weighted sum of named per-token terms."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from potstill.config.base import Frozen

RowKind = Literal["reference", "teacher", "student", "corpus"]


class CrossEntropy(Frozen):
    """-log q(token): the flavour that needs nothing of the teacher but its text."""

    kind: Literal["cross_entropy"]
    weight: float = Field(ge=0)
    """Factor of this term in the sum."""
    on: tuple[RowKind, ...] = Field(min_length=1)
    """Rows it applies to, by who wrote them. On the student's own samples it is refused."""

    @property
    def name(self) -> str:
        """What the term is called in metrics."""
        return "cross_entropy"

    @model_validator(mode="after")
    def _not_on_itself(self) -> CrossEntropy:
        if "student" in self.on:
            raise ValueError(
                "cross_entropy on the student's own samples only sharpens what it says already; "
                "remove 'student' from `on` or use a divergence there"
            )
        return self


class ForwardKL(Frozen):
    """KL(teacher || student) over the whole vocabulary, times divergence_temperature squared."""

    kind: Literal["forward_kl"]
    weight: float = Field(ge=0)
    """Factor of this term in the sum."""
    on: tuple[RowKind, ...] = Field(min_length=1)
    """Rows it applies to, by who wrote them."""
    divergence_temperature: float = Field(default=1.0, gt=0)
    """Divides both models' logits inside the divergence. Not the temperature of sampling."""

    @property
    def name(self) -> str:
        """What the term is called in metrics."""
        at = "" if self.divergence_temperature == 1 else f"_T{self.divergence_temperature:g}"
        return f"forward_kl{at}"


Term = Annotated[CrossEntropy | ForwardKL, Field(discriminator="kind")]


class ObjectiveConfig(Frozen):
    """What is minimised."""

    terms: tuple[Term, ...] = Field(min_length=1)
    normalise: Literal["token", "sequence"] = "token"
    """token: one division by the global number of counted tokens. sequence: mean over rows of the
    mean over their tokens (GKD's form)."""
    chunk_positions: int = Field(default=512, ge=1)
    """Positions projected onto the vocabulary at once; bounds memory, changes no result."""

    @model_validator(mode="after")
    def _means_something(self) -> ObjectiveConfig:
        if not any(term.weight > 0 for term in self.terms):
            raise ValueError("the weights of the objective's terms sum to zero: nothing would be learned")
        names = [term.name for term in self.terms]
        if len(set(names)) != len(names):
            raise ValueError(f"the same term stands twice, found {names}; widen its `on` instead")
        return self

    @property
    def needs_teacher_targets(self) -> bool:
        return any(term.kind != "cross_entropy" and term.weight > 0 for term in self.terms)
