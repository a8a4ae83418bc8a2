"""Conducts the teacher-hacking experiment: steps, results after every cell, the page at the end."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from potstill.config.lab import HackingLab
from potstill.lab.arms_table import arms_table
from potstill.lab.cells import Cell
from potstill.lab.findings import judge_findings
from potstill.lab.hacking import Experiment
from potstill.lab.pools import LabError
from potstill.lab.steps import Step, in_order, run_steps
from potstill.report.lab import write_lab_report
from potstill.run_dir import write_atomic
from potstill.training.show import Show

PRESETS = ("tiny", "smollm", "paper")
PRETRAINING_PRESETS = ("tiny", "tiny-full", "small")


def preset_path(name: str, lab: str = "") -> Path:
    """The file of a preset's settings, inside the package; `lab` is empty for hacking, or pretraining."""
    known = PRETRAINING_PRESETS if lab else PRESETS
    if name not in known:
        raise LabError(f"no preset {name!r}; there are {', '.join(known)}")
    return Path(str(files("potstill.lab"))) / "presets" / f"{lab}-{name}.yaml".removeprefix("-")


def conduct(lab: HackingLab, preset: str, output: Path, workers: int, show: Show) -> Path:
    """Run what is not done yet, and return the path of results.json; report.html lies beside it.

    The folder may be one of an earlier setting: what both have in common is not done again.
    Results hold the cells of this setting alone.
    """
    output.mkdir(parents=True, exist_ok=True)
    write_atomic(output / "lab.json", json.dumps({"preset": preset, **lab.model_dump(mode="json")}, indent=1).encode())
    cells = Experiment(lab).cells()
    addresses = {step.address for step in cells}
    total = len(in_order(cells))
    done = 0
    seconds_of_cells: list[float] = []

    def notice(step: Step, seconds: float | None) -> None:
        nonlocal done
        done += 1
        if seconds is None:
            return
        left = ""
        if step.address in addresses:
            seconds_of_cells.append(seconds)
            ended = finished(output, cells)
            mean = sum(seconds_of_cells) / len(seconds_of_cells)
            left = _left(mean * (len(cells) - len(ended)) / workers)
            write_results(lab, preset, output, ended)
        show.say(f"{done:>4}/{total}  {step.name:<30} {seconds:>6.0f} s   {left:<12}{_summary(output, step)}")

    run_steps(output, cells, workers, notice)
    path = write_results(lab, preset, output, finished(output, cells))
    write_lab_report(path)
    return path


def finished(output: Path, cells: Iterable[Step]) -> list[Cell]:
    """The cells that are done, with their seconds; `run` is relative to the output folder."""
    found = []
    for step in cells:
        if step.is_done(output):
            folder = step.folder(output)
            cell = Cell.from_json(json.loads((folder / "cell.json").read_text()))
            seconds = json.loads((folder / "done.json").read_text())["seconds"]
            found.append(replace(cell, run=str((folder / "run").relative_to(output)), seconds=seconds))
    return found


def write_results(lab: HackingLab, preset: str, output: Path, cells: list[Cell]) -> Path:
    """results.json from the cells there are."""
    tree: dict[str, Any] = {
        "preset": preset,
        "corpus": corpus_name(lab),
        "tokenisation": "its own" if lab.tokenisation is None else lab.tokenisation.kind,
        "setting": flat(lab.model_dump(mode="json", exclude={"arms", "seeds"})),
        "seeds": list(lab.seeds),
        "hardware": hardware(lab.device),
        "seconds": round(sum(cell.seconds or 0.0 for cell in cells), 1),
        "cells": [cell.to_json() for cell in cells],
        "findings": [finding.to_json() for finding in judge_findings(cells)],
        "arms": arms_table(cells),
    }
    return write_atomic(output / "results.json", json.dumps(tree, indent=1, allow_nan=False).encode())


def corpus_name(lab: HackingLab) -> str:
    if lab.prompts.kind == "file":
        return Path(lab.prompts.prompts.path).name
    return lab.prompts.corpus or Path(str(lab.prompts.path)).name


def flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted name, without those that are null."""
    if isinstance(tree, dict):
        return {k: v for key, value in tree.items() for k, v in flat(value, f"{prefix}{key}.").items()}
    return {} if tree is None else {prefix.rstrip("."): tree}


def hardware(device: str) -> str:
    """What the experiment ran on, in words."""
    import torch

    if device != "cpu" and torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    return f"CPU, {platform.machine()}, torch {torch.__version__}"


def _summary(output: Path, step: Step) -> str:
    """What came out, in a few numbers."""
    path = step.folder(output) / "cell.json"
    if not path.is_file():
        return ""
    cell = Cell.from_json(json.loads(path.read_text()))
    golden = [value for value in cell.golden if value is not None]
    proxy = [value for value in cell.proxy_fkl if value is not None]
    return (
        f"   golden {golden[0]:.2f} -> {min(golden):.2f} -> {golden[-1]:.2f}  forward KL to the teacher "
        f"{proxy[0]:.2f} -> {proxy[-1]:.2f}  {cell.verdict.replace('_', ' ')}"
    )


def _left(seconds: float) -> str:
    """Fine-tuning that is still to come is not in it: it takes little of the whole."""
    return f"{seconds / 60:.0f} min left" if seconds > 90 else f"{seconds:.0f} s left"
