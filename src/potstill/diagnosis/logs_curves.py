"""From a log's table to curves: rows in order of their steps, the training loss between evaluations.

A table with prompt_id is one row per step and prompt (and completion), and gives each
prompt a curve. One without is a table of means. The training loss of an evaluation is the
mean of what was logged since the one before, as in a run of our own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from potstill.diagnosis.logs_columns import SERIES, Columns, refuse_what_lacks, understand
from potstill.diagnosis.logs_table import LogError, LogTable
from potstill.diagnosis.series import MEAN, Cells, PromptMeans, assemble
from potstill.records import Curve

MOST_EPOCH_PARTS = 1_000_000
EPOCH_ERROR = 1e-5  # how far an epoch may be off, by rounding
LARGEST_STEP = 2**53  # beyond it a float is no longer exact


def curves_of_table(table: LogTable, mapping: Mapping[str, str] | None) -> tuple[dict[str, Curve], dict[str, Any]]:
    """Curves by name, and facts: what was read as what, what was left out. Raises LogError."""
    columns = understand(table, mapping)
    refuse_what_lacks(table, columns)
    notes = [*table.notes, *columns.notes]
    steps = _steps(table, columns, notes)
    left_out: dict[str, int] = {}
    cells = _cells(table, columns, steps, left_out)
    if not {"proxy", "golden"} & cells.keys():
        raise LogError(f"{table.where}: no row has both a step and a value of proxy or golden")
    notes += [f"{lost} cells of {name} are NaN or infinite and were left out" for name, lost in left_out.items()]
    notes += [
        f"{column} is kept in the facts; the test does not use it, since the same prompts are asked at each evaluation"
        for column in columns.errors_of_means.values()
    ]
    return assemble(cells, _splits(table, columns)), {
        "kind": table.kind,
        "path": table.where,
        "rows": table.rows,
        "read_as": columns.read_as,
        "unused_columns": columns.unused,
        "left_out": left_out,
        "standard_errors": _errors(table, columns),
        "notes": notes,
    }


def _cells(table: LogTable, columns: Columns, steps: np.ndarray, left_out: dict[str, int]) -> dict[str, Cells]:
    """What was measured, by series and step; `left_out` is filled with how many cells of each were not finite."""
    cells: dict[str, Cells] = {}
    prompts = _prompts(table, columns)
    values = {name: table.numbers(columns.read_as[name]) for name in SERIES if name in columns.read_as}
    for name, series in values.items():
        if lost := table.not_finite(columns.read_as[name], series):
            left_out[name] = lost
        kept = np.isfinite(series) & np.isfinite(steps)
        if name == "training_loss" or not kept.any():
            continue
        at = steps[kept].astype(np.int64)
        if prompts is None:
            cells[name] = _means(table, name, at, series[kept])
        else:
            cells[name] = _per_prompt(table, name, at, series[kept], prompts[0][kept], prompts[1])
    if "training_loss" in values:
        cells |= _training_loss(table, steps, values["training_loss"], cells)
    return cells


# -- steps --------------------------------------------------------------------


def _steps(table: LogTable, columns: Columns, notes: list[str]) -> np.ndarray:
    """[R] whole numbers, NaN where a row has none; epochs stand in where no column holds steps."""
    if "step" in columns.read_as:
        columns.read_as.pop("epoch", None)
        steps = _whole(table, columns.read_as["step"])
    else:
        steps, parts = _parts_of_epochs(table.numbers(columns.read_as["epoch"]))
        unit = f", a step being 1/{parts} epoch" if parts > 1 else ""
        notes.append(f"no column of steps; epochs stand in for them{unit}")
    known = steps[np.isfinite(steps)]
    if not len(known):
        raise LogError(f"{table.where}: no row has a step; expected whole numbers under 'step'")
    if np.abs(known).max() > LARGEST_STEP:
        raise LogError(f"{table.where}: a step of {np.abs(known).max():g} cannot be; mend that cell")
    if len(known) < len(steps):
        notes.append(f"{len(steps) - len(known)} rows without a step were left out")
    if (np.diff(known) < 0).any() and not table.later_wins:
        notes.append("rows were put in order of their steps")
    return steps


def _whole(table: LogTable, column: str) -> np.ndarray:
    steps = table.numbers(column)
    odd = steps[np.isfinite(steps) & (steps != np.round(steps))]
    if len(odd):
        raise LogError(
            f"{table.where}: {column!r} must hold whole steps, found {odd[0]:g}; where these are epochs, map the "
            "column to epoch"
        )
    return steps


def _parts_of_epochs(epochs: np.ndarray) -> tuple[np.ndarray, int]:
    """Whole numbers of the largest part, a power of ten, that all epochs are made of; and how many parts are one."""
    known = epochs[np.isfinite(epochs)]
    parts = 1
    while parts < MOST_EPOCH_PARTS and (np.abs(known * parts - np.round(known * parts)) > EPOCH_ERROR * parts).any():
        parts *= 10
    return np.round(epochs * parts), parts


# -- values -------------------------------------------------------------------


def _means(table: LogTable, name: str, steps: np.ndarray, values: np.ndarray) -> Cells:
    """One value a step."""
    found, counts = np.unique(steps, return_counts=True)
    if (counts > 1).any() and not table.later_wins:
        raise LogError(
            f"{table.where}: {name} is given {counts.max()} times for step {found[counts.argmax()]}; give one row per "
            "step, or add a prompt_id column for one row per prompt. After a restart, remove the rows that the run "
            "told again; of several runs, give one."
        )
    at = dict(zip(steps.tolist(), values.tolist(), strict=True))  # the later wins
    return {step: mean_of(value) for step, value in at.items()}


def mean_of(value: float) -> PromptMeans:
    """A value that no prompt has a share in."""
    return PromptMeans(np.array([MEAN]), np.array([value]), np.ones(1))


def _prompts(table: LogTable, columns: Columns) -> tuple[np.ndarray, np.ndarray] | None:
    """[R] which prompt, and [P] their names in order; None for a table of means."""
    if "prompt_id" not in columns.read_as:
        return None
    names, which = np.unique(np.array(table.texts(columns.read_as["prompt_id"]), dtype=np.str_), return_inverse=True)
    return which, names


def _per_prompt(
    table: LogTable, name: str, steps: np.ndarray, values: np.ndarray, which: np.ndarray, names: np.ndarray
) -> Cells:
    """Averages over the rows of each prompt; a table's values count as one token."""
    if (names[which] == "").any():
        raise LogError(f"{table.where}: a row with {name} has no prompt_id; give every such row one, or none")
    order = np.argsort(steps, kind="stable")
    found, begins = np.unique(steps[order], return_index=True)
    cells = {}
    for step, rows in zip(found.tolist(), np.split(order, begins[1:]), strict=True):
        there, place, counts = np.unique(which[rows], return_inverse=True, return_counts=True)
        cells[step] = PromptMeans(names[there], np.bincount(place, values[rows]) / counts, np.ones(len(there)))
    return cells


