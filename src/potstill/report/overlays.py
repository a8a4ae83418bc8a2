"""The figures of several runs: one colour a run, each with its own teacher's line.

The plane's x axis is forward KL at temperature 1, which every monitor measures
alike. Proxy is a run's own objective: two objectives are two rulers.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np
import plotly.graph_objects as go

from potstill.report.drawing import GREY, STEPS, add_curve, add_level, colour_of, dash_of, finish
from potstill.report.marks import marks_of, on_plane
from potstill.report.numbers import teacher_value
from potstill.report.reading import Reading

AXES = ("proxy_fkl", "golden")


def plane(runs: Sequence[Reading]) -> go.Figure:
    """Every run's path; markers grow and darken with time, a ring is the exported step."""
    figure = go.Figure()
    widest: list[float] = []
    for number, found in enumerate(runs):
        if set(AXES) <= set(found.curves):
            widest += _add_path(figure, found, number)
    _add_teachers(figure, runs, (min(widest), max(widest)))
    finish(figure, "forward KL, nats per token", height=520)
    return figure.update_layout(yaxis_title_text="golden, nats per token", showlegend=True)


def curves(runs: Sequence[Reading], name: str) -> go.Figure:
    """One series of every run, with bands over prompts; golden brings the teachers' lines."""
    figure = go.Figure()
    shown = [(number, found) for number, found in enumerate(runs) if name in found.curves]
    for number, found in shown:
        add_curve(figure, found.curves[name], escape(found.name), colour_of(number), dash_of(number))
    steps = [int(step) for _, found in shown for step in found.curves[name].steps]
    if name == "golden":
        _add_teachers(figure, runs, (min(steps), max(steps)))
    finish(figure, STEPS, height=340)
    return figure.update_layout(yaxis_title_text="nats per token", showlegend=True)


def _add_path(figure: go.Figure, found: Reading, number: int) -> list[float]:
    """One run's line and markers; returns how far it reaches to both sides."""
    fkl, golden = found.curves["proxy_fkl"], found.curves["golden"]
    steps, at, also_at = np.intersect1d(fkl.steps, golden.steps, return_indices=True)
    x, y = fkl.per_token[at].tolist(), golden.per_token[also_at].tolist()
    time = np.linspace(0, 1, steps.size)
    colour, name = colour_of(number), escape(found.name)
    figure.add_scatter(
        x=x,
        y=y,
        customdata=steps.tolist(),
        name=name,
        legendgroup=name,
        mode="lines+markers",
        line={"color": colour, "width": 1.5, "dash": dash_of(number)},
        marker={
            "color": colour,
            "size": (5 + 7 * time).tolist(),
            "opacity": (0.45 + 0.55 * time).tolist(),
            "line": {"width": 0},  # Plotly rings markers of unequal size in white
        },
        hovertemplate="step %{customdata}<br>forward KL %{x:.4f}<br>golden %{y:.4f}<extra>" + name + "</extra>",
    )
    for i in np.flatnonzero(steps == found.exported_step):
        ring = {"size": 20, "color": "rgba(0,0,0,0)", "line": {"color": colour, "width": 2}}
        figure.add_scatter(
            x=[x[i]],
            y=[y[i]],
            name="exported",
            legendgroup=name,
            mode="markers",
            marker=ring,
            hoverinfo="skip",
            showlegend=False,
        )
    on_plane(figure, (steps, np.array(x), np.array(y)), marks_of(found.alarms, found.name))
    return [min(x), max(x)]


def _add_teachers(figure: go.Figure, runs: Sequence[Reading], ends: tuple[float, float]) -> None:
    """One grey line where all teachers stand equal, else one in the colour of each run."""
    values = {
        number: value
        for number, found in enumerate(runs)
        if "golden" in found.curves and (value := teacher_value(found.curves["golden"])) is not None
    }
    if len(values) == len(runs) and np.ptp(list(values.values())) < 1e-9:
        value = values[0]
        add_level(figure, ends, value, f"the teacher's own, {value:.3f}", GREY)
        return
    for number, value in values.items():
        name = f"teacher of {escape(runs[number].name)}, {value:.3f}"
        add_level(figure, ends, value, name, colour_of(number))
