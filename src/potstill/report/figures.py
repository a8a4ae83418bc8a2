"""The figures of a report: data in, Plotly figure out.

Text and grid colours are left to the page, which knows whether it is read in
light or dark; the colours of the data are of middling lightness and show on
both. Coordinates are plain lists, so that the numbers can be read in the file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from potstill.records import Curve
from potstill.report.numbers import LABELS, band, column, teacher_value, thinned

BLUE, ORANGE, GREEN, GREY = "#3a7fc1", "#d9742b", "#2a9d78", "#8a8f98"
COLOURS = {"proxy": BLUE, "proxy_fkl": GREEN, "golden": ORANGE, "verifier_failure": GREY}
TIME = [[0.0, "#4f86d6"], [0.5, "#b05aa8"], [1.0, "#e8702a"]]
TEACHER = {"color": GREY, "width": 1.6, "dash": "dash"}
STEPS = "optimiser steps"


def plane(proxy: Curve, golden: Curve, best_step: int | None) -> go.Figure:
    """The path of a run: closer to the teacher is left, closer to the task is down."""
    steps, at, also_at = np.intersect1d(proxy.steps, golden.steps, return_indices=True)
    x, y = proxy.per_token[at], golden.per_token[also_at]
    figure = go.Figure(
        go.Scatter(
            x=x.tolist(),
            y=y.tolist(),
            customdata=steps.tolist(),
            mode="lines+markers",
            line={"color": GREY, "width": 1.2},
            marker={"color": steps.tolist(), "colorscale": TIME, "size": 9, "colorbar": _colour_bar()},
            hovertemplate="step %{customdata}<br>proxy %{x:.4f}<br>golden %{y:.4f}<extra></extra>",
        )
    )
    _mark_steps(figure, steps, x, y, best_step)
    _teacher_line(figure, golden)
    _finish(figure, "proxy, nats per token", height=470)
    return figure.update_layout(yaxis_title_text="golden, nats per token", margin_t=56)


def curves(drawn: Sequence[Curve], best_step: int | None, unit: str = "nats per token") -> go.Figure:
    """Curves over steps with 95 % bands over prompts; golden brings its teacher's line."""
    figure = go.Figure()
    for curve in drawn:
        colour, steps = COLOURS[curve.name], curve.steps.tolist()
        edges = band(curve)
        if edges is not None:
            figure.add_scatter(
                x=steps + steps[::-1],
                y=edges[0].tolist() + edges[1][::-1].tolist(),
                mode="lines",
                fill="toself",
                fillcolor=_faint(colour),
                line={"width": 0},
                hoverinfo="skip",
                showlegend=False,
            )
        figure.add_scatter(
            x=steps,
            y=curve.per_token.tolist(),
            name=LABELS[curve.name][0],
            mode="lines+markers",
            line={"color": colour, "width": 2, "dash": "dot" if curve.name == "proxy_fkl" else "solid"},
            marker={"size": 5},
            hovertemplate="step %{x}: %{y:.4f}<extra>" + LABELS[curve.name][0] + "</extra>",
        )
        if (value := teacher_value(curve)) is not None:
            figure.add_scatter(
                x=[steps[0], steps[-1]],
                y=[value, value],
                name=f"the teacher's own, {value:.3f}",
                mode="lines",
                line=TEACHER,
            )
    if best_step is not None:
        figure.add_vline(x=best_step, line={"color": GREY, "width": 1, "dash": "dot"})
    _finish(figure, STEPS, height=300)
    num_named = sum(trace.name is not None for trace in figure.data)
    return figure.update_layout(yaxis_title_text=unit, showlegend=num_named > 1)


def training_loss(metrics: Sequence[Mapping[str, Any]]) -> go.Figure:
    """What the optimiser saw at every step, and a mean over neighbours to see its trend."""
    steps, losses = column(metrics, "loss")
    many = losses.size >= 60
    figure = go.Figure()
    colour = _faint(BLUE, 0.45) if many else BLUE
    figure.add_scatter(**_line(*thinned(steps, losses), "loss", colour, width=1 if many else 2))
    if many:
        figure.add_scatter(**_line(*thinned(steps, losses, 30), "mean of neighbours", BLUE, width=2.2))
    _finish(figure, STEPS, height=300)
    return figure.update_layout(yaxis_title_text="training loss, nats per token", showlegend=many)


