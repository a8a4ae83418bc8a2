"""Curves from a run directory, or from another tool's log.

A run directory gives every held-out prompt its own curve, so two checkpoints are
compared on the same prompts. A table (CSV, JSON lines, a list of dicts, a
DataFrame) with a `prompt_id` column does too. A table of means does not: it is
read as one curve without prompts, marked `paired=False`.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from potstill.diagnosis.series import MEAN, Cells, PromptMeans, assemble, prompt_means
from potstill.records import Curve, EvaluationRecord
from potstill.run_dir import RunDir, read_lines

GoldenKind = Literal["oracle", "reference_nll"]
Rows = Sequence[Mapping[str, Any]]
NOT_SERIES = ("step", "prompt_id", "split")
#: A value that no prompt has a share in.
MEANS_ONLY = PromptMeans(np.array([MEAN]), np.zeros(1), np.ones(1))


class Table(Protocol):
    """A pandas DataFrame, without importing pandas."""

    def to_dict(self, orient: Literal["records"]) -> list[dict[str, Any]]: ...


def read_curves(source: str | Path | Rows | Table) -> dict[str, Curve]:
    """All measured series of a run directory or table, by name.

    `teacher_golden` becomes `golden.teacher`. Prompts of the train split, and those
    that were not measured at every evaluation of a series, are left out.
    """
    if isinstance(source, (str, Path)) and Path(source).is_dir():
        return curves_of_records(RunDir(source).evaluations(), str(source))
    return curves_of_rows(read_rows(source))


def read_golden_kind(source: str | Path | Rows | Table) -> GoldenKind:
    """What `golden` is measured against: provenance.json says; a run or table that does not, NLL."""
    if not isinstance(source, (str, Path)) or not (Path(source) / "provenance.json").exists():
        return "reference_nll"
    return checked_kind(RunDir(source).read_json("provenance.json").get("golden", "reference_nll"))


def checked_kind(kind: str) -> GoldenKind:
    """`kind`, or an error that names the two that exist."""
    if kind == "oracle":
        return "oracle"
    if kind == "reference_nll":
        return "reference_nll"
    raise ValueError(f"golden must be 'oracle' or 'reference_nll', found {kind!r}; mend provenance.json")


# -- run directories ----------------------------------------------------------


def curves_of_records(records: Sequence[EvaluationRecord], where: str) -> dict[str, Curve]:
    """Curves of a run's evaluations; a prompt without a split counts as test."""
    if not records:
        raise ValueError(f"{where} holds no evaluations; expected evaluations/step-*.npz in a run directory")
    splits: dict[str, str] = {}
    for record in records:
        splits.update(record.splits)
    cells: dict[str, Cells] = {}
    for record in records:
        for name, measured in record.series.items():
            cells.setdefault(name, {})[record.step] = prompt_means(measured)
        for name, value in record.scalars.items():
            cells.setdefault(name, {})[record.step] = MEANS_ONLY._replace(sums=np.array([value]))
    return assemble(cells, splits)


# -- tables -------------------------------------------------------------------


def read_rows(source: str | Path | Rows | Table) -> Rows:
    """The rows of a table, whatever it is kept in."""
    if isinstance(source, Sequence) and not isinstance(source, str):
        return source
    if not isinstance(source, (str, Path)):
        return source.to_dict("records")
    path = Path(source)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; expected a run directory, a .csv or a .jsonl file")
    if path.suffix == ".csv":
        with open(path, newline="", encoding="utf-8") as handle:
            return list(csv.DictReader(handle))
    if path.suffix == ".jsonl":
        return list(read_lines(path))
    if path.suffix == ".json":
        rows: Rows = json.loads(path.read_text())
        return rows
    raise ValueError(f"expected a run directory, .csv, .jsonl or .json, found {path}")


def curves_of_rows(rows: Rows) -> dict[str, Curve]:
    """Curves of a table: one row per step, or one per step and prompt (and completion).

    Values are means, nats per token; empty cells and text are left out.
    """
    columns = {name for row in rows for name in row}
    if missing := sorted({"step", "proxy", "golden"} - columns):
        raise ValueError(
            f"the table lacks {missing}; expected the columns step, proxy, golden (and prompt_id, split, "
            f"teacher_golden where known), found {sorted(columns)}. Rename the columns."
        )
    cells: dict[str, dict[int, dict[str, list[float]]]] = {}
    splits: dict[str, str] = {}
    for row in rows:
        step, prompt = int(float(row["step"])), str(row.get("prompt_id", MEAN))
        if row.get("split"):
            splits[prompt] = row["split"]
        for name, value in numbers(row):
            cells.setdefault(name, {}).setdefault(step, {}).setdefault(prompt, []).append(value)
    if "prompt_id" not in columns:
        refuse_repeats(cells)
    means = {name: {step: table_means(found) for step, found in by_step.items()} for name, by_step in cells.items()}
    return assemble(means, splits)


def table_means(found: Mapping[str, Sequence[float]]) -> PromptMeans:
    """Averages over the rows of each prompt; a table's values count as one token."""
    ids = sorted(found)
    values = np.array([sum(found[name]) / len(found[name]) for name in ids])
    return PromptMeans(np.array(ids, dtype=np.str_), values, np.ones(len(ids)))


def numbers(row: Mapping[str, Any]) -> Iterable[tuple[str, float]]:
    """The series that a row carries."""
    for name, value in row.items():
        if name in NOT_SERIES or value is None or value == "":
            continue
        try:
            yield name, float(value)
        except (TypeError, ValueError):
            if name in ("proxy", "golden", "teacher_golden", "verifier_failure"):
                raise ValueError(f"step {row['step']}: {name} must be a number, found {value!r}") from None


def refuse_repeats(cells: Mapping[str, Mapping[int, Mapping[str, Sequence[float]]]]) -> None:
    for name in ("proxy", "golden"):
        for step, prompts in cells.get(name, {}).items():
            if len(prompts[MEAN]) > 1:
                raise ValueError(
                    f"{name} is given {len(prompts[MEAN])} times for step {step}; give one row per step, or "
                    "add a prompt_id column for one row per prompt"
                )
