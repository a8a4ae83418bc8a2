"""`potstill report`: write the page again."""

from __future__ import annotations

from pathlib import Path

from potstill.report import write_report


def report_verb(run: Path) -> None:
    """Write report.html into the run directory and say where it is."""
    print(write_report(run))
