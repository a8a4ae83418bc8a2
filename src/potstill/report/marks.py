"""Where an alarm came, in the figures: a thin line over steps, a diamond on the plane."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from potstill.report.alarms import Alarm
from potstill.report.drawing import PALETTE, words

RED = PALETTE[4]
LINE_HEIGHT = 16  # pixels
NARROW = 0.2  # of a figure's width: about what a name takes on a telephone


@dataclass(frozen=True, slots=True)
class Mark:
    """An alarm's place in a figure."""

    step: int
    text: str  # what the reader sees when pointing at it; safe for Plotly


def marks_of(alarms: Sequence[Alarm], name: str = "") -> list[Mark]:
    """A mark for each alarm; `name` of the run where there are several."""
    whose = f"{words(name)}: " if name else ""
    return [
        Mark(alarm.step, "<br>".join([f"{whose}{words(alarm.words)}, step {alarm.step}", *map(words, _answer(alarm))]))
        for alarm in alarms
    ]


def _answer(alarm: Alarm) -> list[str]:
    return [alarm.done, *alarm.changes]


def over_steps(figure: go.Figure, marks: Sequence[Mark]) -> go.Figure:
    """A line at each mark's step, named at its top, on the side that has more room where both are narrow."""
    steps = [float(step) for trace in figure.data for step in trace.x]
    begin, end = min(steps), max(steps)
    marks = sorted(marks, key=lambda one: one.step)
    places = [begin, *(float(mark.step) for mark in marks), end]
    crowded = False  # the gap to the left holds a name already
    for mark, before, after in zip(marks, places[:-2], places[2:], strict=True):
        to_right = after - mark.step >= min(NARROW * (end - begin), mark.step - before)
        lower = crowded and not to_right and mark.step - before < 2 * NARROW * (end - begin)
        crowded = to_right
        figure.add_vline(x=mark.step, line={"color": RED, "width": 1})
        figure.add_annotation(
            x=mark.step, y=1, yref="paper", yanchor="top", yshift=-LINE_HEIGHT * lower, showarrow=False, text="alarm",
            xanchor="left" if to_right else "right", font={"color": RED, "size": 12}, hovertext=mark.text,
        )  # fmt: skip
    return figure


def legend(marks: Sequence[Mark]) -> str:
    """What a caption says of the lines."""
    if not marks:
        return ""
    steps = ", ".join(str(mark.step) for mark in marks)
    return f" Red: the alarm, step {steps}." if len(marks) == 1 else f" Red: the alarms, steps {steps}."


def on_plane(figure: go.Figure, path: tuple[np.ndarray, np.ndarray, np.ndarray], marks: Sequence[Mark]) -> go.Figure:
    """A diamond around the evaluation of each mark; `path`: its steps, and where they lie."""
    steps, x, y = path
    for mark in marks:
        for i in np.flatnonzero(steps == mark.step):
            look = {"symbol": "diamond-open", "size": 17, "color": RED, "line": {"width": 2}}
            figure.add_scatter(
                x=[float(x[i])], y=[float(y[i])], mode="markers", marker=look, name="alarm", showlegend=False,
                hovertemplate=f"alarm: {mark.text}<extra></extra>",
            )  # fmt: skip
    return figure
