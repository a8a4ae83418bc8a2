"""The figures of one run: data in, Plotly figure out."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from potstill.records import Curve
from potstill.report.drawing import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    STEPS,
    TEACHER,
    add_curve,
    add_level,
    colour_of,
    faint,
    finish,
    line,
)
from potstill.report.marks import Mark, on_plane
from potstill.report.numbers import LABELS, Series, column, teacher_value, thinned

COLOURS = {"proxy": BLUE, "proxy_fkl": GREEN, "golden": ORANGE, "verifier_failure": GREY}
COLOURS |= {"proxy_rkl": BLUE, "proxy_js": BLUE, "golden_rkl": ORANGE, "golden_js": ORANGE}
ROOM = (500, 330)  # pixels of a plane, about; a telephone's is narrower
SHIFTS = (16, -18, 32, -34)  # where an alarm's name may stand, above or below its point
TIME = [[0.0, "#4f86d6"], [0.5, "#b05aa8"], [1.0, "#e8702a"]]


def plane(
    proxy: Curve,
    golden: Curve,
    best_step: int | None,
    unit: str = "nats",
    alarms: Sequence[Mark] = (),
    name_alarms: bool = True,
) -> go.Figure:
    """The path of a run: closer to the teacher is left, closer to the task is down.

    `name_alarms` False: where another figure has more room for their names.
    """
    steps, at, also_at = np.intersect1d(proxy.steps, golden.steps, return_indices=True)
    x, y = proxy.per_token[at], golden.per_token[also_at]
    figure = go.Figure(
        go.Scatter(
            x=x.tolist(),
            y=y.tolist(),
            customdata=steps.tolist(),
            mode="lines+markers",
            line={"color": GREY, "width": 1.2},
            marker={
                "color": steps.tolist(),
                "colorscale": TIME,
                "cmin": 0,  # and not the first step shown: an enlarged part keeps its colours
                "cmax": int(steps[-1]),
                "size": 9,
                "colorbar": _colour_bar(),
            },
            hovertemplate="step %{customdata}<br>proxy %{x:.4f}<br>golden %{y:.4f}<extra></extra>",
        )
    )
    _mark_steps(figure, (steps, x, y), best_step, {mark.step for mark in alarms if name_alarms})
    on_plane(figure, (steps, x, y), alarms)
    _teacher_line(figure, golden)
    finish(figure, f"proxy, {per_token(unit)}", height=470)
    return figure.update_layout(yaxis_title_text="golden, nats per token", margin_t=56)


def curves(drawn: Sequence[Curve], best_step: int | None, unit: str = "nats per token") -> go.Figure:
    """Curves over steps with 95 % bands over prompts; golden brings its teacher's line."""
    figure = go.Figure()
    for curve in drawn:
        dash = "dot" if curve.name == "proxy_fkl" else "solid"
        add_curve(figure, curve, LABELS[curve.name][0], COLOURS[curve.name], dash)
        if (value := teacher_value(curve)) is not None:
            ends = int(curve.steps[0]), int(curve.steps[-1])
            add_level(figure, ends, value, f"the teacher's own, {value:.3f}")
    if best_step is not None:
        figure.add_vline(x=best_step, line={"color": GREY, "width": 1, "dash": "dot"})
    finish(figure, STEPS, height=300)
    num_named = sum(trace.name is not None for trace in figure.data)
    return figure.update_layout(yaxis_title_text=unit, showlegend=num_named > 1)


def per_token(unit: str) -> str:
    """The unit of a mean over tokens."""
    return "nats per token" if unit == "nats" else f"{unit}, per token"


def training_loss(metrics: Sequence[Mapping[str, Any]], unit: str = "nats") -> go.Figure:
    """What the optimiser saw at every step, and a mean over neighbours to see its trend."""
    steps, losses = column(metrics, "loss")
    many = losses.size >= 60
    figure = go.Figure()
    colour = faint(BLUE, 0.45) if many else BLUE
    figure.add_scatter(**line(*thinned(steps, losses), "loss", colour, width=1 if many else 2))
    if many:
        figure.add_scatter(**line(*thinned(steps, losses, 30), "mean of neighbours", BLUE, width=2.2))
    finish(figure, STEPS, height=300)
    return figure.update_layout(yaxis_title_text=f"training loss, {unit}", showlegend=many)


