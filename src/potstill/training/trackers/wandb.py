"""Weights & Biases: one row a step, under W&B's own step, which is ours.

Online, W&B goes on after the last row that its server has: rows told again are left out
(they are the same numbers), rows that a kill kept from the server are told. Offline,
every start writes a folder with the whole run and the earlier one goes, so that
`wandb sync` sends each step once.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from potstill.config.trackers import WandbTracker
from potstill.records import Verdict
from potstill.training.trackers.base import Texts, Tracked, TrackerError, needed, table

#: Seconds that a finished run waits for W&B to take what is left; a network that is gone may not hold it for ever.
FINISH_SECONDS = 300.0
IN_SUMMARY = ("verdict", "confidence", "best_step", "sentence")


class Wandb:
    """A W&B run; opened at once, so that W&B refuses before time is spent."""

    def __init__(self, settings: WandbTracker, tracked: Tracked):
        wandb = self.package = needed("wandb", "wandb")
        self.offline = settings.mode == "offline"
        try:
            if not self.offline:
                self._need_login()
            self.run = wandb.init(
                project=settings.project, name=settings.name or tracked.name, entity=settings.entity,
                id=tracked.id, resume="allow", mode=settings.mode, dir=str(tracked.run.path),
                config=tracked.config.dump(), reinit="create_new",
                settings=wandb.Settings(quiet=True, console="off", finish_timeout=FINISH_SECONDS),
            )  # fmt: skip
        except Exception as error:
            if not self.gives_up(error):
                raise
            raise TrackerError(
                f"trackers: W&B cannot be used: {error}\nMend that; or choose mode: offline, and `wandb sync` later."
            ) from error
        self.folder = Path(self.run.dir).parent
        self.where = f"wandb sync {self.folder}" if self.offline else str(self.run.url)
        self.first = int(self.run.starting_step)
        self.step = -1
        self.row: dict[str, Any] = {}

    def _need_login(self) -> None:
        # prompt=False: a question on the terminal would hold a run that nobody watches.
        if self.package.run is None and not self.package.login(prompt=False, verify=True):
            raise TrackerError(
                "trackers: W&B has no login here. Run `wandb login` or set WANDB_API_KEY; or choose mode: offline, "
                "which needs none, and `wandb sync` later."
            )

    def gives_up(self, error: Exception) -> bool:
        # Its side process has errors of its own, which pass through under many names.
        return isinstance(error, OSError) or type(error).__module__.split(".")[0] == "wandb"

    def resume(self, step: int, whole: bool) -> int:
        if self.offline:
            for earlier in self.folder.parent.glob(f"offline-run-*-{self.run.id}"):
                if earlier != self.folder:
                    shutil.rmtree(earlier)
        return self.first - 1

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        if step > self.step:
            self.flush()
        self.step = step
        if step >= self.first:
            self.row |= values

    def evaluation(self, step: int, values: Mapping[str, float], texts: Texts) -> None:
        self.metrics(step, values)
        if texts and step >= self.first:
            self.row["evaluation/samples"] = self.package.Table(**table(texts))

    def flush(self) -> None:
        """Hand over the row of the step, which W&B takes once and whole."""
        if self.row:
            self.run.log(self.row, step=self.step, commit=True)
            self.row = {}

    def close(self, verdict: Verdict | None) -> None:
        # Without a verdict a row still open is not sent: its step is repeated, and may lack its evaluation.
        if verdict is not None:
            self.flush()
            self.run.summary.update({name: getattr(verdict, name) for name in IN_SUMMARY})
        self.run.finish(exit_code=0 if verdict is not None else 1)
