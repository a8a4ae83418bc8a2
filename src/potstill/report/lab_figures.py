"""The figures of the lab's page: the plane, the curves over epochs, the laws on log axes, and where arms ended.

A thick line is the mean over seeds, thin ones are the seeds. An arm's entry in the
legend switches all of its lines.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from potstill.report.drawing import GREY, finish, words
from potstill.report.lab_arms import ORACLE
from potstill.report.lab_lines import (
    Drawing,
    Points,
    add_law,
    add_teachers,
    listed,
    mean_path,
    name_once,
    opened,
    thick,
    thin,
    with_levels,
)
from potstill.report.lab_reading import Cell, mean_over_seeds

UNIT = "nats per sequence"
X_TITLE = f"forward KL to the teacher, {UNIT}"
Y_TITLE = f"golden, {UNIT}"
EPOCHS = "epochs"
PANELS = {"golden": "golden", "proxy": "proxy", "training_loss": "training loss"}
FAR = ("few_epochs", ORACLE)  # end so far from the others that these could not be told apart
#: Plotly's own labels on log axes are a digit without its power of ten.
LOG_TICKS = [digit * 10.0**power for power in range(-4, 6) for digit in (1, 2, 5)]
PLANE_HOVER = "epoch %{customdata:.1f}<br>forward KL %{x:.4g}<br>golden %{y:.4g}"


def plane(drawn: Drawing, whole: bool) -> go.Figure | None:
    """Forward KL against golden, an arm a path whose markers grow; None where no arm has both."""
    figure = go.Figure()
    points: Points = []
    near: Points = []  # of all but the control, which ends so low that the others would be one point
    starts: dict[tuple[float, float], None] = {}
    for arm in drawn.arms:
        cells, look = drawn.results.of(arm), drawn.looks[arm]
        for cell in cells:
            x, y = cell.series["proxy_fkl"], cell.series["golden"]
            points.append((cell.epochs, x, y))
            near += [] if arm == ORACLE else points[-1:]
            figure.add_scatter(x=listed(x), y=listed(y), **thin(look, arm))
        epochs, x, y = mean_path(cells)
        if epochs.size:
            starts[round(float(x[0]), 2), round(float(y[0]), 2)] = None
            time = np.linspace(0, 1, epochs.size)
            path = thick(x, y, look, arm, PLANE_HOVER) | {"customdata": epochs.tolist()}
            path["marker"] |= {"size": (4 + 7 * time).tolist(), "opacity": (0.4 + 0.6 * time).tolist()}
            figure.add_scatter(**path)
    if not starts:
        return None
    everything = np.concatenate([x[np.isfinite(x)] for _, x, _ in points])
    between = float(everything.min()), float(everything.max())
    levels = _add_rulers(figure, drawn, between)
    _mark_starts(figure, list(starts))
    _finish_plane(figure, drawn.arms)
    view = None if whole else opened(near or points)
    if view is not None:
        figure.update_xaxes(range=view[0])
        figure.update_yaxes(range=with_levels(view[1], levels))
    return figure


def ends(drawn: Drawing) -> go.Figure | None:
    """Every arm from golden's lowest point (open) to its last (filled), means over seeds; None without a plane."""
    figure = go.Figure()
    reach: list[float] = []
    for arm in drawn.arms:
        epochs, x, y = mean_path(drawn.results.of(arm))
        if not epochs.size:
            continue
        look, pair = drawn.looks[arm], [int(np.argmin(y)), epochs.size - 1]
        far = arm in FAR
        reach += [] if far else x[pair].tolist()
        path = thick(x[pair], y[pair], look, arm, PLANE_HOVER) | {"customdata": epochs[pair].tolist()}
        path["line"] |= {"width": 1.5}
        path["marker"] |= {"symbol": [f"{look.symbol}-open", look.symbol], "size": [9, 12]}
        path["marker"] |= {"line": {"width": 1.5, "color": look.colour}}
        figure.add_scatter(**path | {"visible": "legendonly" if far else True})
    if not reach:
        return None
    _finish_plane(figure, drawn.arms)
    common = next(iter(drawn.teachers()), None)
    if common is not None:
        add_teachers(figure, Drawing(drawn.results, [common], drawn.looks), (min(reach), max(reach)))
        name_once(figure)
    return figure


