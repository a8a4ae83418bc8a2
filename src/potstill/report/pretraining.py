"""The page of `potstill lab pretraining`: does a teacher help here, which one, and with what weight.

`pretraining_reading.py` reads and checks `results.json`, `pretraining_words.py` says the answer and
the limits, `pretraining_heat.py` and `pretraining_lines.py` draw, `pretraining_laws.py` reads the
fitted laws, `pretraining_tables.py` makes tables. The lab computes and this draws: no claim is judged here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

import potstill.report.pretraining_tables as tables
from potstill.report.lab import duration, number
from potstill.report.panels import framed
from potstill.report.pretraining_heat import heat
from potstill.report.pretraining_laws import difference_law, gap_set, law_rows
from potstill.report.pretraining_lines import bins, strength, triplet, weight_of
from potstill.report.pretraining_measures import TRIPLET, Measure
from potstill.report.pretraining_reading import Results, Student, read_results
from potstill.report.pretraining_words import (
    answer,
    by_relation,
    clear,
    ends,
    in_words,
    limits,
    measure_kind,
    measure_name,
    signed,
    student_name,
    teacher_name,
    teacher_of,
    varied,
)
from potstill.report.template import fill
from potstill.run_dir import write_atomic

KINDS = {"difficulty": "the twin's entropy at the token, nats", "position": "position in the block, tokens"}
HEAT = (
    "Teachers from the weakest (top) to the strongest by their own loss on held-out text, which stands under their "
    "name. Each number is student minus twin; blue is better, orange worse. A frame: the 95 % interval over seeds "
    "leaves out 0. Dashed: teachers above it are weaker than the twin, those below stronger. Colours end at the "
    "largest gain of the experiment. Hover or tap a cell for its interval."
)
STRENGTH = (
    "Strong teachers to the right. A line that flattens there has saturated, one that turns back has been hurt by "
    "strength. Dashed: a teacher as good as the twin. Bars: 95 % intervals over seeds; weights stand a little beside "
    "each other. "
)
LAW = "Smooth lines are the fitted law (see Laws), where there is one."
TRIPLET_WORDS = (
    "Each teacher at its best weight, from the weakest to the strongest. Three panels and not one number: they need "
    "not agree. The best weight is picked on the same seeds, which flatters it."
)


@dataclass(frozen=True, slots=True)
class Versions:
    """A figure with one version for every entry of the list that steers its group."""

    id: str
    group: str
    title: str
    caption: str
    height: int
    data: dict[str, str]  # entry -> JSON


@dataclass(frozen=True, slots=True)
class Chooser:
    """A list to choose from, and the figures that follow it."""

    group: str
    label: str
    entries: dict[str, str]  # key -> words
    figures: list[Versions]


def write_pretraining_report(results: Path) -> Path:
    """Write `report.html` beside a `results.json` of `potstill lab pretraining`; returns the page's path.

    Values on it are student minus twin, in nats per token or shares of answers. Raises LabResultsError where the
    file is not what the lab writes.
    """
    return write_atomic(results.with_name("report.html"), render(read_results(results)).encode())


def render(results: Results) -> str:
    """The page as text."""
    raw = results.raw
    found = tables.claims(raw.get("claims"))
    first = results.students[0] if results.students else None
    lines = answer(results, first)
    facts = {
        "answer": lines,
        "others": [(student_name(one), answer(results, one)) for one in results.students[1:]],
        "relations": by_relation(results),
        "raw": raw,
        "facts": [(key, raw[key]) for key in ("preset",) if raw.get(key) is not None],
        "seeds": raw.get("seeds") or sorted({seed for cell in results.cells for seed in cell.seeds}),
        "time": duration(raw.get("seconds")),
        "varied": varied(results),
        "claims": found,
        "headline": tables.headline(found),
        "heat": draw_heat(results),
        "strength": draw_strength(results),
        "triplet": draw_triplet(results),
        "bins": draw_bins(results),
        "by_student": [(student_name(one), tables.teacher_rows(results, one)) for one in results.students],
        "ablations": tables.ablation_rows(results),
        "triplet_names": TRIPLET,
        "results": results,
        "models": tables.model_rows(raw["models"]),
        "sets": tables.set_rows(raw),
        "made": [one for one in results.measures if one.made],
        "laws": law_rows(raw),
        "limits": limits(results),
        "number": number, "signed": signed, "ends": ends, "clear": clear, "in_words": in_words, "duration": duration,
        "teacher_of": teacher_of, "measure_name": measure_name, "measure_kind": measure_kind,
    }  # fmt: skip
    return fill("pretraining.html.j2", facts)


def versions(
    name: str, group: str, words: tuple[str, str], drawn: Sequence[tuple[str, Callable[[], go.Figure]]]
) -> Versions:
    """One figure in all its versions; `words` are its title and caption."""
    title, caption = words
    made = {key: framed(name, title, caption, draw()) for key, draw in drawn}
    height = max((one.height for one in made.values()), default=0)
    return Versions(name, group, title, caption, height, {key: one.data for key, one in made.items()})


def draw_heat(results: Results) -> Chooser | None:
    """A heat map a student, steered by the measure."""
    return _by_measure(results, "heat", HEAT, heat)


def draw_strength(results: Results) -> Chooser | None:
    """Gain over strength, a figure a student, steered by the measure."""
    has_law = any(difference_law(results.raw, one.name) is not None for one in results.measures)
    raw = results.raw

    def draw(found: Results, student: Student, measure: Measure) -> go.Figure:
        return strength(found, student, measure, gap_set(raw, measure.name, measure.domain))

    return _by_measure(results, "strength", STRENGTH + (LAW if has_law else ""), draw)


def _by_measure(
    results: Results, group: str, caption: str, draw: Callable[[Results, Student, Measure], go.Figure]
) -> Chooser | None:
    entries = {f"m{i}": measure for i, measure in enumerate(results.measures)}
    if not entries or not results.students:
        return None
    figures = []
    for i, student in enumerate(results.students):
        drawn = [(key, _later(draw, results, student, measure)) for key, measure in entries.items()]
        figures.append(versions(f"{group}-s{i}", group, (f"Student {student_name(student)}", caption), drawn))
    return Chooser(group, "Measure", {key: measure_name(one) for key, one in entries.items()}, figures)


def draw_triplet(results: Results) -> Chooser | None:
    """Three panels a student, steered by who picks the weight."""
    if not results.raw.get("best_weights") or not results.triplet or not results.students:
        return None
    picks: dict[str, str | None] = {"own": None} | {f"w{i}": role for i, role in enumerate(results.triplet)}
    entries = {"own": "each panel's own best"}
    entries |= {key: f"the best {TRIPLET[name]}, in all panels" for key, name in picks.items() if name is not None}
    figures = []
    for i, student in enumerate(results.students):
        drawn = [(key, _later(triplet, results, student, name)) for key, name in picks.items()]
        title = f"Student {student_name(student)}"
        figures.append(versions(f"triplet-s{i}", "triplet", (title, TRIPLET_WORDS), drawn))
    return Chooser("triplet", "Weight", entries, figures)


def draw_bins(results: Results) -> list[Chooser]:
    """Gains by difficulty and by position, a pair a student, steered by the teacher."""
    found = []
    weights = sorted({*results.weights(), *(weight_of(one) for one in results.raw.get("bins") or [])})
    for i, student in enumerate(results.students):
        by_teacher = tables.bins_by(results, student)
        if not by_teacher:
            continue
        entries = {f"t{k}": teacher for k, teacher in enumerate(by_teacher)}
        named = {key: results.teacher(teacher) for key, teacher in entries.items()}
        shown = {key: entries[key] if one is None else teacher_name(one) for key, one in named.items()}
        group, figures = f"bins-s{i}", []
        for kind, axis in KINDS.items():
            drawn = [
                (key, _later(bins, weights, by_teacher[name].get(kind, []), axis)) for key, name in entries.items()
            ]
            words = (f"By {kind}", "")
            figures.append(versions(f"{kind}-s{i}", group, words, drawn))
        found.append(Chooser(group, f"Student {student_name(student)}, teacher", shown, figures))
    return found


def _later(draw: Callable[..., go.Figure], *given: Any) -> Callable[[], go.Figure]:
    """Binds now what a loop would change before it draws."""
    return lambda: draw(*given)
