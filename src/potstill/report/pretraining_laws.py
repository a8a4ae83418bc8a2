"""The fitted laws in the file: the curve of a difference over the teacher's gap, and a table of what was fitted.

A law of differences is d = sum of c_ij w^i x^j, with w the weight and x the teacher's loss minus the
twin's, and where it knows several students s10 w n, with n the log of the student's body parameters over
their mean. Laws of another form are named in the table and drawn nowhere.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from potstill.report.lab import number
from potstill.report.pretraining_measures import HELD_OUT

COEFFICIENT = re.compile(r"c(\d)(\d)")
SIZED = "s10"
POINTS = 41
KINDS = {
    "difference": "student minus twin",
    "supervised": "models without a teacher",
    "student": "students at weight 1",
}


@dataclass(frozen=True, slots=True)
class LawRow:
    """One law, or why there is none."""

    measure: str
    kind: str
    equation: str
    parameters: tuple[str, ...]
    explained: str
    why: str


def difference_law(raw: Mapping[str, Any], measure: str) -> Mapping[str, Any] | None:
    """The fitted law of differences of a measure, where there is one that this page can draw."""
    law = ((raw.get("laws") or {}).get("measures") or {}).get(measure, {}).get("difference") or {}
    parameters = law.get("parameters") or {}
    known = all(name == SIZED or COEFFICIENT.fullmatch(name) for name in parameters)
    return law if law.get("status") == "fitted" and parameters and known else None


def gap_set(raw: Mapping[str, Any], measure: str, domain: str) -> str:
    """On which set a teacher's strength is taken: the law's, else the measure's own, else held-out text."""
    said = ((raw.get("laws") or {}).get("measures") or {}).get(measure, {}).get("set_of_gap")
    sets = (raw.get("corpus") or {}).get("sets") or {}
    return str(said) if said else measure if domain in ("in", "out") and measure in sets else HELD_OUT


def law_curve(
    raw: Mapping[str, Any], measure: str, size: str, weight: float, between: tuple[float, float]
) -> tuple[list[float], list[float]] | None:
    """x and d of the fitted law for a size of student at one weight; None where there is no law."""
    law = difference_law(raw, measure)
    body = (raw.get("sizes") or {}).get(size, {}).get("body_parameters")
    if law is None or (SIZED in law["parameters"] and body is None):
        return None
    x = np.linspace(*between, POINTS)
    y = np.zeros(POINTS)
    for name, found in law["parameters"].items():
        power = COEFFICIENT.fullmatch(name)
        if power is None:
            y += float(found["value"]) * weight * np.log(body / law["centre"]["size"])
            continue
        y += float(found["value"]) * weight ** int(power[1]) * x ** int(power[2])
    return x.tolist(), y.tolist()


def law_rows(raw: Mapping[str, Any]) -> list[LawRow]:
    """Every law of the file, measure by measure."""
    found = []
    for measure, laws in ((raw.get("laws") or {}).get("measures") or {}).items():
        for kind, title in KINDS.items():
            law = laws.get(kind)
            if isinstance(law, Mapping):
                found.append(_row(str(measure), title, law))
    return found


def _row(measure: str, kind: str, law: Mapping[str, Any]) -> LawRow:
    parameters = tuple(
        f"{name} {number(one.get('value'))} ({number(one.get('low'))} to {number(one.get('high'))})"
        + (", at its bound" if one.get("at_bound") else "")
        for name, one in (law.get("parameters") or {}).items()
    )
    residual = law.get("residual") or {}
    explained, rms = residual.get("explained"), residual.get("rms")
    parts = [f"{100 * explained:.0f} % of the squares" if explained is not None else ""]
    parts += [f"scatter {number(rms)}" if rms is not None else ""]
    left_out = law.get("left_out_error")
    parts += [f"{number(left_out)} on what was left out" if left_out is not None else ""]
    return LawRow(
        measure,
        kind,
        str(law.get("equation") or ""),
        parameters,
        ", ".join(part for part in parts if part),
        str(law.get("why") or ""),
    )
