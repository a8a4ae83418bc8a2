"""Tells the trackers that a run names what happens, and never lets them disturb it.

They are opened before models are loaded, so that a missing library or login costs no
time, and on the first process only. One that fails later is left out with one warning;
the run goes on, and when it is next resumed the tracker is told what it missed.
`trackers.json` in the run directory keeps the run's name among a tracker's runs, and
which trackers were told everything.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from rich.markup import escape

from potstill.config.run import Run
from potstill.records import EvaluationRecord, Verdict
from potstill.run_dir import RunDir
from potstill.training.show import Show
from potstill.training.trackers.base import Texts, Tracked, Tracker
from potstill.training.trackers.tensorboard import TensorBoard
from potstill.training.trackers.trackio import Trackio
from potstill.training.trackers.wandb import Wandb

KINDS: Mapping[str, Callable[[Any, Tracked], Tracker]] = {
    "tensorboard": TensorBoard,
    "trackio": Trackio,
    "wandb": Wandb,
}
FILE = "trackers.json"
#: One step: its line of metrics, its evaluation, its sample texts.
Past = tuple[Mapping[str, Any] | None, EvaluationRecord | None, Texts]


@contextmanager
def tracking(run: RunDir, config: Run, show: Show, *, lead: bool) -> Iterator[Trackers]:
    """The run's trackers, open until the block ends; none on the processes that do not lead.

    Raises TrackerError: library missing, no login, refused by the server.
    """
    trackers = Trackers(run, show)
    try:
        if lead:
            trackers.open(config)
        yield trackers
    finally:
        trackers.close(None)


class Trackers:
    """The trackers at work, by kind."""

    def __init__(self, run: RunDir, show: Show):
        self.run, self.show = run, show
        self.active: dict[str, Tracker] = {}
        self.settings: dict[str, Any] = {}
        self.memory: dict[str, Any] = {}

    def open(self, config: Run) -> None:
        """Make each that the configuration names."""
        known = self.run.file(FILE).is_file()
        if not known and not config.trackers:
            return
        self.settings = {one.kind: one.model_dump(mode="json") for one in config.trackers}
        # Random, not made from the path: a directory that is emptied and used again is another run.
        self.memory = self.run.read_json(FILE) if known else {"id": uuid.uuid4().hex[:12], "told": {}}
        told = self.memory["told"]
        self.memory["told"] = {kind: then for kind, then in told.items() if then == self.settings.get(kind)}
        self.run.write_json(FILE, self.memory)
        for settings in config.trackers:
            tracker = KINDS[settings.kind](settings, Tracked(self.run, config, self.memory["id"]))
            self.active[settings.kind] = tracker
            self.show.say(f"[bold]{settings.kind:>16}[/bold]  {escape(tracker.where)}")

    def resume(self, step: int) -> None:
        """The run goes on after `step` (-1: it begins); each is told what it lacks up to there."""
        if not self.active:
            return
        past = _past(self.run)
        for kind in tuple(self.active):
            self._try(kind, partial(self._bring_up, kind, step, past))

    def metrics(self, line: Mapping[str, Any]) -> None:
        """The line of one optimiser step, as in metrics.jsonl."""
        for kind, tracker in tuple(self.active.items()):
            self._try(kind, partial(tracker.metrics, line["step"], _training(line)))

    def evaluation(self, record: EvaluationRecord, texts: Texts) -> None:
        """One evaluation with its sample texts."""
        for kind, tracker in tuple(self.active.items()):
            self._try(kind, partial(tracker.evaluation, record.step, _evaluation(record), texts))

    def flush(self) -> None:
        """Before a checkpoint: what was told must outlive a kill."""
        for kind, tracker in tuple(self.active.items()):
            self._try(kind, tracker.flush)

    def close(self, verdict: Verdict | None) -> None:
        """The end; a second call does nothing."""
        for kind, tracker in tuple(self.active.items()):
            self._try(kind, partial(tracker.close, verdict))
        self.active.clear()

    def _bring_up(self, kind: str, step: int, past: list[Past]) -> None:
        tracker, told = self.active[kind], self.memory["told"]
        held = tracker.resume(step, step >= 0 and kind in told)
        for line, record, texts in past:
            if line is not None and line["step"] > held:
                tracker.metrics(line["step"], _training(line))
            if record is not None and record.step > held:
                tracker.evaluation(record.step, _evaluation(record), texts)
        tracker.flush()
        told[kind] = self.settings[kind]
        self.run.write_json(FILE, self.memory)

    def _try(self, kind: str, act: Callable[[], object]) -> None:
        try:
            act()
        except Exception as error:
            if not self.active[kind].gives_up(error):
                raise
            del self.active[kind]
            self.memory["told"].pop(kind, None)
            self.run.write_json(FILE, self.memory)
            self.show.say(
                f"[yellow]warning[/yellow] {kind} failed and is left out; the run goes on, and its own files hold "
                f"everything ({escape(repr(error))})"
            )


def _past(run: RunDir) -> list[Past]:
    """What the run directory holds, by step."""
    lines = {line["step"]: line for line in run.lines("metrics.jsonl")}
    records = {record.step: record for record in run.evaluations()}
    texts: dict[int, list[Mapping[str, Any]]] = {}
    for line in run.lines("samples.jsonl"):
        texts.setdefault(line["step"], []).append(line)
    return [(lines.get(s), records.get(s), texts.get(s, [])) for s in sorted(lines.keys() | records.keys())]


def _training(line: Mapping[str, Any]) -> dict[str, float]:
    return {f"train/{name}": value for name, value in line.items() if name != "step"}


def _evaluation(record: EvaluationRecord) -> dict[str, float]:
    """Nats per token, under the names that the run directory uses."""
    return {f"evaluation/{name}": measured.per_token() for name, measured in record.series.items()}
