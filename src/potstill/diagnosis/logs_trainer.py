"""What a Hugging Face Trainer leaves behind: log_history in trainer_state.json.

Rows of training have `loss`, rows of evaluations `eval_loss`, rows of our callback
`potstill/proxy` and so on. They are put together by step; a step told again, after a
restart, replaces what was told before.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from potstill.diagnosis.logs_files import load_json
from potstill.diagnosis.logs_table import LogError, LogTable, table_of_rows

NAME = "trainer_state.json"


def trainer_states(folder: Path) -> list[Path]:
    """Of a trainer's output folder or a checkpoint."""
    return [path for path in (folder / NAME, *sorted(folder.glob(f"checkpoint-*/{NAME}"))) if path.is_file()]


def read_newest(paths: list[Path]) -> LogTable:
    """The state that reaches furthest; the folder's own before its checkpoints. Raises LogError."""
    states = {path: load_json(path) for path in paths}
    newest = max(paths, key=lambda path: reached(states[path]))
    table = table_of_state(newest, states[newest])
    if len(paths) > 1:
        table.notes.insert(0, f"of {len(paths)} states the newest was read, {newest.parent.name}/{newest.name}")
    return table


def reached(state: Any) -> int:
    step = state.get("global_step") if isinstance(state, dict) else None
    return step if isinstance(step, int) else -1


def table_of_state(path: Path, state: Mapping[str, Any]) -> LogTable:
    """One row a step. Raises LogError where there is no log."""
    history = state.get("log_history") if isinstance(state, dict) else None
    if not isinstance(history, list) or not all(isinstance(row, dict) for row in history):
        raise LogError(f"{path}: expected log_history, a list of rows, as transformers.Trainer writes it")
    if not history:
        raise LogError(f"{path}: log_history is empty; set logging_steps below the number of steps")
    by_step: dict[Any, dict[str, Any]] = {}
    again = 0
    for row in history:
        if row.get("step") is None:
            raise LogError(f"{path}: a row of log_history has no step: {row!r:.80}")
        # The row that ends training holds a mean over all of it, which is no value of its step.
        kept = {k: v for k, v in row.items() if not ("train_runtime" in row and k == "train_loss")}
        there = by_step.setdefault(row["step"], {})
        again += any(name in there for name in kept if name not in ("step", "epoch"))
        there.update(kept)
    table = table_of_rows("Trainer log", str(path), list(by_step.values()))
    if again:
        table.notes.append(f"{again} rows tell a step again, after a restart; the later ones were taken")
    return table
