"""TensorBoard: scalars and texts in event files.

A reader of event files hides, from a restart with `purge_step` on, all earlier events of
that step and later. So a resumed run hides what it repeats. Event files are written in
the background; they are flushed before each checkpoint, and are whole up to the last.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from potstill.config.trackers import TensorBoardTracker
from potstill.records import Verdict
from potstill.training.trackers.base import TEXT_COLUMNS, Texts, Tracked, in_words, needed


class TensorBoard:
    """A SummaryWriter, from resuming on."""

    def __init__(self, settings: TensorBoardTracker, tracked: Tracked):
        self.package = needed("torch.utils.tensorboard", "tensorboard")
        self.folder = Path(settings.folder) if settings.folder else tracked.run.file("tensorboard")
        self.config = tracked.config
        self.where = f"tensorboard --logdir {self.folder}"
        self.step = -1
        self.writer: Any = None

    def gives_up(self, error: Exception) -> bool:
        return isinstance(error, OSError)

    def resume(self, step: int, whole: bool) -> int:
        self.step = step if whole else -1
        self.writer = self.package.SummaryWriter(str(self.folder), purge_step=self.step + 1, flush_secs=30)
        if self.step < 0:
            self._text("configuration", yaml.safe_dump(self.config.dump(), sort_keys=False), 0)
        return self.step

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        self.step = step
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def evaluation(self, step: int, values: Mapping[str, float], texts: Texts) -> None:
        self.metrics(step, values)
        for line in texts:
            shown = "\n".join(f"{name}: {line.get(name)}" for name in TEXT_COLUMNS[1:])
            self._text(f"samples/{line['prompt_id']}", shown, step)

    def flush(self) -> None:
        self.writer.flush()

    def close(self, verdict: Verdict | None) -> None:
        if self.writer is None:
            return
        if verdict is not None:
            self._text("verdict", in_words(verdict), self.step)
        self.writer.close()

    def _text(self, name: str, text: str, step: int) -> None:
        # Indented, so that Markdown shows it as it is.
        self.writer.add_text(name, textwrap.indent(text, "    ", lambda _: True), step)
