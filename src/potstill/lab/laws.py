"""The laws of a pretraining lab: what loss a plain model has, and what a teacher changes of it.

`fit_laws` turns results.json's dictionary into the value of its key "laws", plain JSON:

    version        1
    measures       {measure: MEASURE}: "held_out", the other sets, "<benchmark> accuracy", "<benchmark> margin"

    MEASURE        domain ("in", "out", "downstream"), unit, better ("lower", "higher"), set_of_gap (where x is taken),
                   difference: LAW; of sets of text also supervised: LAW and student: LAW

    LAW            status         "fitted" or "none"
                   why            one sentence: why this form, or why there is no law
                   form, equation, source
                   parameters     {name: {value, low, high, at_bound}} as in the equation; 95 % intervals
                   theta          the searched coefficients (logarithms, for supervised and student); centre: {size,
                                  tokens}, the middle N0, D0 of the grid (geometric means)
                   draws          [[...]] theta of each bootstrap; bootstrap: {draws, groups, seeds, words}
                   points         distinct inputs; models: how many models are behind them
                   residual       {rms, largest, rms_per_cent, largest_per_cent, explained}: for losses relative to the
                                  loss; for differences in their unit, in per cent of the twin's loss (null where the
                                  unit is no loss), and the share of the differences' squares that the law explains
                   left_out_error root mean square on what was left out; left_out: each such residual
                   cells          [{inputs..., measured, fitted, low, high}]
                   range          {input: [lowest, highest]} of what was measured
                   forms          [{form, equation, parameters, status, why, left_out_error}] of all that were tried

A law without enough points has status "none", why, points and forms, and nothing else. The supervised
law leaves one cell out at a time, the others one teacher. `student` (Busbridge et al.) is fitted to pure
distillation (weight 1) alone, and is "none" where it errs, on teachers that it has not seen, as much as
taking the twin's loss or the teacher's loss would.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from potstill.lab.law_choice import Candidate, Choice, Curved, Fitted, Points, Straight, choose
from potstill.lab.law_draws import DRAWS, SeedScatter, draws_of
from potstill.lab.law_forms import DIFFERENCE, DIFFERENCE_FORMS, FORMS, SIZED_DIFFERENCE, STUDENT, SUPERVISED
from potstill.lab.law_points import Grid, Measure, Pairs, grid_of, measures_of, models_of, pairs_of

VERSION = 1


def fit_laws(results: Mapping[str, Any], seed: int = 0) -> dict[str, Any]:
    """The value of results.json's key "laws"; see the module. The same for the same results and seed.

    Raises ValueError where `results` has no list of models. An empty or stopped grid gives laws of status "none".
    """
    models = models_of(results)
    sets = (results.get("corpus") or {}).get("sets") or {}
    found = {}
    for measure in measures_of(models, sets):
        pairs = pairs_of(models, measure)
        entry: dict[str, Any] = {
            "domain": measure.domain,
            "unit": measure.unit,
            "better": measure.better,
            "set_of_gap": measure.set_of_gap,
        }
        if measure.domain != "downstream":
            entry["supervised"] = supervised_law(grid_of(models, measure), seed)
            entry["student"] = student_law(pairs, seed)
        entry["difference"] = difference_law(pairs, measure, seed)
        found[measure.name] = entry
    return {"version": VERSION, "measures": found}


# -- one law each ---------------------------------------------------------------


def supervised_law(grid: Grid, seed: int = 0) -> dict[str, Any]:
    """L(N, D) of models without a teacher."""
    count = len(grid.tokens)
    if count == 0:
        return no_law("no teacher or twin was measured", 0, ())
    centre = {"size": geometric_mean(grid.body), "tokens": geometric_mean(grid.tokens)}
    at = {"size": np.log(grid.body / centre["size"]), "tokens": np.log(grid.tokens / centre["tokens"])}
    distinct = {"size": len(set(grid.body)), "tokens": len(set(grid.tokens))}
    points = Points(at, grid.means, np.arange(count), distinct, count)
    usable = [form for form in SUPERVISED if form.name != "tokens" or distinct["size"] == 1]
    choice = choose([Curved(form, seed) for form in usable], points)
    if choice.chosen is None:
        return no_law(choice.why, count, choice.tried)
    inputs = {"body_parameters": grid.body, "tokens": grid.tokens}
    models = sum(len(cell) for cell in grid.losses)
    law = curved_law(choice, choice.chosen, points, centre, inputs, models, seed)
    law["bootstrap"]["seeds"] = max(len(cell) for cell in grid.losses)
    return law


def student_law(pairs: Pairs, seed: int = 0) -> dict[str, Any]:
    """The distillation law of Busbridge et al., of students at weight 1."""
    pure = np.flatnonzero(pairs.weights == 1.0)
    if len(pure) == 0:
        return no_law("no student was distilled at weight 1, which this law is about", 0, ())
    twin = np.nanmean(pairs.twin_loss[pure], axis=1)
    body, tokens, teacher = pairs.body[pure], pairs.tokens[pure], pairs.teacher_loss[pure]
    centre = {"size": geometric_mean(body), "tokens": geometric_mean(tokens)}
    at = {
        "size": np.log(body / centre["size"]),
        "tokens": np.log(tokens / centre["tokens"]),
        "teacher_loss": teacher,
        "supervised_loss": twin,
    }
    distinct = {"size": len(set(body)), "tokens": len(set(tokens)), "teacher_loss": len(set(teacher))}
    groups = numbered([pairs.teachers[index] for index in pure])
    student = np.nanmean(pairs.twin_loss[pure] + pairs.differences[pure], axis=1)
    points = Points(at, student, groups, distinct, len(pure))
    one_budget = len({(*pair,) for pair in zip(body, tokens, strict=True)}) == 1
    usable = [form for form in STUDENT if one_budget or form.name != "busbridge one budget"]
    choice = choose([Curved(form, seed) for form in usable], points)
    note = below_teacher(student, teacher)
    if choice.chosen is None:
        return no_law(choice.why + note, len(pure), choice.tried)
    naive = min(root_mean_square(np.log(student / twin)), root_mean_square(np.log(student / teacher)))
    if choice.chosen.error >= naive:
        found = f"the form errs by {100 * choice.chosen.error:.2g} % on teachers that it has not seen"
        why = f"{found}, and taking the twin's or the teacher's loss by {100 * naive:.2g} %{note}"
        return no_law(why, len(pure), choice.tried)
    inputs = {"body_parameters": body, "tokens": tokens, "teacher_loss": teacher, "twin_loss": twin}
    models = int((~np.isnan(pairs.differences[pure])).sum())
    law = curved_law(choice, choice.chosen, points, centre, inputs, models, seed)
    law["bootstrap"]["seeds"] = len(pairs.seeds)
    return law | {"why": law["why"] + note}


def difference_law(pairs: Pairs, measure: Measure, seed: int = 0) -> dict[str, Any]:
    """d, student minus twin, over the gap x, the weight w and, where several were measured, the student's size."""
    count = len(pairs.weights)
    if count == 0:
        return no_law("no student has both a twin of its seed and a measured teacher", 0, ())
    teachers = sorted(set(pairs.teachers))
    centre = {"size": geometric_mean(pairs.body)}
    at = {"gap": pairs.gaps, "weight": pairs.weights, "size": np.log(pairs.body / centre["size"])}
    distinct = {"weights": len(set(pairs.weights)), "teachers": len(teachers), "size": len(set(pairs.body))}
    points = Points(at, pairs.means, numbered(pairs.teachers), distinct, len(set(zip(*at.values(), strict=True))))
    forms = (*DIFFERENCE, *(SIZED_DIFFERENCE if distinct["size"] > 1 else ()))
    candidates: list[Candidate] = [Straight(form) for form in forms]
    choice = choose(candidates, points)
    fitted = choice.chosen
    if fitted is None:
        return no_law(choice.why, points.points, choice.tried)
    form = DIFFERENCE_FORMS[fitted.candidate.form.name]
    in_x = len({power for _, power in form.powers})
    scatter = SeedScatter(pairs.differences, len(teachers) - in_x)
    draws = draws_of(fitted, points, scatter, seed)
    inputs = {"x": pairs.gaps, "weight": pairs.weights, "body_parameters": pairs.body, "tokens": pairs.tokens}
    law = law_of(choice, fitted, points, draws, inputs, int((~np.isnan(pairs.differences)).sum()))
    values = dict(zip(form.names, fitted.theta, strict=True))
    spread = {name: draws[:, index] for index, name in enumerate(form.names)}
    law["parameters"] = {name: interval(values[name], spread[name], False) for name in form.names}
    base = np.nanmean(pairs.twin_loss, axis=1) if measure.better == "lower" else None
    law["residual"] = difference_residual(fitted, points, base)
    law["bootstrap"]["seeds"] = len(pairs.seeds)
    names = zip(law["cells"], pairs.teachers, pairs.sizes, strict=True)
    law["cells"] = [{"teacher": teacher, "size": size} | cell for cell, teacher, size in names]
    law["source"] = "a polynomial in x and w that is 0 at w = 0" + (", and w n" if form.sized else "")
    law["centre"] = centre
    if len(set(zip(pairs.body, pairs.tokens, strict=True))) == 1:
        law["why"] += "; one student budget was measured, so whether d depends on it other than by x is not known"
    return law


