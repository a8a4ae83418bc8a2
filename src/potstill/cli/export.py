"""`potstill export`: the student of any kept checkpoint."""

from __future__ import annotations

from pathlib import Path

from potstill.run_dir import RunDir
from potstill.training.export import export_step
from potstill.training.quiet import quiet_libraries


def export_verb(run: Path, step: int, output: Path | None) -> None:
    """Build the student again, fill it from the checkpoint, write it, say where."""
    quiet_libraries()
    print(export_step(RunDir(run), step, output))
