"""Curves from a run directory, or from another tool's log.

A run directory gives every held-out prompt its own curve, so two checkpoints are
compared on the same prompts. A table with a `prompt_id` column does too. A table of
means does not: it is read as one curve without prompts, marked `paired=False`. Tables
are CSV, JSON lines, JSON, a list of dicts, a DataFrame; a Trainer's trainer_state.json or
its output folder; TensorBoard's event files; exports from W&B.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from potstill.diagnosis.logs_columns import from_wandb
from potstill.diagnosis.logs_curves import curves_of_table, mean_of
from potstill.diagnosis.logs_files import load_json, read_csv, read_json_lines, table_of_json
from potstill.diagnosis.logs_table import LogError, LogTable, NoLogError, table_of_rows
from potstill.diagnosis.logs_tensorboard import MARK, event_files, read_events
from potstill.diagnosis.logs_trainer import read_newest, table_of_state, trainer_states
from potstill.diagnosis.series import Cells, assemble, prompt_means
from potstill.records import Curve, EvaluationRecord
from potstill.run_dir import RunDir

GoldenKind = Literal["oracle", "reference_nll"]
Rows = Sequence[Mapping[str, Any]]
EXPECTED = "a run directory, .csv, .tsv, .jsonl, .json, a Trainer's output folder or TensorBoard event files"


class Table(Protocol):
    """A pandas DataFrame, without importing pandas."""

    def to_dict(self, orient: Literal["records"]) -> list[dict[str, Any]]: ...


@dataclass(frozen=True)
class Reading:
    """A log's curves, and where they come from: kind, path, rows, read_as, unused_columns, left_out, notes."""

    curves: dict[str, Curve]
    facts: Mapping[str, Any]


def read_curves(source: str | Path | Rows | Table, *, mapping: Mapping[str, str] | None = None) -> dict[str, Curve]:
    """All measured series of a run directory or log, by name.

    `mapping` is column -> name where a log calls things otherwise, such as
    {"eval/kl": "proxy"}. `teacher_golden` becomes `golden.teacher`. Prompts of the train
    split, and those that were not measured at every evaluation of a series, are left out.
    Raises LogError (a ValueError) for a log that cannot be read or lacks what a verdict needs.
    """
    return read_log(source, mapping=mapping).curves


def read_log(source: str | Path | Rows | Table, *, mapping: Mapping[str, str] | None = None) -> Reading:
    """`read_curves` with the facts of the reading."""
    if isinstance(source, (str, Path)) and is_run_directory(Path(source)):
        if mapping:
            raise LogError(f"{source} is a run directory of Potstill's; its columns have their names, leave --map out")
        records = RunDir(source).evaluations()
        curves = curves_of_records(records, str(source))
        facts = {"kind": "run directory", "path": str(source), "rows": len(records), "read_as": {}, "left_out": {}}
        return Reading(curves, facts | {"unused_columns": [], "standard_errors": {}, "notes": []})
    curves, found = curves_of_table(read_table(source), mapping)
    return Reading(curves, found)


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


def is_run_directory(path: Path) -> bool:
    """Has Potstill written it?"""
    return (path / "config.yaml").is_file() or (path / "evaluations").is_dir()


def curves_of_records(records: Sequence[EvaluationRecord], where: str) -> dict[str, Curve]:
    """Curves of a run's evaluations; a prompt without a split counts as test."""
    if not records:
        raise LogError(f"{where} holds no evaluations; expected evaluations/step-*.npz in a run directory")
    splits: dict[str, str] = {}
    for record in records:
        splits.update(record.splits)
    cells: dict[str, Cells] = {}
    for record in records:
        for name, measured in record.series.items():
            cells.setdefault(name, {})[record.step] = prompt_means(measured)
        for name, value in record.scalars.items():
            cells.setdefault(name, {})[record.step] = mean_of(value)
    return assemble(cells, splits)


# -- logs of other tools ------------------------------------------------------


def read_table(source: str | Path | Rows | Table) -> LogTable:
    """The columns of a log, whatever it is kept in. Raises LogError, FileNotFoundError."""
    if isinstance(source, Sequence) and not isinstance(source, str):
        return _table_of_records(source, frame=False)
    if not isinstance(source, (str, Path)):
        return _table_of_records(source.to_dict("records"), frame=True)
    path = Path(source)
    if not path.exists():
        raise NoLogError(f"{path} does not exist; expected {EXPECTED}")
    return _table_of_folder(path) if path.is_dir() else _table_of_file(path)


def _table_of_records(rows: Rows, frame: bool) -> LogTable:
    """A DataFrame fills its rows up with NaN, and so does W&B."""
    if not rows:
        raise LogError("the table has no rows; expected one per evaluation at least")
    table = table_of_rows("table", "the table", rows)
    wandb = from_wandb(list(table.columns))
    table.nan_is_absent, table.later_wins = frame or wandb, wandb
    return table


def _table_of_file(path: Path) -> LogTable:
    if MARK in path.name:
        return read_events([path], str(path))
    suffix = path.suffix.lower()
    if suffix in (".csv", ".tsv"):
        return read_csv(path)
    if suffix in (".jsonl", ".ndjson"):
        return read_json_lines(path)
    if suffix == ".json":
        value = load_json(path)
        if isinstance(value, dict) and "log_history" in value:
            return table_of_state(path, value)
        return table_of_json(path, value)
    wandb = " A .wandb file is read by W&B alone: export it, run.history().to_csv('history.csv')."
    raise LogError(f"expected {EXPECTED}, found {path}.{wandb if suffix == '.wandb' else ''}")


def _table_of_folder(folder: Path) -> LogTable:
    if states := trainer_states(folder):
        return read_newest(states)
    runs = event_files(folder)
    others = [path for path in sorted(folder.iterdir()) if path.is_dir() and _is_log(path)]
    if len(runs) == 1 and not others:
        ((where, files),) = runs.items()
        return read_events(files, str(where))
    found = [str(path.relative_to(folder)) for path in [*others, *runs]]
    if found:
        first = folder / found[0]
        raise LogError(
            f"{folder} holds {len(found)} logs: {', '.join(found[:12])}. A verdict is on one run; choose, as in: "
            f"potstill diagnose {first}"
        )
    tables = [path.name for path in sorted(folder.iterdir()) if path.suffix.lower() in (".csv", ".jsonl", ".json")]
    hint = f" It holds {', '.join(tables[:6])}; name one of them." if tables else ""
    raise LogError(f"{folder} holds no evaluations and no log; expected {EXPECTED}.{hint}")


def _is_log(path: Path) -> bool:
    return is_run_directory(path) or bool(trainer_states(path))
