"""What the lab's figures are made of: an arm's thick mean and thin seeds, the teachers' lines, a fitted law.

Where the first evaluations would take all the room, `opened` gives the ranges that
an axis opens on; a double click on the figure shows everything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

from potstill.report.drawing import GREY, TEACHER, faint, words
from potstill.report.lab_arms import ORACLE, Look
from potstill.report.lab_reading import Cell, Law, Results, mean_over_seeds

SKIPPED = 1 / 4  # share of an arm's epochs that the opened view leaves out
CROWDED = 1 / 2  # it is worth it when the rest fills less than this of the room
ROOM = 0.07  # of the extent, left free on both sides
Points = list[tuple[np.ndarray, np.ndarray, np.ndarray]]  # epochs, x, y of one line each
Range = list[float]


@dataclass(frozen=True, slots=True)
class Drawing:
    """What all figures of one comparison share."""

    results: Results
    arms: Sequence[str]
    looks: Mapping[str, Look]

    def teachers(self) -> dict[str, dict[int, float]]:
        """Golden of the teacher by arm and seed; an arm with the teacher of one before it has no entry.

        A teacher that is the oracle has golden 0 and no line: its arm lies on the plane's diagonal.
        """
        found: dict[str, dict[int, float]] = {}
        for arm in self.arms:
            cells = self.results.of(arm)
            values = {cell.seed: cell.teacher_golden for cell in cells if cell.teacher_golden is not None}
            if arm != ORACLE and values and not any(_same(values, other) for other in found.values()):
                found[arm] = values
        return found


def thin(look: Look, arm: str) -> dict[str, Any]:
    """How one seed looks."""
    line = {"color": faint(look.colour, 0.4), "width": 1}
    return {"mode": "lines", "line": line, "hoverinfo": "skip", "showlegend": False, "legendgroup": arm}


def thick(x: np.ndarray, y: np.ndarray, look: Look, arm: str, hover: str) -> dict[str, Any]:
    """The mean over seeds, with a marker at every evaluation."""
    return {
        "x": x.tolist(),
        "y": y.tolist(),
        "name": words(look.words),
        "legendgroup": arm,
        "showlegend": False,  # until name_once
        "mode": "lines+markers",
        "line": {"color": look.colour, "width": 2.4, "dash": look.dash},
        "marker": {"symbol": look.symbol, "color": look.colour, "size": 6, "line": {"width": 0}},
        "hovertemplate": f"{hover}<extra>{words(look.words)}</extra>",
    }


def listed(values: np.ndarray) -> list[float | None]:
    """For JSON, which has no NaN: Plotly leaves a gap at null."""
    return [float(value) if np.isfinite(value) else None for value in values]


def mean_path(cells: Sequence[Cell]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Epochs, forward KL and golden, means over seeds, where both were measured."""
    at_x, x = mean_over_seeds(cells, "proxy_fkl")
    at_y, y = mean_over_seeds(cells, "golden")
    epochs, left, right = np.intersect1d(at_x, at_y, return_indices=True)
    return epochs, x[left], y[right]


def name_once(figure: go.Figure) -> None:
    """One entry in the legend for every arm that has a line, whichever panel it is in."""
    named: set[str] = set()
    for trace in figure.data:
        if trace.name is not None and trace.legendgroup not in named:
            trace.showlegend = True
            named.add(trace.legendgroup)