def terms(values: Mapping[str, Series], weights: Mapping[str, Series], unit: str = "nats") -> go.Figure:
    """The objective's terms above, their weights below where a schedule moves them."""
    shown = {"term, nats" if unit == "nats" else "term": values, "weight": weights}
    rows = {title: series for title, series in shown.items() if series}
    colours = {name: colour_of(i) for i, name in enumerate(sorted({*values, *weights}))}
    figure = make_subplots(rows=len(rows), cols=1, shared_xaxes=True, vertical_spacing=0.1)
    for row, (title, series) in enumerate(rows.items(), start=1):
        for name, found in series.items():
            trace = line(*thinned(*found, 120), name, colours[name], width=1.8)
            alone = title == "weight" and name in values  # the term above has the entry in the legend
            figure.add_scatter(**trace, legendgroup=name, showlegend=not alone, row=row, col=1)
        figure.update_yaxes(title_text=title, row=row, col=1)
    figure.update_xaxes(title_text=STEPS, row=len(rows), col=1)
    finish(figure, None, height=300)
    return figure.update_layout(showlegend=True)


def schedule(metrics: Sequence[Mapping[str, Any]]) -> go.Figure:
    """Learning rate above, norm of the gradient below, over the same steps."""
    lines = {key: column(metrics, key) for key in ("learning_rate", "grad_norm")}
    shown = {key: found for key, found in lines.items() if found[0].size}
    figure = make_subplots(rows=len(shown), cols=1, shared_xaxes=True, vertical_spacing=0.1)
    for row, (key, found) in enumerate(shown.items(), start=1):
        colour = GREEN if key == "learning_rate" else GREY
        figure.add_scatter(**line(*thinned(*found), key, colour, width=1.6), row=row, col=1)
        figure.update_yaxes(title_text=key.replace("_", " "), row=row, col=1)
    figure.update_xaxes(title_text=STEPS, row=len(shown), col=1)
    finish(figure, None, height=300)
    return figure.update_layout(showlegend=False).update_yaxes(exponentformat="power", nticks=4)


def _colour_bar() -> dict[str, Any]:
    """Lies above the plot: beside it, it would take a third of a telephone's width."""
    where = {"orientation": "h", "x": 0, "xanchor": "left", "y": 1, "yanchor": "top", "yref": "container"}
    look = {"len": 1, "thickness": 8, "outlinewidth": 0, "nticks": 5, "tickformat": "d"}
    return {**where, **look, "tickprefix": "step ", "showtickprefix": "first"}


def _mark_steps(
    figure: go.Figure, path: tuple[np.ndarray, np.ndarray, np.ndarray], best_step: int | None, alarms: Collection[int]
) -> None:
    """Name the first, the last, the best and the alarms' points; a ring around the best."""
    steps, x, y = path
    named = {0, steps.size - 1} | set(np.flatnonzero(steps == best_step).tolist())
    late = set(np.flatnonzero(np.isin(steps, list(alarms))).tolist())
    placed: list[tuple[float, float]] = []
    for i in [*sorted(named), *sorted(late - named)]:
        best = steps[i] == best_step
        text = ("best, " if best else "") + ("alarm, " if i in late else "") + f"step {steps[i]}"
        side = "right" if x[i] > (x.min() + x.max()) / 2 else "left"
        across, up = (ROOM[k] * (part[i] - part.min()) / (np.ptp(part) or 1) for k, part in enumerate((x, y)))
        shift = -18 if best else 16
        if i not in named:
            shift = next((way for way in SHIFTS if _room((across, up + way), placed)), shift)
        placed.append((across, up + shift))
        figure.add_annotation(x=float(x[i]), y=float(y[i]), text=text, showarrow=False, xanchor=side, yshift=shift)
        if best:
            ring = {"size": 19, "color": "rgba(0,0,0,0)", "line": {"color": GREEN, "width": 2.5}}
            figure.add_scatter(
                x=[float(x[i])], y=[float(y[i])], mode="markers", marker=ring, hoverinfo="skip", name="best"
            )
    figure.update_layout(showlegend=False)


def _room(at: tuple[float, float], placed: Sequence[tuple[float, float]]) -> bool:
    """Whether a name at these pixels leaves the others readable."""
    return all(abs(at[0] - x) > 130 or abs(at[1] - y) > 15 for x, y in placed)


def _teacher_line(figure: go.Figure, golden: Curve) -> None:
    """Perfect imitation ends on this line: below it the student beats its teacher."""
    value = teacher_value(golden)
    if value is None:
        return
    label = {"text": f"the teacher's own, {value:.3f}", "font": {"color": GREY, "size": 12}}
    figure.add_hline(y=value, line=TEACHER, annotation=label, annotation_position="top right")
    levels = [*golden.per_token.tolist(), value]
    margin = 0.06 * (max(levels) - min(levels))  # Plotly would lay the lowest line upon the axis
    figure.update_yaxes(autorangeoptions_include=[value - margin, value + margin])
