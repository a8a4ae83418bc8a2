"""Trackio: rows in its database on this machine.

Trackio takes no row back. So a resumed run is written anew: the rows of this very run
(known by `potstill_run` in its configuration, not by its name) are deleted, and told
again from the run directory, with the time of the resuming.
"""

from __future__ import annotations

import contextlib
import io
import os
import sqlite3
from collections.abc import Mapping
from typing import Any

from potstill.config.trackers import TrackioTracker
from potstill.records import Verdict
from potstill.training.trackers.base import Texts, Tracked, TrackerError, in_words, needed, table

ELSEWHERE = ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL")


class Trackio:
    """A Trackio run, from resuming on."""

    def __init__(self, settings: TrackioTracker, tracked: Tracked):
        self.package = needed("trackio", "trackio")
        for variable in ELSEWHERE:
            if os.environ.get(variable):
                raise TrackerError(
                    f"trackers: {variable} sends trackio to a server, where the steps that a killed run repeats "
                    "cannot be taken back. Unset it; `trackio sync` carries the finished project there."
                )
        try:
            needed("trackio.sqlite_storage", "trackio").SQLiteStorage.validate_project_name(settings.project)
        except ValueError as error:
            raise TrackerError(f"trackers: trackio refuses the project: {error}") from error
        self.project, self.name = settings.project, settings.name or tracked.name
        self.config = tracked.config.dump() | {"potstill_run": tracked.id}
        self.where = f'trackio show --project "{self.project}"'
        self.step = 0
        self.run: Any = None

    def gives_up(self, error: Exception) -> bool:
        # It turns nearly all of its own failures into warnings; these are left.
        return isinstance(error, OSError | sqlite3.Error | RuntimeError | ValueError)

    def resume(self, step: int, whole: bool) -> int:
        try:
            earlier = list(self.package.Api().runs(self.project))
        except ValueError:  # no such project yet
            earlier = []
        for run in earlier:
            if (run.config or {}).get("potstill_run") == self.config["potstill_run"]:
                run.delete()
        with contextlib.redirect_stdout(io.StringIO()):  # `where` says what matters of its greeting
            self.run = self.package.init(project=self.project, name=self.name, config=self.config, embed=False)
        return -1

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        self.step = step
        self.run.log(dict(values), step=step)

    def evaluation(self, step: int, values: Mapping[str, float], texts: Texts) -> None:
        shown = {"evaluation/samples": self.package.Table(**table(texts))} if texts else {}
        self.step = step
        self.run.log({**values, **shown}, step=step)

    def flush(self) -> None:
        """Nothing to do: what a kill loses is told again."""

    def close(self, verdict: Verdict | None) -> None:
        if self.run is None:
            return
        if verdict is not None:
            self.run.log({"verdict": self.package.Markdown(in_words(verdict))}, step=self.step)
        with contextlib.redirect_stdout(io.StringIO()):
            self.package.finish()
