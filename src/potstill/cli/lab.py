"""`potstill lab`: controlled experiments, where the truth is known."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from potstill.config.load import load_hacking_lab
from potstill.lab.conducting import conduct, preset_path
from potstill.training.quiet import quiet_libraries
from potstill.training.show import Show


def hacking_verb(
    preset: str, config: Path | None, output: Path | None, workers: int | None, changes: Sequence[str]
) -> None:
    """Conduct the teacher-hacking experiment and say what it showed."""
    name = preset if config is None else config.stem
    lab = load_hacking_lab(preset_path(preset) if config is None else config, changes)
    quiet_libraries()
    show = Show()
    at_once = workers if workers is not None else default_workers(lab.device)
    folder = output if output is not None else Path("runs") / f"lab-hacking-{name}"
    cells = len(lab.arms) * len(lab.seeds)
    show.say(f"{cells} runs, {at_once} at a time, in {folder}")
    show.say(f"   arms  {', '.join(lab.arms)}\n  seeds  {', '.join(map(str, lab.seeds))}")
    results = conduct(lab, name, folder, at_once, show)
    found = json.loads(results.read_text())
    for finding in found["findings"]:
        colour = {"reproduced": "green", "not reproduced": "red"}.get(finding["status"], "yellow")
        show.say(f"\n[{colour}]{finding['status']:>15}[/{colour}]  {finding['number']}. {finding['statement']}")
        show.say(f"{'':>15}  {finding['why']}")
    show.say(
        f"\n[bold]{'results':>15}[/bold]  {results}\n[bold]{'report':>15}[/bold]  {results.parent / 'report.html'}"
    )


def default_workers(device: str) -> int:
    """One a core, up to eight (each holds a torch of its own); one where there is a GPU to share."""
    return min(8, os.cpu_count() or 1) if device == "cpu" else 1
