"""The lines of the pretraining lab's page: gain over the teacher's strength, the triplet, gains by kind of token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from potstill.report.drawing import BLUE, GREY, ORANGE, colour_of, finish, words
from potstill.report.lab_arms import UNKNOWN
from potstill.report.numbers import Estimate
from potstill.report.pretraining_laws import law_curve
from potstill.report.pretraining_measures import HELD_OUT, TRIPLET, Measure
from potstill.report.pretraining_reading import RELATIONS, Results, Student
from potstill.report.pretraining_words import about, ends, signed, teacher_name

COLOURS = dict(zip(RELATIONS, (ORANGE, GREY, BLUE), strict=True))
SYMBOLS = dict(zip(RELATIONS, ("triangle-up", "circle", "square"), strict=True))
DODGE = 0.006  # of the extent: weights stand beside each other where they have a teacher in common
SLANT = -40  # degrees; a label that falls to the right is cut at the page's end
MOST_UPRIGHT = 4  # labels
ROOM = 0.05  # of the extent, left free on both sides
WEAKER_STRONGER = "weaker \N{LEFTWARDS ARROW}  \N{RIGHTWARDS ARROW} stronger"


def strength(results: Results, student: Student, measure: Measure, gap_set: str = HELD_OUT) -> go.Figure:
    """Student minus twin over the teacher's loss minus the twin's on `gap_set`; weak teachers to the left."""
    figure, twin = go.Figure(), student.losses.get(gap_set)
    losses = {one.id: one.losses.get(gap_set) for one in results.teachers}
    gaps = {name: loss - twin for name, loss in losses.items() if loss is not None and twin is not None}
    mine = [cell for cell in results.of(student) if cell.teacher in gaps and measure.name in cell.found]
    found = [gaps[str(cell.teacher)] for cell in mine] or [-1.0, 1.0]
    low, high = min(found), max(found)
    extent = high - low or 1.0
    weights = results.weights()  # of all students, so that a weight keeps its colour
    for i, weight in enumerate(weights):
        if not any(one.weight == weight for one in mine):
            continue
        row = sorted((one for one in mine if one.weight == weight), key=lambda one: -gaps[str(one.teacher)])
        law = law_curve(results.raw, measure.name, student.size, weight, (low, high))
        trace = _points([one.found[measure.name].estimate for one in row], i)
        beside = DODGE * extent * (i - (len(weights) - 1) / 2)
        hovers = [f"{about(results, student, one, measure)}<br>teacher {_gap(gaps[str(one.teacher)])}" for one in row]
        trace |= {"x": [gaps[str(one.teacher)] - beside for one in row], "hovertext": hovers}
        trace |= {
            "name": f"weight {weight:g}",
            "legendgroup": f"{weight:g}",
            "mode": "markers" if law else "lines+markers",
        }
        figure.add_scatter(**trace)
        if law:
            look = {"line": {"color": colour_of(i), "width": 2}, "showlegend": False, "hoverinfo": "skip"}
            figure.add_scatter(x=law[0], y=law[1], mode="lines", legendgroup=f"{weight:g}", **look)
    if mine:
        figure.add_hline(y=0, line={"color": GREY, "width": 1.2})
        figure.add_vline(x=0, line={"color": GREY, "width": 1.2, "dash": "dash"})
    axis = f"teacher minus twin on {words(gap_set)},<br>nats per token: {WEAKER_STRONGER}"
    finish(figure, axis, height=440)
    figure.update_xaxes(range=[high + ROOM * extent, low - ROOM * extent])
    return figure.update_layout(yaxis_title_text=_difference(measure), showlegend=True, margin_t=56)


def triplet(results: Results, student: Student, chosen_by: str | None) -> go.Figure:
    """In domain, out of domain, downstream, one above the other, teachers from weak to strong.

    `chosen_by`: the measure whose best weight all three panels show; None: each panel its own.
    """
    measures = results.triplet
    figure = make_subplots(rows=max(1, len(measures)), cols=1, shared_xaxes=True, vertical_spacing=0.05)
    cells = {(cell.teacher, cell.weight): cell for cell in results.of(student)}
    named = {teacher for teacher, _ in cells}
    teachers = [one for one in results.teachers if one.id in named]
    for row, (role, measure) in enumerate(measures.items(), start=1):
        by_kind: dict[str, list[tuple[int, Estimate, str]]] = {}
        for i, teacher in enumerate(teachers):
            best = results.best(student, teacher.id, chosen_by or role) or {}
            cell = cells.get((teacher.id, float(best["weight"]))) if best.get("weight") is not None else None
            if cell is None or measure.name not in cell.found:
                continue
            said = about(results, student, cell, measure)
            by_kind.setdefault(cell.relation, []).append((i, cell.found[measure.name].estimate, said))
        for kind, found in by_kind.items():
            trace = _of_kind(kind, found) | {"showlegend": kind not in {one.legendgroup for one in figure.data}}
            figure.add_scatter(**trace, row=row, col=1)
        figure.add_hline(y=0, line={"color": GREY, "width": 1.2}, row=row, col=1)
        title = f"{words(TRIPLET[role])}<br>{words(measure.unit)}<br>({words(measure.better)} is better)"
        figure.update_yaxes(title_text=title, row=row, col=1)
    finish(figure, None, height=120 + 190 * max(1, len(measures)))
    ticks = [words(teacher_name(one)) for one in teachers]
    reach = [-0.5, max(1, len(teachers)) - 0.5]
    figure.update_xaxes(tickvals=list(range(len(teachers))), ticktext=ticks, range=reach, tickangle=SLANT)
    return figure.update_layout(showlegend=True)


def bins(weights: Sequence[float], found: Sequence[Mapping[str, Any]], title: str) -> go.Figure:
    """Student minus twin by bin, a line a weight; `weights` are all that the page has, so that colours stay."""
    figure = go.Figure()
    edges: list[float] = []
    for one in sorted(found, key=weight_of):
        i, means = weights.index(weight_of(one)), list(one.get("mean") or [])
        lows, highs = (list(one.get(key) or [None] * len(means)) for key in ("low", "high"))
        edges = list(one.get("edges") or edges)
        kept = [k for k, mean in enumerate(means) if mean is not None]
        estimates = [Estimate(means[k], lows[k], highs[k]) for k in kept]
        trace = _points(estimates, i) | {"name": f"weight {weights[i]:g}", "mode": "lines+markers"}
        trace["x"] = [k + 0.06 * (i - (len(weights) - 1) / 2) for k in kept]
        trace["hovertext"] = [
            f"{signed(one.value)} nats per token<br>{ends(one) or 'no interval'}" for one in estimates
        ]
        figure.add_scatter(**trace)
    figure.add_hline(y=0, line={"color": GREY, "width": 1.2})
    finish(figure, title, height=360)
    names = [f"{low:.3g}\N{EN DASH}{high:.3g}" for low, high in pairwise(edges)]
    figure.update_xaxes(
        tickvals=list(range(len(names))), ticktext=names, tickangle=SLANT if len(names) > MOST_UPRIGHT else 0
    )
    return figure.update_layout(yaxis_title_text="student minus twin,<br>nats per token", showlegend=True)


def weight_of(found: Mapping[str, Any]) -> float:
    return float(found.get("weight") or 0)


def _points(estimates: Sequence[Estimate], number: int) -> dict[str, Any]:
    """Means with their intervals, in the look of the weight with this number."""
    colour = colour_of(number)
    return {
        "y": [one.value for one in estimates],
        "error_y": _bars(estimates, colour),
        "line": {"color": colour, "width": 1.4},
        "marker": {"symbol": UNKNOWN[number % len(UNKNOWN)], "size": 8, "color": colour},
        "hovertemplate": "%{hovertext}<extra></extra>",
    }


def _of_kind(kind: str, found: Sequence[tuple[int, Estimate, str]]) -> dict[str, Any]:
    """The teachers of one relation in one panel: place, value, hover."""
    colour = COLOURS.get(kind, GREY)
    return {
        "x": [at for at, _, _ in found],
        "y": [one.value for _, one, _ in found],
        "error_y": _bars([one for _, one, _ in found], colour),
        "mode": "markers",
        "name": words(kind or "teachers"),
        "legendgroup": kind,
        "marker": {"size": 10, "color": colour, "symbol": SYMBOLS.get(kind, "diamond")},
        "hovertext": [said for _, _, said in found],
        "hovertemplate": "%{hovertext}<extra></extra>",
    }


def _bars(estimates: Sequence[Estimate], colour: str) -> dict[str, Any]:
    above = [None if one.high is None else one.high - one.value for one in estimates]
    below = [None if one.low is None else one.value - one.low for one in estimates]
    look = {"color": colour, "thickness": 1.3, "width": 0}
    return {"type": "data", "symmetric": False, "array": above, "arrayminus": below, **look}


def _gap(gap: float) -> str:
    return f"{signed(gap)} nats per token to the twin"


def _difference(measure: Measure) -> str:
    return f"student minus twin, {words(measure.unit)}<br>({words(measure.better)} is better)"