def curves(drawn: Drawing, until: float | None = None) -> go.Figure:
    """Golden, proxy and training loss over epochs (to epoch `until`, where given), one above the other."""
    figure = make_subplots(rows=len(PANELS), cols=1, shared_xaxes=True, vertical_spacing=0.045)
    last = until or max((float(cell.epochs.max()) for cell in _cells(drawn) if cell.epochs.size), default=1.0)
    for row, (name, title) in enumerate(PANELS.items(), start=1):
        place = {"row": row, "col": 1}
        lines: Points = []
        for arm in drawn.arms:
            cells, look = drawn.results.of(arm), drawn.looks[arm]
            for cell in cells:
                lines.append((cell.epochs, cell.epochs, cell.series[name]))
                figure.add_scatter(x=listed(cell.epochs), y=listed(cell.series[name]), **thin(look, arm), **place)
            epochs, values = mean_over_seeds(cells, name)
            if epochs.size:
                hover = f"epoch %{{x:.1f}}<br>{title} %{{y:.4g}}"
                figure.add_scatter(**thick(epochs, values, look, arm, hover), **place)
        levels = add_teachers(figure, drawn, (0.0, last), **place) if name == "golden" else []
        view = opened(lines, until)
        if view is not None:
            figure.update_yaxes(range=with_levels(view[1], levels), **place)
        figure.update_yaxes(title_text=title, **place)
    _finish_rows(figure, drawn.arms, len(PANELS), height=720)
    return figure.update_xaxes(range=[-0.03 * last, 1.04 * last])


def laws(drawn: Drawing) -> go.Figure | None:
    """Training loss and proxy on log axes: points are means, lines the fitted laws, crosses their breaks."""
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.06)
    for row, name in enumerate(("training_loss", "proxy"), start=1):
        place = {"row": row, "col": 1}
        for arm in drawn.arms:
            epochs, values = mean_over_seeds(drawn.results.of(arm), name)
            keep = (epochs > 0) & (values > 0)
            if not keep.any():
                continue
            look, law = drawn.looks[arm], drawn.results.laws(arm).get(name)
            hover = f"epoch %{{x:.3g}}<br>{PANELS[name]} %{{y:.4g}}"
            points = thick(epochs[keep], values[keep], look, arm, hover) | {"mode": "markers"}
            figure.add_scatter(**points, **place)
            if law is not None:
                add_law(figure, law, float(epochs[keep][-1]), look, arm, **place)
        figure.update_yaxes(title_text=PANELS[name], **place)
    if not figure.data:
        return None
    _finish_rows(figure, drawn.arms, rows=2, height=520)
    axis = {"type": "log", "tickvals": LOG_TICKS, "ticktext": [f"{tick:g}" for tick in LOG_TICKS]}
    figure.update_xaxes(**axis)
    return figure.update_yaxes(**axis)


def _cells(drawn: Drawing) -> list[Cell]:
    return [cell for arm in drawn.arms for cell in drawn.results.of(arm)]


def _add_rulers(figure: go.Figure, drawn: Drawing, between: tuple[float, float]) -> list[float]:
    """The teachers' lines, and the diagonal on which a teacher lies that is the oracle."""
    reach = mean_path(drawn.results.of(ORACLE))[1].tolist() if ORACLE in drawn.arms else []
    if reach:
        look = {"line": {"color": GREY, "width": 1, "dash": "dot"}, "name": "forward KL = golden", "hoverinfo": "name"}
        both = [min(reach), max(reach)]
        figure.add_scatter(x=both, y=both, mode="lines", legendgroup="diagonal", **look)
    return add_teachers(figure, drawn, between)


def _mark_starts(figure: go.Figure, starts: Sequence[tuple[float, float]]) -> None:
    """A ring around the student that nobody has trained yet."""
    x, y = (list(values) for values in zip(*starts, strict=True))
    ring = {"symbol": "circle-open", "size": 17, "color": GREY, "line": {"width": 2, "color": GREY}}
    figure.add_scatter(
        x=x, y=y, mode="markers", marker=ring, name=words("start"), legendgroup="start", hoverinfo="name"
    )


def _finish_plane(figure: go.Figure, arms: Sequence[str]) -> None:
    finish(figure, X_TITLE, height=440 + _legend(arms))
    name_once(figure)
    figure.update_layout(yaxis_title_text=Y_TITLE, showlegend=True)


def _finish_rows(figure: go.Figure, arms: Sequence[str], rows: int, height: int) -> None:
    finish(figure, None, height=height + _legend(arms))
    name_once(figure)
    figure.update_layout(showlegend=True)
    figure.update_xaxes(title_text=EPOCHS, row=rows, col=1)


def _legend(arms: Sequence[str]) -> int:
    """Pixels that the legend may take on a telephone."""
    return 14 * len(arms)
