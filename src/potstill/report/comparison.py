"""Several runs on one page, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

import potstill.report.overlays as overlays
from potstill.report.across import SHARED, SHOWN, differences, gaps, shared_samples, warnings
from potstill.report.alarm_words import summaries
from potstill.report.drawing import colour_of
from potstill.report.numbers import Row, band, before_after
from potstill.report.page import MOST_SAMPLES, require_run
from potstill.report.panels import Figure, framed, outside
from potstill.report.reading import Reading, read
from potstill.report.sections import GOLDEN, describe_prompts
from potstill.report.template import fill
from potstill.report.zoom import enlarged
from potstill.run_dir import RunDir, RunDirError, write_atomic


@dataclass(frozen=True, slots=True)
class Column:
    """A run in the table: what it came to and where its figures went."""

    found: Reading
    colour: str
    rows: dict[str, Row]
    alarms: list[str]  # a line each


def write_comparison(paths: Sequence[str | Path], output: str | Path) -> Path:
    """Write one page on several runs to `output`."""
    if len(paths) < 2:
        raise RunDirError(f"a comparison needs two runs or more, found {len(paths)}; use write_report for one")
    target = Path(output)
    if target.is_dir():
        raise RunDirError(f"{target} is a folder; expected the name of a file to write, such as comparison.html")
    return write_atomic(target, render(named_apart(read_all(paths))).encode())


def read_all(paths: Sequence[str | Path]) -> list[Reading]:
    """Read every run; refuse what cannot stand side by side."""
    seen: dict[Path, str | Path] = {}
    for path in paths:
        real = Path(path).resolve()
        if real in seen:
            raise RunDirError(f"{path} is the same run as {seen[real]}; give each run once")
        seen[real] = path
    runs = []
    for path in paths:
        run = RunDir(path)
        require_run(run)
        found = read(run)
        if not found.curves:
            raise RunDirError(
                f"{path} holds no evaluations, so there is nothing to compare; let it reach its first "
                "evaluation, or leave it out"
            )
        runs.append(found)
    refuse_two_goldens(runs)
    return runs


def refuse_two_goldens(runs: Sequence[Reading]) -> None:
    """A KL to an oracle and the NLL of references are both called golden, and are not one ruler."""
    kinds = {found.golden_kind for found in runs if "golden" in found.curves}
    if len(kinds) > 1:
        listed = "; ".join(f"{found.run.path}: {GOLDEN[found.golden_kind]}" for found in runs)
        raise RunDirError(
            f"golden is not the same quantity in these runs ({listed}). One is a divergence that is 0 at "
            "the truth, the other a likelihood that is not, so one axis cannot hold both. Compare runs "
            "whose provenance.json says the same under `golden`."
        )


def named_apart(runs: Sequence[Reading]) -> list[Reading]:
    """Folder names, with as many folders above them as it takes to tell the runs apart."""
    paths = [found.run.path.resolve().parts for found in runs]
    for depth in range(1, max(map(len, paths)) + 1):
        names = ["/".join(parts[-depth:]) for parts in paths]
        if len(set(names)) == len(names):
            break
    return [replace(found, name=name) for found, name in zip(runs, names, strict=True)]


def render(runs: Sequence[Reading]) -> str:
    """The page as text."""
    configs = [read_config(found.run) for found in runs]
    known = [config for config in configs if config is not None]
    samples = shared_samples(runs)
    kind = next((found.golden_kind for found in runs if "golden" in found.curves), "reference_nll")
    columns = [_column(number, found) for number, found in enumerate(runs)]
    facts = {
        "columns": columns,
        "banded": any(row.last.low is not None for column in columns for row in column.rows.values()),
        "shown": SHOWN,
        "shared": SHARED,
        "golden": GOLDEN[kind],
        "prompts": sorted({describe_prompts(found.curves) for found in runs}),
        "warnings": warnings(runs),
        "gaps": gaps(runs),
        "without_config": [found.name for found, config in zip(runs, configs, strict=True) if config is None],
        "differences": differences(known) if len(known) == len(runs) else [],
        "planes": draw_planes(runs),
        "panels": draw_panels(runs),
        "samples": samples[:MOST_SAMPLES],
        "samples_left_out": max(0, len(samples) - MOST_SAMPLES),
    }
    return fill("comparison.html.j2", facts)


def _column(number: int, found: Reading) -> Column:
    rows = {name: before_after(found.curves[name], None) for name in SHOWN if name in found.curves}
    return Column(found, colour_of(number), rows, summaries(found.alarms, found.since))


def draw_planes(runs: Sequence[Reading]) -> list[Figure]:
    """The plane of those runs that measured both of its axes, and its late part enlarged."""
    both = [found for found in runs if set(overlays.AXES) <= set(found.curves)]
    if not both:
        return []
    caption = (
        "One colour a run; markers grow with time, a ring is the exported step. Left is closer to the teacher, "
        "down is closer to the task."
    ) + (" A red diamond: an alarm." if any(found.alarms for found in both) else "")
    late = enlarged([found.curves for found in both], overlays.AXES)
    planes = [framed("plane", "The whole runs" if late else "", caption, overlays.plane(runs))]
    if late:
        cut = dict(zip([found.name for found in both], late, strict=True))
        ends = [replace(found, curves=cut.get(found.name, {})) for found in runs]
        words = f"The same points, each run without its first third. {outside([found.curves for found in both], late)}"
        planes.append(framed("plane-late", "The later part, enlarged", words, overlays.plane(ends)))
    return planes


def draw_panels(runs: Sequence[Reading]) -> list[Figure]:
    """Forward KL and golden over steps, every run in its colour."""
    words = {
        "proxy_fkl": "KL(teacher || student) at temperature 1 on held-out prompts.",
        "golden": "The signal that is not the teacher's. Dashed: where perfect imitation ends.",
    }
    panels = []
    for name, text in words.items():
        shown = [found.curves[name] for found in runs if name in found.curves]
        banded = any(band(curve) is not None for curve in shown)
        text += " Bands are 95 % intervals over prompts." if banded else " Errors over prompts are not known."
        if shown:
            panels.append(framed(name, SHOWN[name], text, overlays.curves(runs, name)))
    return panels


def read_config(run: RunDir) -> dict[str, Any] | None:
    """config.yaml as plain data."""
    path = run.file("config.yaml")
    return yaml.safe_load(path.read_text()) or {} if path.exists() else None
