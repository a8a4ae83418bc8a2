"""`potstill diagnose`: the verdict, in words or as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from potstill.diagnosis import diagnose, remedies


def diagnose_verb(path: Path, as_json: bool) -> None:
    """Judge a run directory or a log."""
    verdict = diagnose(path)
    if as_json:
        print(json.dumps(asdict(verdict), indent=2, sort_keys=True))
        return
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"[bold]{verdict.verdict.replace('_', ' ')}[/bold] (confidence {verdict.confidence:.2f})")
    console.print(verdict.sentence)
    if verdict.best_step is not None:
        console.print(f"best step: {verdict.best_step}")
    for remedy in remedies(verdict):
        console.print(f"- {remedy.action}: {remedy.why}")
