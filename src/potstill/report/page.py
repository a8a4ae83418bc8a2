"""One run's page: gathers the pieces of a run directory and writes `report.html`."""

from __future__ import annotations

from pathlib import Path

from potstill.diagnosis import remedies
from potstill.report.alarm_words import findings
from potstill.report.feeding import describe_benchmark, describe_feeding
from potstill.report.marks import marks_of
from potstill.report.panels import draw_panels, draw_planes, unit_of
from potstill.report.reading import read, read_optional
from potstill.report.sections import compare, describe_prompts, describe_variety, side_by_side
from potstill.report.template import fill
from potstill.run_dir import RunDir, RunDirError, write_atomic

MOST_SAMPLES = 24  # prompts shown; the rest stay in samples.jsonl


def write_report(run_path: str | Path, output: str | Path | None = None) -> Path:
    """Write a run's page to `output`, or to `report.html` in the run; missing pieces are named as missing."""
    run = RunDir(run_path)
    require_run(run)
    path = run.file("report.html") if output is None else Path(output)
    return write_atomic(path, render(run).encode())


def require_run(run: RunDir) -> None:
    """Refuse a folder that no run wrote."""
    if not any(run.file(name).exists() for name in ("config.yaml", "metrics.jsonl", "evaluations")):
        raise RunDirError(
            f"{run.path} is not a run directory: it holds none of config.yaml, metrics.jsonl and "
            "evaluations/. Give the folder that `potstill run` wrote (its `output`)."
        )


def render(run: RunDir) -> str:
    """The page as text."""
    found = read(run)
    metrics = list(run.lines("metrics.jsonl"))
    unit = unit_of(metrics)
    marks = marks_of(found.alarms)
    provenance = read_optional(run, "provenance.json")
    benchmark = read_optional(run, "benchmark.json")
    samples = side_by_side(run.lines("samples.jsonl"))
    facts = {
        "name": found.name,
        "verdict": found.verdict,
        "opening": found.opening,
        "rest": found.rest,
        "confidence": found.confidence,
        "best_step": found.best_step,
        "exported_step": found.exported_step,
        "remedies": remedies(found.verdict),
        "story": [
            (alarm, since, [] if since is None else findings(alarm, since, found.golden_kind))
            for alarm, since in zip(found.alarms, found.since, strict=True)
        ],
        "taken": sorted({alarm.action for alarm in found.alarms if alarm.changes and alarm.action}),
        "rows": compare(found.curves, found.best_step, str(found.verdict.evidence.get("golden_kind"))),
        "unit": unit,
        "steps": found.steps,
        "prompts": describe_prompts(found.curves),
        "planes": draw_planes(found.curves, found.best_step, unit, marks),
        "panels": draw_panels(found.curves, metrics, found.best_step, marks),
        "samples": samples[:MOST_SAMPLES],
        "samples_left_out": max(0, len(samples) - MOST_SAMPLES),
        "varieties": describe_variety(provenance),
        "fed": describe_feeding(metrics),
        "benchmark": describe_benchmark(benchmark),
        "p_no_change": (benchmark or {}).get("p_no_change"),
        "rejection": (read_optional(run, "completions/rejection.json") or {}).get("lines"),
        "provenance": provenance,
        "environment": read_optional(run, "environment.json"),
        "config": run.file("config.yaml").read_text() if run.file("config.yaml").exists() else None,
    }
    return fill("report.html.j2", facts)
