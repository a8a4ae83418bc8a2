"""What a run's diary says of its alarms: when one came, what was refused, what was done, and what that cost.

The diary is never cut. A run that was killed and went on says things twice, and may say
things of steps that it did not come to again. So the last word on a step counts, and
an alarm counts only where its evaluation still stands.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from potstill.diagnosis.plans import plan_changes
from potstill.report.feeding import describe_feeding
from potstill.run_dir import RunDir


@dataclass(frozen=True, slots=True)
class Alarm:
    """One alarm and its answer. Without an action nothing was done; `ended`: the run ended there."""

    step: int
    verdict: str
    sentence: str = ""
    confidence: float | None = None
    without_oracle: bool = False
    refused: tuple[tuple[str, str], ...] = ()  # action, why
    action: str | None = None
    why: str = ""
    changes: tuple[str, ...] = ()  # of the data plan, in words
    completions: int = 0  # that the remedy had sampled, or will have by the last step
    rows: int = 0  # that the run trained on, as far as its metrics say
    ended: bool = False
    again: tuple[int, ...] = ()  # later alarms that were refused the same

    @property
    def words(self) -> str:
        return self.verdict.replace("_", " ")

    @property
    def done(self) -> str:
        """The answer in a few words."""
        if self.action is not None:
            return self.action.replace("_", " ")
        return "the run ended" if self.ended else "nothing was done"

    @property
    def cost(self) -> str:
        """Completions, and how many that is beside the rows of training."""
        if not self.completions:
            return "no new completions"
        said = f"{self.completions:,} completions"
        if self.rows:
            said += f", {100 * self.completions / self.rows:.3g} % of the {self.rows:,} rows that the run trained on"
        return said

    @property
    def kept(self) -> str:
        """Confidence for people; the same words as on the verdict."""
        if self.confidence is None:
            return ""
        return "> 0.99" if self.confidence > 0.995 else f"{self.confidence:.2f}"


def read_alarms(run: RunDir) -> tuple[Alarm, ...]:
    """Every alarm that the run answered or could not answer, by step."""
    found, plans = _by_step(run.lines("events.jsonl"))
    steps = run.evaluation_steps()
    kept = [found[step] for step in sorted(found) if step in steps]
    rows = sum(one.rows for one in describe_feeding(run.lines("metrics.jsonl"))) if kept else 0
    told = [_told(events, plans, steps[-1], rows) for events in kept]
    return _without_repeats(told)


Told = dict[str, Any]  # its step, refusals by action, and the last line of every other kind of event


def _by_step(lines: Iterable[Mapping[str, Any]]) -> tuple[dict[int, Told], dict[int, Mapping[str, Any]]]:
    """The last word on each step, and on each version of the data plan."""
    found: dict[int, Told] = {}
    plans: dict[int, Mapping[str, Any]] = {}
    for line in lines:
        event = line.get("event")
        if event == "data plan":
            plans[int(line["version"])] = line
        if event not in ("alarm", "remedy refused", "remedy", "stopped by verdict"):
            continue
        step = int(line["step"])
        if event == "alarm":  # what was said of this step before is taken back
            found[step] = {"step": step, "refused": {}}
        one = found.setdefault(step, {"step": step, "refused": {}})
        if event == "remedy refused":
            one["refused"][str(line["action"])] = str(line["why"])
        else:
            one[event] = line
    return found, plans


def _told(events: Told, plans: Mapping[int, Mapping[str, Any]], last_step: int, rows: int) -> Alarm:
    remedy, stopped = events.get("remedy"), events.get("stopped by verdict")
    said = events.get("alarm") or stopped or {}  # a run with stop_on writes no alarm before it ends
    plan = (remedy or {}).get("plan")
    return Alarm(
        step=events["step"],
        verdict=str(said.get("verdict", "alarm")),
        sentence=str(said.get("sentence", "")),
        confidence=said.get("confidence"),
        without_oracle=bool(said.get("without_oracle", False)),
        refused=tuple(events["refused"].items()),
        action=None if remedy is None else str(remedy["action"]),
        why="" if remedy is None else str(remedy["why"]),
        changes=() if plan is None else plan_changes(plans.get(int(plan["version"]) - 1), plan),
        completions=0 if remedy is None else int(remedy.get("completions", 0)),
        rows=rows,
        ended=events["step"] == last_step and (stopped is not None or (remedy is not None and plan is None)),
    )


def _without_repeats(told: Sequence[Alarm]) -> tuple[Alarm, ...]:
    """An alarm that nothing could be done about comes again at every evaluation: one entry for all of them."""
    kept: list[Alarm] = []
    for alarm in told:
        idle = alarm.action is None and not alarm.ended
        last = kept[-1] if kept else None
        if idle and last is not None and last.action is None and not last.ended and last.refused == alarm.refused:
            kept[-1] = replace(last, again=(*last.again, alarm.step))
        else:
            kept.append(alarm)
    return tuple(kept)
