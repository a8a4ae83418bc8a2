"""Experiment trackers: TensorBoard, Trackio, Weights & Biases.

The run directory holds the truth (metrics.jsonl, evaluations, samples.jsonl), a tracker
shows it elsewhere. A killed run goes on after its last checkpoint and repeats the steps
from there, while its tracker may have lost the last of them, or none. So a tracker says
on resuming up to which step it holds everything, and is told the rest again:

    TensorBoard    hides what it holds after the checkpoint (purge_step) and goes on
    Trackio        its earlier rows are deleted and the run is written anew
    W&B online     goes on after the last step that the server has; repeats are left out
    W&B offline    the earlier folder is replaced by one with the whole run
"""

from potstill.training.trackers.base import Tracker, TrackerError
from potstill.training.trackers.together import Trackers, tracking

__all__ = ["Tracker", "TrackerError", "Trackers", "tracking"]
