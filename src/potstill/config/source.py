"""Which rows feed which step: those that exist before training, fresh ones, or both.

Five streams of rows there are. `teacher`, `reference` and `corpus` rows exist before the
first step and come round again every epoch. `online_teacher` and `online_student` rows are
sampled during training, from the teacher or from the student as it then is, and every one
is new. `replay` are rows that the student gave a while ago, drawn again.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from potstill.config.base import Frozen
from potstill.config.data import Sampling

Stream = Literal["teacher", "reference", "corpus", "online_teacher", "online_student", "replay"]

#: Who wrote a stream's rows: what the terms of an objective are `on`.
WRITTEN_BY: dict[str, str] = {
    "teacher": "teacher",
    "reference": "reference",
    "corpus": "corpus",
    "online_teacher": "teacher",
    "online_student": "student",
    "replay": "student",
}
ONLINE = ("online_teacher", "online_student")


class Online(Frozen):
    """How fresh completions are sampled during training."""

    steps_at_once: int = Field(default=1, ge=1)
    """Steps whose fresh rows are sampled together. More fill the sampler better; rows of the last of them come
    from a student that is so many steps less one behind (its staleness, recorded)."""
    slots: int = Field(default=64, ge=1)
    """Completions at work at once."""
    sampling: Sampling | None = None
    """The law of sampling; null: that of data.completions."""


class Replay(Frozen):
    """What the student said a while ago, to be drawn again (DistiLLM's buffer)."""

    capacity_rows: int = Field(default=1000, ge=1)
    """How many of the student's latest rows are kept."""
    max_staleness_steps: int | None = Field(default=None, ge=1)
    """Rows older than so many steps are not drawn; null: as long as they are kept."""


class PlanChange(Frozen):
    """Another data plan from a step on."""

    from_step: int = Field(ge=1)
    """The first optimiser step (from 0) that it feeds."""
    fractions: dict[Stream, float] | None = None
    """New shares; null: as before."""
    completions_per_prompt: int | None = Field(default=None, ge=1)
    """How many of the teacher's offline completions of each prompt; null: as before."""
    num_prompts: int | None = Field(default=None, ge=1)
    """How many training prompts (the first so many in an order keyed by the seed); null: as before."""
    reason: str = "as configured"
    """For the record."""

    @model_validator(mode="after")
    def _changes_something(self) -> PlanChange:
        if self.fractions is None and self.completions_per_prompt is None and self.num_prompts is None:
            raise ValueError("a plan change must change fractions, completions_per_prompt or num_prompts")
        if self.fractions is not None:
            check_fractions(self.fractions)
        return self


def check_fractions(fractions: dict[Stream, float]) -> None:
    """Raises ValueError unless the shares are positive and sum to 1."""
    if not fractions or abs(sum(fractions.values()) - 1) > 1e-9 or min(fractions.values()) <= 0:
        raise ValueError(f"fractions must be positive and sum to 1, found {fractions}")


class _Source(Frozen):
    """What all kinds share."""

    allowed: ClassVar[tuple[Stream, ...]]

    fractions: dict[Stream, float]
    """Share of every batch's rows by stream; sums to 1."""
    changes: tuple[PlanChange, ...] = ()
    """Plans that follow on the first one, at steps known beforehand."""

    @property
    def fed(self) -> set[str]:
        """All streams that ever feed the run."""
        found: set[str] = set(self.fractions)
        return found.union(*(change.fractions or () for change in self.changes))

    @property
    def written_by(self) -> set[str]:
        """Who wrote the rows that ever feed the run."""
        return {WRITTEN_BY[name] for name in self.fed}

    @model_validator(mode="after")
    def _streams_fit(self) -> _Source:
        check_fractions(self.fractions)
        steps = [change.from_step for change in self.changes]
        if steps != sorted(set(steps)):
            raise ValueError(f"source.changes must stand in order of from_step, each once, found {steps}")
        if "replay" in self.fed and "online_student" not in self.fed:
            raise ValueError("replay draws what the student said before; give online_student a share too")
        if getattr(self, "replay", None) is not None and "replay" not in self.fed:
            raise ValueError("source.replay has no effect: the stream replay has no share in fractions")
        strange = sorted(self.fed - set(self.allowed))
        if strange:
            raise ValueError(
                f"a source of this kind has no {' or '.join(strange)} rows, only {', '.join(self.allowed)}; "
                "kind: mixture takes all of them"
            )
        return self


class OfflineSource(_Source):
    """Rows that exist before training; every epoch visits each once."""

    allowed = ("teacher", "reference", "corpus")
    kind: Literal["offline"]
    fractions: dict[Stream, float] = Field(default={"teacher": 1.0})
    """Share of every batch's rows by stream; sums to 1."""


class OnlineTeacherSource(_Source):
    """The teacher answers every prompt anew whenever it comes round."""

    allowed = ("online_teacher", "reference", "corpus")
    kind: Literal["online_teacher"]
    fractions: dict[Stream, float] = Field(default={"online_teacher": 1.0})
    """Share of every batch's rows by stream; sums to 1."""
    online: Online = Online()
    """How fresh completions are sampled."""


class OnlineStudentSource(_Source):
    """The student answers every prompt itself, as it is at that step; the teacher judges its tokens (GKD)."""

    allowed = ("online_student", "replay", "reference", "corpus")
    kind: Literal["online_student"]
    fractions: dict[Stream, float] = Field(default={"online_student": 1.0})
    """Share of every batch's rows by stream; sums to 1."""
    online: Online = Online()
    """How fresh completions are sampled."""
    replay: Replay | None = None
    """How the stream `replay` is drawn; null: with the defaults, where it has a share."""


class MixtureSource(_Source):
    """Any of the streams, in fixed shares of every batch. By default a tenth is the student's own, the share
    that kept golden from rising in Tiapkin et al. 2025, appendix A.4."""

    allowed = ("teacher", "reference", "corpus", "online_teacher", "online_student", "replay")
    kind: Literal["mixture"]
    fractions: dict[Stream, float] = Field(default={"teacher": 0.9, "online_student": 0.1})
    """Share of every batch's rows by stream; sums to 1."""
    online: Online = Online()
    """How fresh completions are sampled."""
    replay: Replay | None = None
    """How the stream `replay` is drawn; null: with the defaults, where it has a share."""

    @model_validator(mode="after")
    def _means_something(self) -> MixtureSource:
        if "online" in self.model_fields_set and not self.fed & set(ONLINE):
            raise ValueError("source.online has no effect: no online stream has a share")
        return self


Source = Annotated[
    OfflineSource | OnlineTeacherSource | OnlineStudentSource | MixtureSource, Field(discriminator="kind")
]


def replay_of(source: Source) -> Replay | None:
    """How rows are drawn again; None where none are."""
    if "replay" not in source.fed:
        return None
    return getattr(source, "replay", None) or Replay()


def online_of(source: Source) -> Online | None:
    """How fresh rows are sampled; None where none are."""
    return getattr(source, "online", None) if source.fed & set(ONLINE) else None


__all__ = [
    "ONLINE", "WRITTEN_BY", "MixtureSource", "OfflineSource", "Online", "OnlineStudentSource", "OnlineTeacherSource",
    "PlanChange", "Replay", "Source", "Stream", "online_of", "replay_of",
]  # fmt: skip
