"""`potstill run`: distil, then say in a few lines what came of it."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from potstill.config import Run
from potstill.diagnosis import read_curves
from potstill.report import write_report
from potstill.run_dir import RunDir
from potstill.training.distil import distil
from potstill.training.quiet import quiet_libraries
from potstill.training.show import Show


def run_verb(config: Run) -> None:
    """Distil, report, summarise."""
    quiet_libraries()
    leads = os.environ.get("RANK", "0") == "0"
    run = distil(config, Show(quiet=not leads))
    if leads:
        page = write_report(run.path)
        summarise(run, page, Show())


def summarise(run: RunDir, page: Path, show: Show) -> None:
    """Verdict, before and after, where things are, what to try next."""
    verdict = run.read_json("verdict.json")
    show.say("")
    show.say(f"[bold]verdict: {verdict['verdict'].replace('_', ' ')}[/bold] (confidence {verdict['confidence']:.2f})")
    show.say(verdict["sentence"])
    show.say("")
    curves = read_curves(run.path)
    for name in ("proxy", "proxy_fkl", "golden"):
        values = curves[name].per_token
        line = ""
        if name == "golden":
            teacher = curves[name].teacher
            assert teacher is not None
            own = teacher.sum() / curves[name].tokens[0].sum()
            line = f"  (teacher {own:.3f})"
        show.say(f"{name:>10}  {values[0]:.3f} -> {values[-1]:.3f} nats/token{line}")
    show.say(f"\n   student  {run.file('student')}")
    show.say(f"    report  {page}")
    show.say(f"      chat  {program()} chat {run.path}")


def program() -> str:
    """How the user can start us again: by name where the shell finds it, else as it was started."""
    started = Path(sys.argv[0])
    return "potstill" if shutil.which("potstill") or started.name != "potstill" else str(started)
