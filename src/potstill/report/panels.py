"""The figures of one run's page, with the words around them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import plotly.graph_objects as go

import potstill.report.figures as figures
from potstill.records import Curve
from potstill.report.marks import Mark, legend, over_steps
from potstill.report.numbers import band, column, columns
from potstill.report.zoom import enlarged

NOT_NATS = ("total_variation", "logit_mse")  # a probability, and squared logits
MIXED = "the objective's own unit"


@dataclass(frozen=True, slots=True)
class Figure:
    """A drawn figure with the words around it."""

    id: str
    title: str
    caption: str
    height: int
    data: str  # JSON that cannot close its script element


def framed(name: str, title: str, caption: str, drawn: go.Figure) -> Figure:
    """A figure with its words, as JSON for the page."""
    data = drawn.to_json().replace("<", "\\u003c")
    return Figure(name, title, caption, int(drawn.layout.height), data)


def unit_of(metrics: Sequence[Mapping[str, Any]]) -> str:
    """What the loss, and proxy with it, is measured in."""
    return MIXED if any(name.startswith(NOT_NATS) for name in columns(metrics, "term/")) else "nats"


def draw_planes(
    curves: Mapping[str, Curve], best_step: int | None, unit: str = "nats", alarms: Sequence[Mark] = ()
) -> list[Figure]:
    """The whole path, and its late part enlarged where the beginning takes all the room."""
    if not {"proxy", "golden"} <= set(curves):
        return []
    caption = (
        "One point per evaluation, coloured by time. A student that learns the task moves left and down. "
        "One that goes on to the left but turns upwards gets closer to its teacher and further from the task."
    ) + (" A diamond: an alarm." if alarms else "")
    late = enlarged([curves], ("proxy", "golden"))
    title = "The whole run" if late else ""
    whole = figures.plane(curves["proxy"], curves["golden"], best_step, unit, alarms, name_alarms=late is None)
    planes = [framed("plane", title, caption, whole)]
    if late:
        title = f"From step {late[0]['proxy'].steps[0]} on"
        drawn = figures.plane(late[0]["proxy"], late[0]["golden"], best_step, unit, alarms)
        planes.append(framed("plane-late", title, f"The same points, enlarged. {outside([curves], late)}", drawn))
    return planes


def outside(whole: Sequence[Mapping[str, Curve]], late: Sequence[Mapping[str, Curve]]) -> str:
    """A word on the teacher's line where an enlarged plane has no room for it."""
    had, has = (any(c.teacher is not None for curves in runs for c in curves.values()) for runs in (whole, late))
    return "The teacher's own golden lies outside." if had and not has else ""


def draw_panels(
    curves: Mapping[str, Curve],
    metrics: Sequence[Mapping[str, Any]],
    best_step: int | None,
    alarms: Sequence[Mark] = (),
) -> list[Figure]:
    """The small figures over steps; one without data is left out."""
    banded = any(band(curve) is not None for curve in curves.values())
    shade = "The band is the 95 % interval over prompts." if banded else "Its error over prompts is not known."
    if best_step is not None:
        shade += f" Dotted: the best step, {best_step}."
    shade += legend(alarms)
    panels = []
    proxies = [curves[name] for name in ("proxy", "proxy_fkl") if name in curves]
    if proxies:
        words, unit = f"Distance from the teacher on held-out prompts. {shade}", figures.per_token(unit_of(metrics))
        panels.append(framed("proxy", "Proxy", words, over_steps(figures.curves(proxies, best_step, unit), alarms)))
    if "golden" in curves:
        dashed = "" if curves["golden"].teacher is None else " Dashed: where perfect imitation ends."
        words = f"The signal that is not the teacher's.{dashed} {shade}"
        panels.append(
            framed("golden", "Golden", words, over_steps(figures.curves([curves["golden"]], best_step), alarms))
        )
    panels += draw_sequences(curves, best_step, shade, alarms)
    if "verifier_failure" in curves:
        words = f"How many of the student's answers fail the verifier. {shade}"
        drawn = figures.curves([curves["verifier_failure"]], best_step, unit="share of answers")
        panels.append(framed("verifier", "Verifier", words, over_steps(drawn, alarms)))
    return panels + draw_training(metrics, alarms)


def draw_sequences(
    curves: Mapping[str, Curve], best_step: int | None, shade: str, alarms: Sequence[Mark]
) -> list[Figure]:
    """Reverse KL and Jensen-Shannon, of whole completions, where the monitor sampled the student for them."""
    panels = []
    for kind, title, words in (
        ("rkl", "Reverse KL", "How little of what the student says the frozen models would say, on its own samples."),
        ("js", "Jensen-Shannon", "Between the laws of whole completions; at log 2 = 0.693 nothing is in common."),
    ):
        found = [curves[name] for name in (f"proxy_{kind}", f"golden_{kind}") if name in curves]
        whole = [replace(curve, tokens=np.ones_like(curve.tokens)) for curve in found]
        if whole:
            drawn = figures.curves(whole, best_step, "nats per completion")
            panels.append(framed(f"sequence-{kind}", title, f"{words} {shade}", over_steps(drawn, alarms)))
    return panels


def draw_training(metrics: Sequence[Mapping[str, Any]], alarms: Sequence[Mark] = ()) -> list[Figure]:
    """What the steps of training logged: loss, terms and their weights, schedule and gradient."""
    panels, unit = [], unit_of(metrics)
    if column(metrics, "loss")[0].size:
        words = "The objective on the batches that the student learns from, divided as objective.normalise says."
        words += legend(alarms)
        panels.append(framed("loss", "Training loss", words, over_steps(figures.training_loss(metrics, unit), alarms)))
    terms, weights = columns(metrics, "term/"), columns(metrics, "weight/")
    moving = {name: series for name, series in weights.items() if np.ptp(series[1]) > 0}
    if len(terms) > 1 or moving:
        words = "Each term before its weight, divided like the loss: the loss is the sum of weight times term."
        words += " Below: the weights that the schedule moves." if moving else ""
        panels.append(framed("terms", "Terms of the loss", words, figures.terms(terms, moving, unit)))
    if column(metrics, "learning_rate")[0].size or column(metrics, "grad_norm")[0].size:
        words = "What the schedule gave, and the norm of the whole gradient."
        panels.append(framed("schedule", "Learning rate and gradient", words, figures.schedule(metrics)))
    return panels
