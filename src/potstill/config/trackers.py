"""Experiment trackers: where else than in the run directory a run's curves can be followed."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from potstill.config.base import Frozen


class TensorBoardTracker(Frozen):
    """Event files for TensorBoard."""

    kind: Literal["tensorboard"]
    folder: str | None = None
    """Where the event files go, of this run alone; null: `tensorboard` in the run directory."""


class TrackioTracker(Frozen):
    """Trackio's own database on this machine; `trackio sync` carries a finished project to a Space."""

    kind: Literal["trackio"]
    project: str = Field(default="potstill", min_length=1)
    """Project that the run is listed in."""
    name: str | None = None
    """Name of the run; null: the run directory's."""


class WandbTracker(Frozen):
    """Weights & Biases."""

    kind: Literal["wandb"]
    project: str = Field(default="potstill", min_length=1)
    """Project that the run is listed in."""
    name: str | None = None
    """Name of the run; null: the run directory's."""
    entity: str | None = None
    """User or team that the project belongs to; null: the account's default."""
    mode: Literal["online", "offline"] = "online"
    """offline writes `wandb/` in the run directory and sends nothing; `wandb sync` sends it later."""


Tracker = Annotated[TensorBoardTracker | TrackioTracker | WandbTracker, Field(discriminator="kind")]


def _each_kind_once(trackers: tuple[Tracker, ...]) -> tuple[Tracker, ...]:
    """Two trackers of a kind would write the same files, or the same curves side by side."""
    kinds = [tracker.kind for tracker in trackers]
    twice = sorted({kind for kind in kinds if kinds.count(kind) > 1})
    if twice:
        raise ValueError(f"{', '.join(twice)} stands twice; a run has at most one tracker of each kind")
    return trackers


Trackers = Annotated[tuple[Tracker, ...], AfterValidator(_each_kind_once)]
