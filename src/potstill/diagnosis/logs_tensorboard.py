"""Scalars from TensorBoard's event files. Needs the extra potstill[tensorboard].

The files of one folder are one run, continued after each restart: from the step at
which a later file goes on, what the earlier ones say is dropped, as TensorBoard does.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from potstill.diagnosis.logs_table import LogError, LogTable

MARK = "tfevents"
Scalar = tuple[str, int, float]  # tag, step, value


def event_files(folder: Path) -> dict[Path, list[Path]]:
    """Folders of event files under `folder`, with their files: each is a run."""
    runs: dict[Path, list[Path]] = {}
    for path in sorted(folder.rglob(f"*{MARK}*")):
        if path.is_file():
            runs.setdefault(path.parent, []).append(path)
    return runs


def read_events(files: list[Path], where: str) -> LogTable:
    """One run: one row a step, one column a tag. Raises LogError."""
    notes = [] if len(files) == 1 else [f"{len(files)} event files were put together"]
    started = sorted((file for file in map(_File, files) if file.scalars), key=lambda file: file.time)
    if not started:
        raise LogError(
            f"{where} holds no scalars in {len(files)} event file(s); expected what SummaryWriter.add_scalar writes. "
            "A damaged file reads as empty."
        )
    values: dict[str, dict[int, float]] = {}
    dropped = 0
    for file in started:
        begins: dict[str, int] = {}
        for tag, step, value in file.scalars:
            series = values.setdefault(tag, {})
            if tag not in begins:
                begins[tag] = step
                for stale in [known for known in series if known >= step]:
                    dropped += 1
                    del series[stale]
            series[step] = value
    if dropped:
        notes.append(f"{dropped} values were told again after a restart; the later ones were taken")
    steps = sorted({step for series in values.values() for step in series})
    columns: dict[str, Any] = {"step": steps}
    columns |= {tag: [series.get(step) for step in steps] for tag, series in values.items() if tag != "step"}
    return LogTable("TensorBoard", where, columns, len(steps), notes)


class _File:
    """One event file, read whole: when it begins, and its scalars in the order written."""

    def __init__(self, path: Path):
        self.time, self.scalars = float("inf"), []
        for time, scalar in _scalars(path):
            self.time = min(self.time, time)
            self.scalars.append(scalar)


def _scalars(path: Path) -> Iterator[tuple[float, Scalar]]:
    """(time, scalar) as written; a torn end is left out. Raises LogError without the library."""
    try:
        from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
        from tensorboard.util import tensor_util
    except ImportError as error:
        raise LogError(
            f"{path} is a TensorBoard event file, and TensorBoard is not installed to read it: "
            "pip install 'potstill[tensorboard]', or export the scalars as CSV."
        ) from error
    logging.getLogger("tensorboard").setLevel(logging.ERROR)
    try:
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                if value.metadata.plugin_data.plugin_name == "scalars":
                    number = tensor_util.make_ndarray(value.tensor)
                    yield event.wall_time, (value.tag, int(event.step), float(number.reshape(-1)[0]))
    except (ValueError, RuntimeError, IndexError) as error:
        raise LogError(f"{path} is no event file that can be read ({type(error).__name__}: {error})") from error