def schedule(metrics: Sequence[Mapping[str, Any]]) -> go.Figure:
    """Learning rate above, norm of the gradient below, over the same steps."""
    lines = {key: column(metrics, key) for key in ("learning_rate", "grad_norm")}
    shown = {key: line for key, line in lines.items() if line[0].size}
    figure = make_subplots(rows=len(shown), cols=1, shared_xaxes=True, vertical_spacing=0.1)
    for row, (key, line) in enumerate(shown.items(), start=1):
        colour = GREEN if key == "learning_rate" else GREY
        figure.add_scatter(**_line(*thinned(*line), key, colour, width=1.6), row=row, col=1)
        figure.update_yaxes(title_text=key.replace("_", " "), row=row, col=1)
    figure.update_xaxes(title_text=STEPS, row=len(shown), col=1)
    _finish(figure, None, height=300)
    return figure.update_layout(showlegend=False).update_yaxes(exponentformat="power", nticks=4)


def _line(x: np.ndarray, y: np.ndarray, name: str, colour: str, width: float) -> dict[str, Any]:
    line = {"color": colour, "width": width}
    words = name.replace("_", " ")
    hover = f"step %{{x:.0f}}: %{{y:.4g}}<extra>{words}</extra>"
    return {"x": x.tolist(), "y": y.tolist(), "name": words, "line": line, "hovertemplate": hover}


def _colour_bar() -> dict[str, Any]:
    """Lies above the plot: beside it, it would take a third of a telephone's width."""
    where = {"orientation": "h", "x": 0, "xanchor": "left", "y": 1, "yanchor": "top", "yref": "container"}
    look = {"len": 1, "thickness": 8, "outlinewidth": 0, "nticks": 5, "tickformat": "d"}
    return {**where, **look, "tickprefix": "step ", "showtickprefix": "first"}


def _mark_steps(figure: go.Figure, steps: np.ndarray, x: np.ndarray, y: np.ndarray, best_step: int | None) -> None:
    """Name the first, the last and the best point; a ring around the best."""
    for i in sorted({0, steps.size - 1} | set(np.flatnonzero(steps == best_step).tolist())):
        best = steps[i] == best_step
        text = ("best, " if best else "") + f"step {steps[i]}"
        side = "right" if x[i] > (x.min() + x.max()) / 2 else "left"
        figure.add_annotation(
            x=float(x[i]), y=float(y[i]), text=text, showarrow=False, xanchor=side, yshift=-18 if best else 16
        )
        if best:
            ring = {"size": 19, "color": "rgba(0,0,0,0)", "line": {"color": GREEN, "width": 2.5}}
            figure.add_scatter(
                x=[float(x[i])], y=[float(y[i])], mode="markers", marker=ring, hoverinfo="skip", name="best"
            )
    figure.update_layout(showlegend=False)


def _teacher_line(figure: go.Figure, golden: Curve) -> None:
    """Perfect imitation ends on this line: below it the student beats its teacher."""
    value = teacher_value(golden)
    if value is None:
        return
    label = {"text": f"the teacher's own, {value:.3f}", "font": {"color": GREY, "size": 12}}
    figure.add_hline(y=value, line=TEACHER, annotation=label, annotation_position="top right")


def _finish(figure: go.Figure, x_title: str | None, height: int) -> None:
    """What all figures share."""
    figure.update_layout(
        template="none",
        height=height,
        autosize=True,
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif", "size": 13},
        margin={"l": 64, "r": 12, "t": 28, "b": 48},
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        hoverlabel={"font": {"size": 13}},
    )
    figure.update_xaxes(automargin=True, zeroline=False, showline=True, title_font_size=13, title_standoff=10)
    figure.update_yaxes(automargin=True, zeroline=False, title_font_size=13, title_standoff=8)
    if x_title is not None:
        figure.update_xaxes(title_text=x_title)


def _faint(colour: str, opacity: float = 0.18) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"
