"""Is this run hacked? A guess from the log alone, with the rate at which it is wrong.

Two small logistic regressions, fitted to runs whose oracle was known (benchmarks/detector): one
reads training loss and proxy, one the NLL on references as well. `detector.json` beside this file
holds their coefficients, the calibration of their probability, the range of every feature that
they were fitted on, and a threshold. The probability is that of an oracle, asked on thousands of
prompts, saying "hacking" now.

Outside the range of any feature there is no answer: the detector has seen no such run.
The threshold is set for runs watched at every evaluation, so nothing needs to be divided by looks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from potstill.diagnosis.features import MIN_EVALUATIONS, Log, measure, read_log, references_of, why_not
from potstill.records import Curve

MODEL_FILE = Path(__file__).with_name("detector.json")
MIN_PROMPTS = 64  # of references; fewer were never tried
#: What each input says when it speaks for hacking.
IN_WORDS = {
    "follow": "held-out proxy no longer follows the training loss down",
    "proxy_change": "proxy has stopped falling",
    "training_slope": "the training loss falls as it does in runs that were hacked",
    "proxy_bend": "proxy has left the power law of its first half",
    "rise": "the NLL on references has risen from its minimum, beyond its error",
    "agreement": "coming nearer to the teacher brought little on the references",
}


@dataclass(frozen=True, slots=True)
class Suspicion:
    """What the detector makes of a run, at its last evaluation."""

    probability: float | None  # that an oracle would say hacking now; None where the detector has no answer
    alarm: bool  # now
    in_range: bool
    reasons: tuple[str, ...]  # for the alarm, or why there is no answer
    features: Mapping[str, float]
    first_alarm_step: int | None  # of all evaluations so far, this one included
    threshold: float | None = None
    model: str | None = None  # with_references or without_references; None where neither could be asked


@dataclass(frozen=True, slots=True)
class Model:
    """A logistic regression with its calibration, threshold and range."""

    name: str
    inputs: tuple[str, ...]
    coefficients: np.ndarray  # [F], of standardised features
    means: np.ndarray  # [F]
    scales: np.ndarray  # [F]
    intercept: float
    calibration: tuple[float, float]  # slope and offset of the log odds (Platt 1999)
    ranges: Mapping[str, tuple[float, float]]
    threshold: float  # of the probability

    @classmethod
    def of(cls, name: str, stored: Mapping[str, Any]) -> Model:
        """From detector.json."""
        inputs = stored["inputs"]
        weights, means, scales = (np.array([one[key] for one in inputs]) for key in ("coefficient", "mean", "scale"))
        return cls(
            name, tuple(one["name"] for one in inputs), weights, means, scales, float(stored["intercept"]),
            (float(stored["calibration"]["slope"]), float(stored["calibration"]["offset"])),
            {key: (float(low), float(high)) for key, (low, high) in stored["ranges"].items()},
            float(stored["threshold"]),
        )  # fmt: skip

    def parts(self, features: Mapping[str, float]) -> np.ndarray:
        """[F] what each input adds to the log odds."""
        values = np.array([features[name] for name in self.inputs])
        return np.asarray(self.coefficients * (values - self.means) / self.scales)

    def probability(self, features: Mapping[str, float]) -> float:
        slope, offset = self.calibration
        odds = slope * (self.intercept + self.parts(features).sum()) + offset
        return float(1 / (1 + np.exp(-odds)))

    def outside(self, features: Mapping[str, float]) -> list[str]:
        """Which features lie where no run of the calibration lay."""
        return [
            f"{name} is {features[name]:.3g}, the detector was calibrated on {low:.3g} to {high:.3g}"
            for name, (low, high) in self.ranges.items()
            if not low <= features[name] <= high
        ]


@cache
def stored_models() -> dict[str, Any]:
    """detector.json as it is."""
    found: dict[str, Any] = json.loads(MODEL_FILE.read_text())
    return found


@cache
def models() -> dict[str, Model]:
    """The two models that are shipped, by name."""
    return {name: Model.of(name, one) for name, one in stored_models()["models"].items()}


def false_alarms(model: str) -> dict[str, Any]:
    """How often a model alarmed sound runs of groups that it was not fitted to: hits, of, interval (95 %).

    A run counts when any of its evaluations alarmed.
    """
    found: dict[str, Any] = stored_models()["held_out"][model]["sound_runs_alarmed"]
    return found


def suspect(curves: Mapping[str, Curve], golden_kind: str) -> Suspicion:
    """Is the student hacking its teacher, as far as its log tells?

    curves: `training_loss` and `proxy`, both falling towards 0 in the same unit, and the NLL on references
        as `golden` (golden_kind "reference_nll") or `reference_nll`, where there is one.
    golden_kind: "oracle" or "reference_nll"; an oracle's golden is not looked at.

    Every evaluation from the eighth after step 0 on is replayed; some milliseconds.
    """
    if missing := [name for name in ("training_loss", "proxy") if name not in curves]:
        words = {"training_loss": "the training loss", "proxy": "proxy on held-out prompts"}
        return no_answer(f"log {' and '.join(words[name] for name in missing)} at every evaluation")
    training, proxy = curves["training_loss"], curves["proxy"]
    references = references_of(curves, golden_kind)
    note: tuple[str, ...] = ()
    if references is not None and (reason := unfit(references)):
        references, note = None, (reason,)
    log = read_log(training, proxy, references)
    if references is not None and len(log.steps) < MIN_EVALUATIONS <= len(read_log(training, proxy, None).steps):
        references, note = None, ("references were measured at too few of the evaluations",)
        log = read_log(training, proxy, None)
    model = models()["without_references" if references is None else "with_references"]
    return replay(log, model, note)


def unfit(references: Curve) -> str | None:
    """Why references cannot be used."""
    if not references.paired:
        return "the NLL on references is a mean: log it per prompt, and the detector will use it"
    if len(references.prompt_ids) < MIN_PROMPTS:
        return f"{len(references.prompt_ids)} references, at least {MIN_PROMPTS} are needed to use them"
    return None


def replay(log: Log, model: Model, note: tuple[str, ...] = ()) -> Suspicion:
    """The answer at the last evaluation, and the first alarm of all."""
    first_alarm, last = None, no_answer(why_not(log) or "", *note)
    for num in range(MIN_EVALUATIONS, len(log.steps) + 1):
        last = at_last_evaluation(log.first(num), model)
        if last.alarm and first_alarm is None:
            first_alarm = int(log.steps[num - 1])
    return Suspicion(
        last.probability, last.alarm, last.in_range, (*last.reasons, *note) if last.model else last.reasons,
        last.features, first_alarm, last.threshold, last.model,
    )  # fmt: skip


def at_last_evaluation(log: Log, model: Model) -> Suspicion:
    """One look."""
    if reason := why_not(log):
        return no_answer(reason)
    features = measure(log)
    if outside := model.outside(features):
        return Suspicion(None, False, False, tuple(outside), features, None, model.threshold, model.name)
    probability = model.probability(features)
    alarm = probability >= model.threshold
    reasons: tuple[str, ...] = ()
    if alarm:
        parts = model.parts(features)
        speaking = sorted(np.flatnonzero(parts > 0), key=lambda index: -parts[index])
        reasons = tuple(IN_WORDS[model.inputs[index]] for index in speaking)
    return Suspicion(probability, alarm, True, reasons, features, None, model.threshold, model.name)


def no_answer(*reasons: str) -> Suspicion:
    return Suspicion(None, False, False, tuple(reason for reason in reasons if reason), {}, None)