# -- what they share ------------------------------------------------------------


def no_law(why: str, points: int, tried: tuple[dict[str, Any], ...]) -> dict[str, Any]:
    return {"status": "none", "why": why, "points": points, "forms": list(tried)}


def curved_law(
    choice: Choice,
    fitted: Fitted,
    points: Points,
    centre: Mapping[str, float],
    inputs: Mapping[str, np.ndarray],
    models: int,
    seed: int,
) -> dict[str, Any]:
    """A law in logarithms of coefficients, with plain values beside them."""
    draws = draws_of(fitted, points, None, seed)
    law = law_of(choice, fitted, points, draws, inputs, models)
    form = FORMS[fitted.candidate.form.name]
    plain, others = form.plain(fitted.theta, centre), [form.plain(row, centre) for row in draws]
    bounds = form.bounds(points.values)
    edge = np.isclose(fitted.theta[:, None], bounds, atol=1e-3).any(1)
    law["parameters"] = {
        kind: interval(plain[kind], np.array([row[kind] for row in others]), bool(edge[index]))
        for index, kind in enumerate(form.kinds)
    }
    relative = fitted.candidate.residuals(points.values, fitted.candidate.predict(fitted.theta, points.at))
    rms, largest = root_mean_square(relative), float(np.abs(relative).max())
    law["residual"] = {"rms": rms, "largest": largest, "rms_per_cent": 100 * rms, "largest_per_cent": 100 * largest}
    return law | {"centre": dict(centre), "source": form.source}


