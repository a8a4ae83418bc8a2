"""What all figures share: colours, axes, lines, bands, and the teacher's line.

Text and grid colours are left to the page, which knows whether it is read in
light or dark; the colours of the data are of middling lightness and show on
both. Coordinates are plain lists, so that the numbers can be read in the file.
"""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np
import plotly.graph_objects as go

from potstill.records import Curve
from potstill.report.numbers import band

BLUE, ORANGE, GREEN, GREY = "#3a7fc1", "#d9742b", "#2a9d78", "#8a8f98"
PALETTE = (BLUE, ORANGE, GREEN, "#9a6bc4", "#c9504f", "#948a2c", "#2599ad", "#c2609a")
DASHES = ("solid", "dot", "dashdot", "longdash")
TEACHER = {"color": GREY, "width": 1.6, "dash": "dash"}
STEPS = "optimiser steps"


def colour_of(number: int) -> str:
    """The colour of the run or term with this number; `dash_of` tells repeats apart."""
    return PALETTE[number % len(PALETTE)]


def dash_of(number: int) -> str:
    return DASHES[number // len(PALETTE) % len(DASHES)]


def words(name: str) -> str:
    """A name for Plotly, which takes some HTML in texts: names come from files and are escaped."""
    return escape(name.replace("_", " "))


def faint(colour: str, opacity: float = 0.18) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"


def line(x: np.ndarray, y: np.ndarray, name: str, colour: str, width: float) -> dict[str, Any]:
    """A trace over steps; Plotly marks the points where they are few."""
    look = {"color": colour, "width": width}
    hover = f"step %{{x:.0f}}: %{{y:.4g}}<extra>{words(name)}</extra>"
    return {"x": x.tolist(), "y": y.tolist(), "name": words(name), "line": look, "hovertemplate": hover}


def add_curve(figure: go.Figure, curve: Curve, name: str, colour: str, dash: str = "solid") -> None:
    """A curve with its 95 % band over prompts, where it has one. `name` is already safe."""
    steps = curve.steps.tolist()
    edges = band(curve)
    if edges is not None:
        figure.add_scatter(
            x=steps + steps[::-1],
            y=edges[0].tolist() + edges[1][::-1].tolist(),
            mode="lines",
            fill="toself",
            fillcolor=faint(colour),
            line={"width": 0},
            hoverinfo="skip",
            showlegend=False,
            legendgroup=name,
        )
    figure.add_scatter(
        x=steps,
        y=curve.per_token.tolist(),
        name=name,
        mode="lines+markers",
        line={"color": colour, "width": 2, "dash": dash},
        marker={"size": 5},
        hovertemplate="step %{x}: %{y:.4f}<extra>" + name + "</extra>",
        legendgroup=name,
    )


def add_level(figure: go.Figure, ends: tuple[float, float], value: float, name: str, colour: str = GREY) -> None:
    """A teacher's own value, drawn from one of `ends` to the other."""
    look = TEACHER | {"color": colour}
    figure.add_scatter(x=list(ends), y=[value, value], name=name, mode="lines", line=look, hoverinfo="name")


def finish(figure: go.Figure, x_title: str | None, height: int) -> None:
    """Sizes, fonts, margins and axes."""
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
