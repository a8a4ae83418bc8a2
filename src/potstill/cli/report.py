"""`potstill report`: write one run's page again, or one page on several runs side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from potstill.report import write_comparison, write_report

COMPARISON = Path("comparison.html")  # belongs to no run, so it goes where the user stands


def report_verb(runs: Sequence[Path], output: Path | None) -> None:
    """Write the page and say where it is."""
    if len(runs) == 1:
        print(write_report(runs[0], output))
    else:
        print(write_comparison(runs, output or COMPARISON).resolve())