def law_of(
    choice: Choice,
    fitted: Fitted,
    points: Points,
    draws: np.ndarray,
    inputs: Mapping[str, np.ndarray],
    models: int,
) -> dict[str, Any]:
    """The keys that all laws have."""
    groups = int(points.groups.max()) + 1
    predicted = fitted.candidate.predict(fitted.theta, points.at)
    low, high = np.quantile(fitted.candidate.predict(draws, points.at), (0.025, 0.975), axis=0)
    columns = {**inputs, "measured": points.values, "fitted": predicted, "low": low, "high": high}
    rows = zip(*columns.values(), strict=True)
    return {
        "status": "fitted",
        "why": choice.why,
        "form": fitted.candidate.form.name,
        "equation": fitted.candidate.form.equation,
        "theta": rounded(fitted.theta),
        "draws": [rounded(row) for row in draws],
        "bootstrap": {"draws": DRAWS, "groups": groups, "words": f"{DRAWS} redrawn data sets over {groups} groups"},
        "points": points.points,
        "models": models,
        "left_out_error": fitted.error,
        "left_out": rounded(fitted.left_out),
        "cells": [dict(zip(columns, map(float, row), strict=True)) for row in rows],
        "range": {name: [float(column.min()), float(column.max())] for name, column in inputs.items()},
        "forms": list(choice.tried),
    }


def difference_residual(fitted: Fitted, points: Points, base: np.ndarray | None) -> dict[str, float | None]:
    """Scatter around a law of differences; `base` [n] is the twins' loss on the set of the gap."""
    residual = points.values - fitted.candidate.predict(fitted.theta, points.at)
    squares = float((points.values**2).sum())
    relative = None if base is None else residual / base
    return {
        "rms": root_mean_square(residual),
        "largest": float(np.abs(residual).max()),
        "rms_per_cent": None if relative is None else 100 * root_mean_square(relative),
        "largest_per_cent": None if relative is None else 100 * float(np.abs(relative).max()),
        "explained": 1 - float((residual**2).sum()) / squares if squares > 0 else None,
    }


def below_teacher(student: np.ndarray, teacher: np.ndarray) -> str:
    """The form lies above the teacher's loss everywhere; say where the students do not."""
    count = int((student < teacher).sum())
    if count == 0:
        return ""
    return f"; {count} of {len(student)} students end below their teacher's loss, which this form cannot describe"


def interval(value: float, draws: np.ndarray, at_bound: bool) -> dict[str, Any]:
    low, high = np.quantile(draws, (0.025, 0.975))
    return {"value": float(value), "low": float(low), "high": float(high), "at_bound": at_bound}


def root_mean_square(values: np.ndarray) -> float:
    return float(np.sqrt((values**2).mean()))


def geometric_mean(values: np.ndarray) -> float:
    return float(np.exp(np.log(values).mean()))


def numbered(names: tuple[str, ...] | list[str]) -> np.ndarray:
    """Each name as its index among the sorted ones."""
    order = {name: index for index, name in enumerate(sorted(set(names)))}
    return np.array([order[name] for name in names])


def rounded(values: np.ndarray) -> list[float]:
    """Eight significant digits: draws are many, and results.json is read by people too."""
    return [float(f"{value:.8g}") for value in values]
