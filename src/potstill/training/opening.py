"""A run directory belongs to one configuration; opening it with another is refused."""

from __future__ import annotations

from typing import Any

import torch
import yaml

from potstill.config.run import MOVABLE, Run
from potstill.run_dir import RunDir, RunDirError
from potstill.training.hardware import environment, settle_precision


def open_directory(config: Run, device: torch.device) -> tuple[RunDir, Run]:
    """Create the directory or take up the run in it; returns the configuration with nothing left open.

    Raises RunDirError where another configuration's run, or something else, is there.
    """
    run = RunDir(config.output)
    path = run.file("config.yaml")
    if path.is_file():
        stored = yaml.safe_load(path.read_text())
        # Another tool's directory (the callback's) says nothing of training, and is refused below.
        settled = _settle(config, stored.get("training", {}).get("precision", "auto"))
        refuse_another(run, stored, settled.dump())
        return run, settled
    if run.path.exists() and (not run.path.is_dir() or any(run.path.iterdir())):
        raise RunDirError(
            f"{run.path} exists and is no run directory (it has no config.yaml). Choose another `output`, or empty it."
        )
    settled = _settle(config, settle_precision(config.training.precision, device))
    run.path.mkdir(parents=True, exist_ok=True)
    run.write_text("config.yaml", yaml.safe_dump(settled.dump(), sort_keys=False))
    run.write_json("environment.json", environment(device))
    return run, settled


def _settle(config: Run, precision: str) -> Run:
    if config.training.precision != "auto":
        return config
    training = config.training.model_copy(update={"precision": precision})
    return config.model_copy(update={"training": training})


def refuse_another(run: RunDir, stored: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Raises RunDirError, with what differs, where `stored` and `wanted` are not one run's settings."""
    before, now = _flat(stored), _flat(wanted)
    differing = [
        f"{key}: {before.get(key)!r} there, {now.get(key)!r} now"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key) and key.split(".")[0] not in MOVABLE
    ]
    if differing:
        listed = "\n  ".join(differing[:8])
        raise RunDirError(
            f"{run.path} holds a run of another configuration:\n  {listed}\nSet `output` to a new directory for "
            "this one, or go back to those settings to continue that run."
        )


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Nested values by dotted key; an empty list or mapping is a setting that is not used, like null."""
    if isinstance(tree, dict) and tree:
        return {k: v for key, value in tree.items() for k, v in _flat(value, f"{prefix}{key}.").items()}
    if isinstance(tree, list) and tree:
        return {k: v for i, value in enumerate(tree) for k, v in _flat(value, f"{prefix}{i}.").items()}
    return {prefix.rstrip("."): None if tree in ([], {}) else tree}
