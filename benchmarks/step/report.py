"""Peak memory of a process, from a moment on (Linux)."""

from __future__ import annotations

from pathlib import Path


def start() -> None:
    """Forget the peak so far."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_mb() -> float:
    """MiB of the resident set at its largest since `start`."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM"))
    return int(line.split()[1]) / 1024
