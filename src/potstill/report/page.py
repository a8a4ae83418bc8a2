"""Gathers the pieces of a run directory and writes them as one HTML page.

The page asks nobody for anything: Plotly is inside it, fonts are the reader's
own, and its content policy lets two scripts run, by their hash, and forbids
every request. Texts come from models and from files, so the template escapes
all of them; even one that slipped through could neither run nor phone home.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from plotly.offline import get_plotlyjs

from potstill.diagnosis import diagnose, judge, read_curves, remedies
from potstill.records import Curve, Verdict
from potstill.report.numbers import LABELS, reported
from potstill.report.sections import compare, describe_prompts, draw_panels, draw_plane, side_by_side
from potstill.run_dir import RunDir, RunDirError

MOST_SAMPLES = 24  # prompts shown; the rest stay in samples.jsonl


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
    measured = read_curves(run.path) if run.evaluations() else {}
    verdict = read_verdict(run, measured)
    shown = {name: reported(measured[name]) for name in LABELS if name in measured}
    curves = {name: curve for name, curve in shown.items() if curve.steps.size}
    samples = side_by_side(run.lines("samples.jsonl"))
    best_step = None if verdict.verdict == "inconclusive" else verdict.best_step  # it claims nothing
    opening, _, rest = verdict.sentence.partition(". ")
    facts = {
        "name": run.path.resolve().name,
        "verdict": verdict,
        "opening": opening + "." if rest else opening,
        "rest": rest,
        "remedies": remedies(verdict),
        "best_step": best_step,
        "confidence": "> 0.99" if verdict.confidence > 0.995 else f"{verdict.confidence:.2f}",
        "rows": compare(curves, best_step, str(verdict.evidence.get("golden_kind"))),
        "steps": sorted({int(step) for curve in curves.values() for step in curve.steps}),
        "prompts": describe_prompts(curves),
        "plane": draw_plane(curves, best_step),
        "panels": draw_panels(curves, list(run.lines("metrics.jsonl")), best_step),
        "samples": samples[:MOST_SAMPLES],
        "samples_left_out": max(0, len(samples) - MOST_SAMPLES),
        "provenance": read_optional(run, "provenance.json"),
        "environment": read_optional(run, "environment.json"),
        "config": run.file("config.yaml").read_text() if run.file("config.yaml").exists() else None,
    }
    page = fill_template(facts)
    # A model's text may hold half of a surrogate pair, which no UTF-8 file can.
    return page.encode("utf-8", errors="replace").decode()


def read_verdict(run: RunDir, curves: Mapping[str, Curve]) -> Verdict:
    """The verdict that the run ended with, or a fresh one."""
    stored = read_optional(run, "verdict.json")
    if stored is not None:
        return Verdict(**stored)
    return diagnose(run.path) if curves else judge({})


def read_optional(run: RunDir, name: str) -> Any:
    return run.read_json(name) if run.file(name).exists() else None


def fill_template(facts: Mapping[str, Any]) -> str:
    folder = resources.files("potstill.report")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["nats"] = nats
    environment.filters["plain"] = plain
    template = environment.from_string((folder / "page.html.j2").read_text())
    # The parser of HTML turns every kind of line end into \n before it hashes.
    scripts = [text.replace("\r\n", "\n") for text in (get_plotlyjs(), (folder / "page.js").read_text())]
    return template.render(
        facts,
        css=(folder / "page.css").read_text(),
        plotly_js=scripts[0],
        page_js=scripts[1],
        hashes=" ".join(f"'sha256-{_hash(script)}'" for script in scripts),
    )


def nats(value: float) -> str:
    """Three decimals, more for small numbers, and a minus sign of full width."""
    if not math.isfinite(value):
        return "not finite"
    text = f"{value:.3f}" if abs(value) >= 0.01 or value == 0 else f"{value:.2g}"
    return text.replace("-", "\N{MINUS SIGN}")


def plain(value: Any) -> str:
    """One JSON value, or a short flat list of them, for people."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or value in ([], {}):
        return "\N{EN DASH}"
    if isinstance(value, float):
        return f"{value:.4g}".replace("-", "\N{MINUS SIGN}")
    if isinstance(value, list | tuple):
        return "[" + ", ".join(plain(item) for item in value) + "]"
    return str(value)


def _hash(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
