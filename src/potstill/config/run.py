"""The tree that a reader opens first: one run."""

from __future__ import annotations

from typing import Any

from pydantic import model_validator

from potstill.config.base import Frozen
from potstill.config.data import Data
from potstill.config.model import ModelSource, Student
from potstill.config.monitor import MonitorConfig
from potstill.config.objective import ObjectiveConfig
from potstill.config.trackers import Trackers
from potstill.config.training import Checkpoints, Source, Training


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
    trackers: Trackers = ()
    """Where else the curves go; the result does not depend on it."""

    @model_validator(mode="after")
    def _rows_have_terms(self) -> Run:
        fed = set(self.source.fractions)
        wanted = {kind for term in self.objective.active for kind in term.on}
        if fed - wanted:
            raise ValueError(
                f"source.fractions feeds {sorted(fed - wanted)} rows, but no term of the objective is "
                "`on` them: they would teach nothing"
            )
        if wanted - fed:
            raise ValueError(
                f"terms are `on` {sorted(wanted - fed)} rows, but source.fractions feeds only "
                f"{sorted(fed)}: that part of `on` would have no effect"
            )
        return self

    @model_validator(mode="after")
    def _completions_are_used(self) -> Run:
        completions, fed = self.data.completions, set(self.source.fractions)
        written = {"sample": "teacher", "none": None}.get(completions.kind)
        if completions.kind == "file":
            written = completions.provenance
        if written is not None and written not in fed:
            raise ValueError(f"data.completions gives {written} rows, source.fractions uses none of them")
        missing = fed - {written, "reference"}
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
    def _stop_can_happen(self) -> Run:
        if "hacking" in self.monitor.stop_on and self.oracle is None:
            raise ValueError(
                "monitor.stop_on hacking has no effect without an oracle: a rise of reference NLL alone is never "
                "called that. Give an oracle, or stop on overfitting."
            )
        return self

    @model_validator(mode="after")
    def _batches_divide(self) -> Run:
        micro = self.training.micro_batch_rows
        if micro is not None and micro > self.training.batch_rows:
            raise ValueError(f"micro_batch_rows {micro} exceeds batch_rows {self.training.batch_rows}")
        return self

    def dump(self) -> dict[str, Any]:
        """Plain values, every default written out."""
        return self.model_dump(mode="json")


#: Settings that may change when a run is continued: they move or show it, they do not alter it.
MOVABLE = frozenset({"output", "trackers"})

__all__ = ["MOVABLE", "Run"]
