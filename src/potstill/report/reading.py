"""What a page needs to know of a run, read once from its directory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from potstill.diagnosis import diagnose, judge, read_curves
from potstill.diagnosis.readers import read_golden_kind
from potstill.records import Curve, Verdict
from potstill.report.alarms import Alarm, read_alarms
from potstill.report.numbers import LABELS, reported
from potstill.report.since_alarm import Since, since_alarms
from potstill.run_dir import RunDir


@dataclass(frozen=True, slots=True)
class Reading:
    """One run's outcome."""

    run: RunDir
    name: str
    verdict: Verdict
    curves: dict[str, Curve]  # as the page shows them: see numbers.reported
    golden_kind: str
    exported_step: int | None  # of the student in student/; None before the run has ended
    alarms: tuple[Alarm, ...] = ()
    since: tuple[Since | None, ...] = ()  # what followed each of them

    @property
    def best_step(self) -> int | None:
        """The verdict's best step; an inconclusive verdict claims none."""
        return None if self.verdict.verdict == "inconclusive" else self.verdict.best_step

    @property
    def opening(self) -> str:
        """The verdict in one sentence."""
        first, _, rest = self.verdict.sentence.partition(". ")
        return first + "." if rest else first

    @property
    def rest(self) -> str:
        """The verdict's other sentences."""
        return self.verdict.sentence.partition(". ")[2]

    @property
    def confidence(self) -> str:
        return "> 0.99" if self.verdict.confidence > 0.995 else f"{self.verdict.confidence:.2f}"

    @property
    def steps(self) -> list[int]:
        """Every step that was evaluated."""
        return sorted({int(step) for curve in self.curves.values() for step in curve.steps})


def read(run: RunDir) -> Reading:
    """Read a run directory; what it lacks is left empty."""
    measured = read_curves(run.path) if run.evaluations() else {}
    shown = {name: reported(measured[name]) for name in LABELS if name in measured}
    alarms = read_alarms(run)
    return Reading(
        run=run,
        name=run.path.resolve().name,
        verdict=read_verdict(run, measured),
        curves={name: curve for name, curve in shown.items() if curve.steps.size},
        golden_kind=read_golden_kind(run.path),
        exported_step=read_exported_step(run),
        alarms=alarms,
        since=since_alarms(measured, alarms, read_alarm_prompts(run)) if alarms else (),
    )


def read_verdict(run: RunDir, curves: Mapping[str, Curve]) -> Verdict:
    """The verdict that the run ended with, or a fresh one."""
    stored = read_optional(run, "verdict.json")
    if stored is not None:
        return Verdict(**stored)
    return diagnose(run.path) if curves else judge({})


def read_exported_step(run: RunDir) -> int | None:
    """The diary's last word on it; a run that was finished twice has two."""
    steps = [line["exported_step"] for line in run.lines("events.jsonl") if line.get("exported_step") is not None]
    return int(steps[-1]) if steps else None


def read_alarm_prompts(run: RunDir) -> int | None:
    """How many held-out prompts the alarm looked at; None: all."""
    config = yaml.safe_load(run.file("config.yaml").read_text()) if run.file("config.yaml").exists() else {}
    on_alarm = ((config or {}).get("monitor") or {}).get("on_alarm") or {}
    count: int | None = on_alarm.get("alarm_prompts")
    return count


def read_optional(run: RunDir, name: str) -> Any:
    return run.read_json(name) if run.file(name).exists() else None
