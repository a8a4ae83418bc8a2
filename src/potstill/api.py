"""Potstill from Python: distil, open a run, ask it things.

What the command line does, as functions that return objects. A `Run` is a handle on
a run directory; it holds nothing but the path, so any number may look at one run,
also while it is at work.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from potstill.config import Run as Configuration
from potstill.config import build_run, load_run, parse_run
from potstill.diagnosis import diagnose, read_curves
from potstill.records import Curve, Verdict
from potstill.run_dir import RunDir

if TYPE_CHECKING:
    from potstill.training.show import Show


class Run:
    """A run directory, seen from Python. `path` is the folder."""

    def __init__(self, path: str | Path):
        self._directory = RunDir(path)
        self.path = self._directory.path
        self._directory.read_config()  # refuses what is no run directory

    def __repr__(self) -> str:
        return f"potstill.Run({str(self.path)!r})"

    @property
    def config(self) -> Configuration:
        """What the run was asked to do, every default written out."""
        return parse_run(self._directory.read_config(), str(self.path))

    @property
    def verdict(self) -> Verdict:
        """The verdict on the evaluations so far; a finished run's is the one that it ended with."""
        return diagnose(self.path)

    @property
    def steps(self) -> list[int]:
        """Steps whose checkpoints are kept; any of them can be exported."""
        return self._directory.checkpoint_steps()

    def curves(self) -> dict[str, Curve]:
        """proxy, proxy_fkl and golden on held-out prompts, per prompt, in nats."""
        return dict(read_curves(self.path))

    def metrics(self) -> list[dict[str, Any]]:
        """One mapping a step: loss, terms, gradient norm, learning rate, counted tokens."""
        return list(self._directory.lines("metrics.jsonl"))

    def student(self) -> tuple[Any, Any]:
        """The exported student and its tokenizer, as Transformers loads them.

        Raises FileNotFoundError while the run has not finished.
        """
        folder = self._directory.file("student")
        if not folder.is_dir():
            raise FileNotFoundError(
                f"{self.path} has no student yet: the run has not finished. Finish it with potstill.distil or "
                "potstill run, or export a checkpoint with export(step)."
            )
        from potstill.config.model import FolderModel
        from potstill.models.load import load_model
        from potstill.training.stages import computing_dtype

        loaded = load_model(FolderModel(kind="folder", path=str(folder)), computing_dtype(self.config))
        return loaded.model, loaded.tokenizer

    def export(self, step: int, output: str | Path | None = None) -> Path:
        """Write the student of a kept checkpoint as a Hugging Face folder; returns the folder.

        Raises RunDirError where that step has no checkpoint, or `output` is in use.
        """
        from potstill.training.export import export_step

        return export_step(self._directory, step, None if output is None else Path(output))

    def report(self) -> Path:
        """Write report.html into the run directory; returns its path."""
        from potstill.report import write_report

        return write_report(self.path)


def open_run(path: str | Path) -> Run:
    """A handle on an existing run directory.

    Raises RunDirError where `path` is none.
    """
    return Run(path)


def distil(config: Configuration | Mapping[str, Any] | str | Path, *overrides: str, show: Show | None = None) -> Run:
    """Distil; go on where an earlier call stopped; return the run, its verdict and student in it.

    `config` is a path to YAML, the same as nested mappings, or a loaded configuration;
    `overrides` are settings as on the command line, such as "training.steps=20". `show`
    is where progress goes: a `Show(quiet=True)` says nothing.

    Raises ConfigError before anything is loaded where a setting is wrong or would have
    no effect, and the errors of each stage before training.
    """
    from potstill.training.distil import distil as work

    return Run(work(_configured(config, overrides), show).path)


def _configured(config: Configuration | Mapping[str, Any] | str | Path, overrides: tuple[str, ...]) -> Any:
    if isinstance(config, str | Path):
        return load_run(config, overrides)
    tree = config.dump() if isinstance(config, Configuration) else config
    return build_run(tree, overrides)