def _training_loss(
    table: LogTable, steps: np.ndarray, losses: np.ndarray, cells: Mapping[str, Cells]
) -> dict[str, Cells]:
    """Means over what was logged after the evaluation before, up to each one; none where nothing was."""
    kept = np.isfinite(losses) & np.isfinite(steps)
    at, values = steps[kept].astype(np.int64), losses[kept]
    if table.later_wins:
        last = dict(zip(at.tolist(), values.tolist(), strict=True))
        at, values = np.array(list(last), dtype=np.int64), np.array(list(last.values()))
    order = np.argsort(at, kind="stable")
    at, values = at[order], values[order]
    evaluations = np.array(sorted(cells.get("proxy", cells.get("golden", {}))), dtype=np.int64)
    ends = np.searchsorted(at, evaluations, side="right")
    begins = np.concatenate([[0], ends[:-1]]) if len(ends) else ends
    found = {
        int(step): mean_of(float(values[begin:end].mean()))
        for step, begin, end in zip(evaluations, begins, ends, strict=True)
        if end > begin
    }
    return {"training_loss": found} if found else {}


def _splits(table: LogTable, columns: Columns) -> dict[str, str]:
    if not {"split", "prompt_id"} <= columns.read_as.keys():
        return {}
    told = zip(table.texts(columns.read_as["prompt_id"]), table.texts(columns.read_as["split"]), strict=True)
    return {prompt: split for prompt, split in told if split}


def _errors(table: LogTable, columns: Columns) -> dict[str, float]:
    """The median standard error of each mean that has one."""
    found = {}
    for name, column in columns.errors_of_means.items():
        values = table.numbers(column)
        if np.isfinite(values).any():
            found[name] = float(np.median(values[np.isfinite(values)]))
    return found
