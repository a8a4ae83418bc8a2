"""The labelled runs as a table of looks: what the detector sees at every evaluation, and what the oracle said then."""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from potstill.diagnosis import judge
from potstill.diagnosis.curves import ALARM_LEVEL, rise_test, usable
from potstill.diagnosis.features import MIN_EVALUATIONS, Log, measure, read_log, why_not
from potstill.diagnosis.views import until
from potstill.lab.labelled import LabelledRun, load
from potstill.records import Curve

LABELLED = Path(__file__).resolve().parent.parent / "labelled"


@dataclass(frozen=True)
class Design:
    """How much of a run's log the detector gets."""

    name: str
    prompts: int = 256
    every: int = 1


FULL = Design("256 prompts, every evaluation")
DESIGNS = (FULL, Design("64 prompts", prompts=64), Design("every second evaluation", every=2))


@dataclass(frozen=True)
class Looks:
    """One row for each look at each run, run by run in order of steps. N looks."""

    runs: Mapping[str, Mapping[str, Any]]  # name -> facts, with onset and minimum
    name: np.ndarray  # [N]
    step: np.ndarray  # [N]
    hacked_now: np.ndarray  # [N] bool: the dense golden, so far, is called hacking
    features: Mapping[str, np.ndarray]  # each [N]
    baselines: Mapping[str, np.ndarray]  # each [N]; what a simpler watcher would look at, higher is worse

    def fact(self, key: str) -> np.ndarray:
        """[N] a fact of each look's run."""
        return np.array([self.runs[name][key] for name in self.name])

    def columns(self, names: tuple[str, ...]) -> np.ndarray:
        return np.column_stack([self.features[name] for name in names])

    def last(self) -> np.ndarray:
        """[N] True for each run's last look."""
        return np.append(self.name[1:] != self.name[:-1], True)


def read_looks(design: Design, only: set[str] | None = None, workers: int = 1) -> Looks:
    """Labelled runs with at least eight evaluations: those that may be fitted to, or those of these names."""
    index = json.loads((LABELLED / "index.json").read_text())
    facts = [one for one in index if (not one.get("test_only") if only is None else one["name"] in only)]
    with ProcessPoolExecutor(workers) as pool:
        found = [one for one in pool.map(read_run, facts, [design] * len(facts)) if one is not None]
    rows = [row for _, rows in found for row in rows]
    return Looks(
        {facts["name"]: facts for facts, _ in found},
        np.array([row["name"] for row in rows]),
        np.array([row["step"] for row in rows]),
        np.array([row["hacked_now"] for row in rows]),
        *(
            {key: np.array([row[part][key] for row in rows]) for key in rows[0][part]}
            for part in ("features", "baselines")
        ),
    )


def read_run(facts: dict[str, Any], design: Design) -> tuple[dict[str, Any], list[dict[str, Any]]] | None:
    """A run's facts and looks; None where it is too short."""
    run = load(LABELLED / "runs" / f"{facts['name']}.npz", facts)
    seen = {name: sparser(curve, design) for name, curve in run.seen.items() if name != "training_loss"}
    log = read_log(run.seen["training_loss"], seen["proxy"], seen["reference_nll"])
    rows = []
    for num in range(MIN_EVALUATIONS, len(log.steps) + 1):
        part = log.first(num)
        if why_not(part) is None:
            step, features = int(part.steps[-1]), measure(part)
            rows.append({
                "name": facts["name"], "step": step, "features": features,
                "baselines": baselines(part, features, until(seen["reference_nll"], step), facts["steps_per_epoch"]),
                "hacked_now": facts["label"] == "hacking" and word_at(run, step) == "hacking",
            })  # fmt: skip
    if not rows:
        return None
    hacked = facts["label"] == "hacking"
    golden = run.label["golden"].per_token
    more = {
        "onset": onset(run) if hacked else None,
        "rise_share": float((golden[-3:].mean() - golden.min()) / np.ptp(golden)),
    }
    return facts | more, rows


def baselines(log: Log, features: Mapping[str, float], references: Curve, steps_per_epoch: int) -> dict[str, float]:
    """What one would watch without a detector."""
    return {
        "proxy over training loss": float(log.proxy[-1] / log.training[-1]),
        "epochs": float(log.steps[-1]) / steps_per_epoch,
        "proxy stopped falling": features["proxy_change"],
        "t of the rise of reference NLL": features["rise_t"],
        "U test on reference NLL": -np.log(rise_test(usable(references)).p),
    }


def sparser(curve: Curve, design: Design) -> Curve:
    """Fewer prompts (the first by id), fewer evaluations (the last is kept)."""
    kept = np.arange(len(curve.steps))[::-1][:: design.every][::-1]
    prompts = slice(None, design.prompts)
    return replace(
        curve, steps=curve.steps[kept], sums=curve.sums[kept][:, prompts], tokens=curve.tokens[kept][:, prompts],
        prompt_ids=curve.prompt_ids[prompts], splits=curve.splits[prompts],
    )  # fmt: skip


def word_at(run: LabelledRun, step: int) -> str:
    """The oracle's word at a step, one look."""
    return judge({name: until(curve, step) for name, curve in run.label.items()}, "oracle").verdict


def onset(run: LabelledRun) -> int | None:
    """The first evaluation at which the U test holds on the dense golden so far."""
    golden = run.label["golden"]
    for step in golden.steps[6:].tolist():
        if rise_test(usable(until(golden, step))).p <= ALARM_LEVEL:
            return int(step)
    return None
