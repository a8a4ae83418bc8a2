"""The parts of the page: the table, the figures with their captions, the samples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import plotly.graph_objects as go

import potstill.report.figures as figures
from potstill.records import Curve
from potstill.report.numbers import Row, band, before_after, column

GOLDEN = {
    "oracle": "distance to the oracle",
    "reference_nll": "NLL of references that the teacher did not write",
}


@dataclass(frozen=True, slots=True)
class Figure:
    """A drawn figure with the words around it."""

    id: str
    title: str
    caption: str
    height: int
    data: str  # JSON that cannot close its script element


@dataclass(frozen=True, slots=True)
class Sample:
    """Everybody's answer to one prompt, with whose it is."""

    prompt_id: str
    prompt: str
    answers: tuple[tuple[str, str], ...]


def compare(curves: Mapping[str, Curve], best_step: int | None, golden_kind: str) -> list[Row]:
    """The table's rows; golden's says against what it was measured."""
    rows = {name: before_after(curve, best_step) for name, curve in curves.items()}
    if "golden" in rows and golden_kind in GOLDEN:
        rows["golden"] = replace(rows["golden"], meaning=GOLDEN[golden_kind])
    return list(rows.values())


def describe_prompts(curves: Mapping[str, Curve]) -> str:
    """Which prompts the numbers come from, in words."""
    if not curves:
        return ""
    curve = next(iter(curves.values()))
    if not curve.paired:
        return "means only, unpaired: weak"
    names = {str(name) for name in curve.splits}
    return f"{curve.prompt_ids.size} {names.pop() if len(names) == 1 else 'held-out'} prompts"


def draw_plane(curves: Mapping[str, Curve], best_step: int | None) -> Figure | None:
    if not {"proxy", "golden"} <= set(curves):
        return None
    caption = (
        "One point per evaluation, coloured by time. A student that learns the task moves left and down. "
        "One that goes on to the left but turns upwards gets closer to its teacher and further from the task."
    )
    drawn = figures.plane(curves["proxy"], curves["golden"], best_step)
    return _figure("plane", "", caption, drawn)


def draw_panels(
    curves: Mapping[str, Curve], metrics: Sequence[Mapping[str, Any]], best_step: int | None
) -> list[Figure]:
    """The small figures over steps; one without data is left out."""
    banded = any(band(curve) is not None for curve in curves.values())
    shade = "The band is the 95 % interval over prompts." if banded else "Its error over prompts is not known."
    panels = []
    proxies = [curves[name] for name in ("proxy", "proxy_fkl") if name in curves]
    if proxies:
        words = f"Distance from the teacher on held-out prompts. {shade}"
        panels.append(_figure("proxy", "Proxy", words, figures.curves(proxies, best_step)))
    if "golden" in curves:
        words = f"The signal that is not the teacher's. Dashed: where perfect imitation ends. {shade}"
        panels.append(_figure("golden", "Golden", words, figures.curves([curves["golden"]], best_step)))
    if "verifier_failure" in curves:
        words = f"How many of the student's answers fail the verifier. {shade}"
        drawn = figures.curves([curves["verifier_failure"]], best_step, unit="share of answers")
        panels.append(_figure("verifier", "Verifier", words, drawn))
    if column(metrics, "loss")[0].size:
        words = "On the batches that the student learns from."
        panels.append(_figure("loss", "Training loss", words, figures.training_loss(metrics)))
    if column(metrics, "learning_rate")[0].size or column(metrics, "grad_norm")[0].size:
        words = "What the schedule gave, and the norm of the whole gradient."
        panels.append(_figure("schedule", "Learning rate and gradient", words, figures.schedule(metrics)))
    return panels


def side_by_side(lines: Iterable[Mapping[str, Any]]) -> list[Sample]:
    """Per prompt: the student's first and last answer, the teacher's, the reference."""
    by_prompt: dict[str, list[Mapping[str, Any]]] = {}
    for line in lines:
        by_prompt.setdefault(str(line["prompt_id"]), []).append(line)
    samples = []
    for prompt_id, found in by_prompt.items():
        found.sort(key=lambda line: line["step"])
        ends = found[:1] if len(found) == 1 else [found[0], found[-1]]
        answers = [(f"student, step {line['step']}", str(line["student"])) for line in ends]
        others = [(whose, ends[-1].get(whose)) for whose in ("teacher", "reference")]
        answers += [(whose, str(text)) for whose, text in others if text is not None]
        samples.append(Sample(prompt_id, str(ends[-1]["prompt"]), tuple(answers)))
    return samples


def _figure(name: str, title: str, caption: str, drawn: go.Figure) -> Figure:
    data = drawn.to_json().replace("<", "\\u003c")
    return Figure(name, title, caption, int(drawn.layout.height), data)
