"""Gathers the pieces of a run directory and writes them as one HTML page.

The page asks nobody for anything: Plotly is inside it, fonts are the reader's
own, and its content policy lets two scripts run, by their hash, and forbids
every request. Texts come from models and from files, so the template escapes
all of them; even one that slipped through could neither run nor phone home.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from potstill.diagnosis import diagnose, read_curves
from potstill.records import Curve, Verdict
from potstill.report import figures
from potstill.report.numbers import before_after, column, reported
from potstill.run_dir import RunDir, RunDirError

MOST_SAMPLES = 24  # prompts shown; the rest stay in samples.jsonl


@dataclass(frozen=True, slots=True)
class Figure:
    """A drawn figure with the words around it."""

    id: str
    title: str
    caption: str
    height: int
    data: Markup  # JSON that cannot close its script element


@dataclass(frozen=True, slots=True)
class Sample:
    """Everybody's answer to one prompt, with whose it is."""

    prompt_id: str
    prompt: str
    answers: tuple[tuple[str, str], ...]


def write_report(run_path: str | Path) -> Path:
    """Write `report.html` into a run directory; pieces that are missing are named as missing."""
    run = RunDir(run_path)
    if not any(run.file(name).exists() for name in ("config.yaml", "metrics.jsonl", "evaluations")):
        raise RunDirError(
            f"{run.path} is not a run directory: it holds none of config.yaml, metrics.jsonl and "
            "evaluations/. Give the folder that `potstill run` wrote (its `output`)."
        )
    return run.write_text("report.html", render(run))


def render(run: RunDir) -> str:
    """The page as text."""
    verdict = read_verdict(run)
    curves = {name: reported(curve) for name, curve in read_curves(run.path).items()}
    samples = side_by_side(run.lines("samples.jsonl"))
    facts = {
        "name": run.path.resolve().name,
        "verdict": verdict,
        "rows": [before_after(curve, verdict.best_step) for curve in curves.values()],
        "steps": sorted({int(step) for curve in curves.values() for step in curve.steps}),
        "prompts": describe_prompts(curves),
        "plane": draw_plane(curves, verdict.best_step),
        "panels": draw_panels(curves, list(run.lines("metrics.jsonl")), verdict.best_step),
        "samples": samples[:MOST_SAMPLES],
        "samples_left_out": max(0, len(samples) - MOST_SAMPLES),
        "provenance": read_optional(run, "provenance.json"),
        "environment": read_optional(run, "environment.json"),
        "config": run.file("config.yaml").read_text() if run.file("config.yaml").exists() else None,
    }
    page = fill_template(facts)
    # A model's text may hold half of a surrogate pair, which no UTF-8 file can.
    return page.encode("utf-8", errors="replace").decode()


def read_verdict(run: RunDir) -> Verdict:
    """The verdict that the run ended with, or a fresh one."""
    stored = read_optional(run, "verdict.json")
    return diagnose(run.path) if stored is None else Verdict(**stored)


def read_optional(run: RunDir, name: str) -> Any:
    return run.read_json(name) if run.file(name).exists() else None


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
    shade = "The band is the 95 % interval over prompts."
    panels = []
    proxies = [curve for name, curve in curves.items() if name != "golden"]
    if proxies:
        words = f"Distance from the teacher on held-out prompts. {shade}"
        panels.append(_figure("proxy", "Proxy", words, figures.curves(proxies, best_step)))
    if "golden" in curves:
        words = f"The signal that is not the teacher's. Dashed: where perfect imitation ends. {shade}"
        panels.append(_figure("golden", "Golden", words, figures.curves([curves["golden"]], best_step)))
    if column(metrics, "loss")[0].size:
        words = "On the batches that the student learns from."
        panels.append(_figure("loss", "Training loss", words, figures.training_loss(metrics)))
    if column(metrics, "learning_rate")[0].size or column(metrics, "grad_norm")[0].size:
        words = "The gradient's norm is taken before clipping."
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


def fill_template(facts: Mapping[str, Any]) -> str:
    folder = resources.files("potstill.report")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["nats"] = nats
    environment.filters["plain"] = plain
    template = environment.from_string((folder / "page.html.j2").read_text())
    # The parser of HTML turns every kind of line end into \n before it hashes.
    scripts = [text.replace("\r\n", "\n") for text in (get_plotlyjs(), (folder / "page.js").read_text())]
    return template.render(
        facts,
        css=Markup((folder / "page.css").read_text()),
        plotly_js=Markup(scripts[0]),
        page_js=Markup(scripts[1]),
        hashes=" ".join(f"'sha256-{_hash(script)}'" for script in scripts),
    )


def nats(value: float) -> str:
    """Three decimals, more for small numbers, and a minus sign of full width."""
    text = f"{value:.3f}" if abs(value) >= 0.01 or value == 0 else f"{value:.2g}"
    return text.replace("-", "\N{MINUS SIGN}")


def plain(value: Any) -> str:
    """One JSON value, or a short flat list of them, for people."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{value:.4g}".replace("-", "\N{MINUS SIGN}")
    if isinstance(value, list | tuple):
        return "[" + ", ".join(plain(item) for item in value) + "]"
    return str(value)


def _figure(name: str, title: str, caption: str, drawn: go.Figure) -> Figure:
    data = drawn.to_json().replace("<", "\\u003c")
    return Figure(name, title, caption, int(drawn.layout.height), Markup(data))


def _hash(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
