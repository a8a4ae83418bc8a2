"""The heat map of the pretraining lab's page: which teacher helps at which weight.

Better is blue and worse is orange, whichever sign a measure has. Cells carry dark numbers on
light colours in light and dark pages alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from potstill.report.drawing import GREY, finish, words
from potstill.report.lab import number
from potstill.report.pretraining_measures import HELD_OUT, Measure
from potstill.report.pretraining_reading import Results, Student
from potstill.report.pretraining_words import about, clear, signed, teacher_name

WORSE_TO_BETTER = [[0.0, "#e79a5c"], [0.5, "#f1eee8"], [1.0, "#79aede"]]
FEWEST_COLUMNS = 4  # room for so many, or the cells of a single weight would be beams
INK = "#1d2025"  # on cells, which are light in a dark page too


def heat(results: Results, student: Student, measure: Measure) -> go.Figure:
    """Teachers from weak (top) to strong by weights; colour is the gain, a frame an interval that leaves out 0."""
    cells = results.of(student)
    named = {cell.teacher for cell in cells}
    teachers = [teacher for teacher in results.teachers if teacher.id in named]
    weights = sorted({cell.weight for cell in cells})
    shape = (len(teachers), len(weights))
    gains, texts, hovers = np.full(shape, np.nan), np.full(shape, "", object), np.full(shape, "", object)
    figure = go.Figure()
    shapes: list[dict[str, Any]] = []  # given to Plotly at once, which checks all of them each time
    for cell in cells:
        found = cell.found.get(measure.name)
        row = next((i for i, teacher in enumerate(teachers) if teacher.id == cell.teacher), None)
        if found is None or row is None:
            continue
        at = row, weights.index(cell.weight)
        gains[at], texts[at] = cell.gain(measure) or 0.0, signed(found.estimate.value)
        hovers[at] = about(results, student, cell, measure)
        if clear(found.estimate):
            shapes.append(_frame(at[1], row))
    limit = colours_end(results, measure)
    figure.add_heatmap(
        z=[[None if np.isnan(value) else float(value) for value in row] for row in gains],
        x=list(range(len(weights))),
        y=list(range(len(teachers))),
        text=texts.tolist(),
        texttemplate="%{text}",
        textfont={"color": INK, "size": 12},
        hovertext=hovers.tolist(),
        hovertemplate="%{hovertext}<extra></extra>",
        hoverongaps=False,
        colorscale=WORSE_TO_BETTER,
        zmin=-limit,
        zmax=limit,
        xgap=2,
        ygap=2,
        colorbar=_colour_bar(limit),
    )
    shapes += _between(student, [teacher.losses.get(HELD_OUT) for teacher in teachers])
    finish(figure, "weight of the teacher", height=150 + 44 * max(1, len(teachers)))
    ticks = [f"{words(teacher_name(one))}<br>{number(one.losses.get(HELD_OUT))}" for one in teachers]
    figure.update_xaxes(tickvals=list(range(len(weights))), ticktext=[f"{weight:g}" for weight in weights])
    figure.update_xaxes(showgrid=False, showline=False, range=[-0.5, max(FEWEST_COLUMNS, len(weights)) - 0.5])
    figure.update_yaxes(tickvals=list(range(len(teachers))), ticktext=ticks, showgrid=False)
    return figure.update_yaxes(range=[max(1, len(teachers)) - 0.5, -0.5]).update_layout(margin_t=62, shapes=shapes)


def colours_end(results: Results, measure: Measure) -> float:
    """The gain with the deepest colour, one for all students: the largest gain, or the middling size of a change.

    With the largest change instead, one teacher that spoils everything would leave the others without colour.
    """
    gains = [gain for cell in results.cells if (gain := cell.gain(measure)) is not None]
    sizes = np.abs(gains)
    if not sizes.size or not sizes.max() > 0:
        return 1.0
    return float(max(*gains, float(np.median(sizes)), 1e-3 * float(sizes.max())))


def _frame(column: int, row: int) -> dict[str, Any]:
    room = 0.46
    box = {"x0": column - room, "x1": column + room, "y0": row - room, "y1": row + room}
    return {"type": "rect", **box, "line": {"color": INK, "width": 1.6}}


def _between(student: Student, losses: Sequence[float | None]) -> list[dict[str, Any]]:
    """A dashed line between the teachers that are weaker than the twin and those that are stronger."""
    twin = student.losses.get(HELD_OUT)
    if twin is None or not any(loss is not None for loss in losses):
        return []
    height = sum(loss is None or loss > twin for loss in losses) - 0.5
    look = {"line": {"color": GREY, "width": 2, "dash": "dash"}, "xref": "paper", "x0": 0, "x1": 1}
    return [{"type": "line", "y0": height, "y1": height, **look}]


def _colour_bar(limit: float) -> dict[str, Any]:
    where = {"orientation": "h", "x": 0, "xanchor": "left", "y": 1, "yanchor": "top", "yref": "container"}
    ticks = {"tickvals": [-0.85 * limit, 0, 0.85 * limit], "ticktext": ["worse", "0", "better"]}
    return {**where, **ticks, "len": 1, "thickness": 8, "outlinewidth": 0, "ticks": ""}
