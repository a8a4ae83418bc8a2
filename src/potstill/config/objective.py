"""The objective: a weighted sum of named per-token terms."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from potstill.config.base import Frozen
from potstill.config.terms import AnyTerm


class ObjectiveConfig(Frozen):
    """What is minimised."""

    terms: tuple[AnyTerm, ...] = Field(min_length=1)
    normalise: Literal["token", "sequence"] = "token"
    """token: one division by the global number of counted tokens. sequence: mean over rows of the
    mean over their tokens (GKD's form)."""
    head_memory_mb: float | None = Field(default=None, gt=0)
    """MiB for logits, the student's and the teacher's together: as many positions are projected onto the
    vocabulary at once as fit. Null: what 320 positions take, on a GPU 2,048. Changes speed and memory, and
    results only by rounding."""
    logits: Literal["as_computed", "fp32"] = "as_computed"
    """as_computed: what a bf16 product gives, rounded to bf16. fp32: its sums are kept in fp32."""

    @model_validator(mode="after")
    def _means_something(self) -> ObjectiveConfig:
        if not any(term.largest_weight > 0 for term in self.terms):
            raise ValueError("the weights of the objective's terms sum to zero: nothing would be learned")
        names = [term.name for term in self.terms]
        if len(set(names)) != len(names):
            raise ValueError(
                f"two terms have one name, found {names}; widen the `on` of one, or tell them apart with `called`"
            )
        kinds = {kind for term in self.terms for kind in (term.default_name, term.kind)} | {"forward_kl"}
        for term in self.terms:
            if term.called in kinds - {term.default_name}:
                raise ValueError(f"a {term.kind} term must not be called {term.called!r}, which is another one's name")
        return self

    @property
    def active(self) -> tuple[AnyTerm, ...]:
        """The terms that ever weigh anything."""
        return tuple(term for term in self.terms if term.largest_weight > 0)

    @property
    def needs_teacher_targets(self) -> bool:
        return any(term.needs_teacher for term in self.active)
