"""What every tracker is, and what the three share."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from potstill.config.run import Run
from potstill.records import Verdict
from potstill.run_dir import RunDir

#: Lines of samples.jsonl: a few held-out prompts with the student's answers.
Texts = Sequence[Mapping[str, Any]]
TEXT_COLUMNS = ("prompt_id", "prompt", "student", "teacher", "reference")


class TrackerError(RuntimeError):
    """A tracker cannot be used as configured; the message says how to mend it."""


@dataclass(frozen=True)
class Tracked:
    """The run that is followed: its directory, its configuration, and its name among a tracker's runs."""

    run: RunDir
    config: Run
    id: str

    @property
    def name(self) -> str:
        return self.run.path.resolve().name


class Tracker(Protocol):
    """What is told while a run works. `resume` comes first; steps then rise."""

    where: str
    """How a person looks at it."""

    def gives_up(self, error: Exception) -> bool:
        """Is this how its library says that it can go on no longer? Other errors are defects of ours."""
        ...

    def resume(self, step: int, whole: bool) -> int:
        """The run goes on after `step`, -1 at its beginning; returns the last step that needs no telling.

        `whole` says that everything up to `step` was told before.
        """
        ...

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """One optimiser step."""
        ...

    def evaluation(self, step: int, values: Mapping[str, float], texts: Texts) -> None:
        """One evaluation, after the metrics of its step."""
        ...

    def flush(self) -> None:
        """What was told must outlive a kill; called before every checkpoint."""
        ...

    def close(self, verdict: Verdict | None) -> None:
        """The end, with a verdict, or an early leave without."""
        ...


def needed(module: str, kind: str) -> Any:
    """Import a tracker's library, or say how to get it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise TrackerError(
            f"trackers: {kind} is not installed ({error}); pip install 'potstill[{kind}]', or leave it out of the "
            "configuration"
        ) from error


def table(texts: Texts) -> dict[str, Any]:
    """Sample texts as a table: one row a prompt."""
    return {"columns": list(TEXT_COLUMNS), "data": [[line.get(name) for name in TEXT_COLUMNS] for line in texts]}


def in_words(verdict: Verdict) -> str:
    """The verdict as a paragraph."""
    return f"{verdict.verdict} (confidence {verdict.confidence:.2f}): {verdict.sentence}"