def opened(lines: Points, until: float | None = None) -> tuple[Range, Range] | None:
    """Ranges of x and y that hold all but the first evaluations; None where leaving them out shows no more.

    With `until` they hold every point up to that epoch, the first ones too.
    """
    whole: list[np.ndarray] = []
    rest: list[np.ndarray] = []
    for epochs, x, y in lines:
        known = np.isfinite(x) & np.isfinite(y) & (epochs <= (np.inf if until is None else until))
        if known.any():
            late = known & (epochs >= (SKIPPED * epochs[known][-1] if until is None else 0))
            whole.append(np.stack([x[known], y[known]]))
            rest.append(np.stack([x[late], y[late]]))
    if not rest:
        return None
    kept = np.concatenate(rest, axis=1)
    extent, full = np.ptp(kept, axis=1), np.ptp(np.concatenate(whole, axis=1), axis=1)
    if until is None and np.all(extent >= CROWDED * full):
        return None
    room = ROOM * np.maximum(extent, 1e-9)
    low, high = (kept.min(axis=1) - room).tolist(), (kept.max(axis=1) + room).tolist()
    return [low[0], high[0]], [low[1], high[1]]


def with_levels(found: Range, levels: Iterable[float]) -> Range:
    """A range that also holds the teachers' lines, unless they are so far away that it would be crowded again."""
    extent = found[1] - found[0]
    near = [level for level in levels if found[0] - extent <= level <= found[1] + extent]
    room = ROOM * extent
    return [min([found[0], *(level - room for level in near)]), max([found[1], *(level + room for level in near)])]


def add_teachers(figure: go.Figure, drawn: Drawing, between: tuple[float, float], **place: int) -> list[float]:
    """The teachers' own golden: dashed at the mean over seeds, shaded from the lowest seed to the highest.

    Returns the heights that a range of y should hold.
    """
    heights: list[float] = []
    teachers = drawn.teachers()
    for arm, by_seed in teachers.items():
        common = arm == next(iter(teachers))
        colour = GREY if common else drawn.looks[arm].colour
        name = "the teacher's own golden" if common else f"teacher of {words(drawn.looks[arm].words)}"
        values, x = list(by_seed.values()), list(between)
        low, high, mean = min(values), max(values), float(np.mean(values))
        group = {"legendgroup": f"teacher of {arm}", "showlegend": False, "mode": "lines"}
        if high > low:
            shade = {"fill": "toself", "fillcolor": faint(colour, 0.22), "line": {"width": 0}, "hoverinfo": "skip"}
            figure.add_scatter(x=x + x[::-1], y=[low, low, high, high], **shade, **group, **place)
        look = {"line": TEACHER | {"color": colour}, "name": f"{name}, {mean:.2f}", "hoverinfo": "name"}
        figure.add_scatter(x=x, y=[mean, mean], **look, **group, **place)
        heights += [low, high]
    return heights


def add_law(figure: go.Figure, law: Law, last: float, look: Look, arm: str, **place: int) -> None:
    """Whole where it was fitted, dotted from there to the `last` epoch, a cross where the curve leaves it."""
    group = {"legendgroup": arm, "showlegend": False}
    extra = f"<extra>{words(look.words)}</extra>"
    for start, end, dash in ((law.start, law.end, "solid"), (law.end, last, "dot")):
        if end > start > 0:
            at = np.array([start, end])
            line = {"mode": "lines", "line": {"color": look.colour, "width": 1.6, "dash": dash}, **group}
            hover = f"epochs to the power of {law.exponent:.3g}{extra}"
            figure.add_scatter(x=at.tolist(), y=law.at(at).tolist(), hovertemplate=hover, **line, **place)
    if law.break_epoch is not None:
        at = np.array([law.break_epoch])
        marker = {"symbol": "x-thin", "size": 14, "line": {"color": look.colour, "width": 3}}
        hover = f"leaves its law at epoch {law.break_epoch:.3g}{extra}"
        cross = {"mode": "markers", "marker": marker, "hovertemplate": hover, **group}
        figure.add_scatter(x=at.tolist(), y=law.at(at).tolist(), **cross, **place)


def _same(values: Mapping[int, float], other: Mapping[int, float]) -> bool:
    """Whether two arms had one teacher, judged by the seeds that both have."""
    shared = set(values) & set(other)
    return bool(shared) and all(np.isclose(values[seed], other[seed], rtol=1e-6) for seed in shared)
