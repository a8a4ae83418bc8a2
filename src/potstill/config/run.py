"""The tree that a reader opens first: one run."""

from __future__ import annotations

from typing import Any

from pydantic import model_validator

from potstill.config.base import Frozen
from potstill.config.benchmark import Benchmark
from potstill.config.cache import Cache
from potstill.config.data import Data
from potstill.config.model import ModelSource, Student
from potstill.config.monitor import MonitorConfig
from potstill.config.objective import ObjectiveConfig
from potstill.config.source import WRITTEN_BY, Source
from potstill.config.trackers import Trackers
from potstill.config.training import Checkpoints, Training


class Run(Frozen):
    """Everything that decides a run's outcome."""

    output: str
    """The run directory. One configuration, one directory."""
    seed: int = 0
    """All random numbers are keyed by it."""
    teacher: ModelSource
    oracle: ModelSource | None = None
    """The truth, where an experiment has one; golden is then the distance to it."""
    student: Student
    data: Data
    source: Source
    objective: ObjectiveConfig
    training: Training
    monitor: MonitorConfig
    checkpoints: Checkpoints
    benchmark: Benchmark | None = None
    """A test on held-out prompts, before the first step and at the end; null: none."""
    trackers: Trackers = ()
    """Where else the curves go; the result does not depend on it."""
    cache: Cache | None = None
    """What `potstill cache` writes of the teacher's targets; a run reads them where
    `training.teacher_targets` says so."""

    @property
    def may_feed(self) -> set[str]:
        """All streams that feed the run, or that a remedy may begin to feed."""
        on_alarm = self.monitor.on_alarm
        return self.source.fed | (set() if on_alarm is None else on_alarm.streams)

    @model_validator(mode="after")
    def _rows_have_terms(self) -> Run:
        fed = {WRITTEN_BY[name] for name in self.may_feed}
        unheard = sorted(name for name in fed if not any(t.applies_to(name) for t in self.objective.active))
        wanted = {kind for term in self.objective.active for kind in term.on} - {"any"}
        if unheard:
            raise ValueError(
                f"source.fractions (or a remedy) feeds {unheard} rows, but no term of the objective is "
                "`on` them: they would teach nothing"
            )
        if wanted - fed:
            raise ValueError(
                f"terms are `on` {sorted(wanted - fed)} rows, but source.fractions feeds only "
                f"{sorted(fed)}: that part of `on` would have no effect"
            )
        if "student" in fed and any(t.kind == "cross_entropy" and "any" in t.on for t in self.objective.active):
            raise ValueError(
                "cross_entropy is `on` any rows, and the student's own are among them, where it only sharpens what "
                "it says already; name the rows that it is for"
            )
        return self

    @model_validator(mode="after")
    def _completions_are_used(self) -> Run:
        completions, fed = self.data.completions, self.source.fed
        written = {"sample": "teacher", "store": "teacher", "none": None}.get(completions.kind)
        if completions.kind == "file":
            written = completions.provenance
        if completions.kind in ("file", "store") and written not in fed:
            raise ValueError(f"data.completions gives {written} rows, source.fractions uses none of them")
        if completions.kind == "sample" and "teacher" not in fed:
            if not fed & {"online_teacher", "online_student"}:
                raise ValueError("data.completions gives teacher rows, source.fractions uses none of them")
            if "per_prompt" in completions.model_fields_set and completions.per_prompt > 1:
                raise ValueError(
                    "data.completions.per_prompt has no effect: source has no offline teacher rows; every visit of a "
                    "prompt brings a new completion"
                )
        missing = {name for name in fed if WRITTEN_BY[name] == name} - {written, "reference"}
        if missing:
            raise ValueError(f"source.fractions wants {sorted(missing)} rows, data.completions gives none")
        return self

    @model_validator(mode="after")
    def _traces_are_known(self) -> Run:
        rules = [term.token_weighting for term in self.objective.active]
        by_part = any(rule is not None and rule.kind == "part" for rule in rules)
        if by_part and self.data.trace_ends_with is None:
            raise ValueError(
                "a term weighs trace and answer apart; say in data.trace_ends_with which text ends a trace, "
                "such as '</think>'"
            )
        if self.data.trace_ends_with is not None and not by_part:
            raise ValueError("data.trace_ends_with has no effect: no term has a token_weighting of kind part")
        return self

    @model_validator(mode="after")
    def _remedies_can_be_taken(self) -> Run:
        on_alarm = self.monitor.on_alarm
        if on_alarm is None:
            return self
        if self.source.changes:
            raise ValueError(
                "monitor.on_alarm changes the data plan, and source.changes would take that back at its own step; "
                "leave one of them out"
            )
        if on_alarm.without_oracle and self.oracle is None:
            raise ValueError("monitor.on_alarm.without_oracle has no effect: there is no oracle")
        if self.training.teacher_targets is not None and on_alarm.asks_teacher:
            raise ValueError(
                "monitor.on_alarm has remedies that need the teacher for new rows, and training.teacher_targets holds "
                "those of the first rows only; leave it out, or use the remedy stop"
            )
        how, fed = self.data.completions, self.source.fed
        offline = {"more_completions_per_prompt", "more_prompts"} & set(on_alarm.remedies)
        if "more_prompts" in offline and fed & {"online_teacher", "online_student"} and "teacher" not in fed:
            offline.discard("more_prompts")  # every visit of a prompt is sampled anew anyway
        if offline and (how.kind != "sample" or "teacher" not in fed):
            raise ValueError(
                f"the remedies {sorted(offline)} have the teacher answer more, which needs data.completions of kind "
                "sample that feed the stream teacher"
            )
        if offline and how.kind == "sample" and how.rejection is not None:
            raise ValueError(
                f"the remedies {sorted(offline)} would feed completions that data.completions.rejection has not seen; "
                "leave one of them out"
            )
        if "human_text" in on_alarm.remedies and "reference" in fed:
            raise ValueError("the remedy human_text begins to feed references, and source.fractions feeds them already")
        return self

    @model_validator(mode="after")
    def _sequences_follow_one_prompt(self) -> Run:
        if self.monitor.sequence_every is None or self.oracle is None:
            return self
        how = self.data.completions
        sees = how.asking.student_sees if how.kind == "sample" and how.asking is not None else "prompt"
        if sees != "prompt":
            raise ValueError(
                "monitor.sequence_every compares the student with the oracle on samples of both, and with "
                f"asking.student_sees {sees} they would follow different prompts; leave one of them out"
            )
        return self

    @model_validator(mode="after")
    def _terms_are_of_what_feeds(self) -> Run:
        if self.oracle is not None and self.oracle.terms is not None:
            raise ValueError("oracle.terms has no effect: nothing that the oracle says feeds the student")
        return self

    @model_validator(mode="after")
    def _verifiers_can_ask(self) -> Run:
        if self.benchmark is not None and any(v.kind == "judge" for v in self.benchmark.verifiers):
            raise ValueError("benchmark.verifiers cannot hold a judge: the teacher would grade its own student")
        return self

    @model_validator(mode="after")
    def _batches_divide(self) -> Run:
        micro = self.training.micro_batch_rows
        if micro is not None and micro > self.training.batch_rows:
            raise ValueError(f"micro_batch_rows {micro} exceeds batch_rows {self.training.batch_rows}")
        return self

    @model_validator(mode="after")
    def _targets_are_used(self) -> Run:
        for name, given in (("cache", self.cache), ("training.teacher_targets", self.training.teacher_targets)):
            if given is None:
                continue
            if not self.objective.needs_teacher_targets:
                raise ValueError(f"{name} has no effect: no term of the objective asks the teacher")
            new = sorted(self.source.fed & {"online_teacher", "online_student"})
            if new:
                raise ValueError(
                    f"{name} holds targets of rows that exist before training, and source.fractions feeds {new}, "
                    "rows that are made during it; leave it out, or feed rows that exist"
                )
        return self

    def dump(self) -> dict[str, Any]:
        """Plain values, every default written out."""
        return self.model_dump(mode="json")


#: Settings that may change when a run is continued: they move or show it, they do not alter it.
MOVABLE = frozenset({"output", "trackers", "cache"})

__all__ = ["MOVABLE", "Run"]
