"""Potstill distils language models and tells whether the student learned the task."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from potstill import losses, sources
    from potstill.api import Run, distil, open_run
    from potstill.config import load_run
    from potstill.diagnosis import diagnose
    from potstill.integrations.transformers import MonitorCallback

__version__ = "0.1.0"
__all__ = [
    "MonitorCallback",
    "Run",
    "__version__",
    "diagnose",
    "distil",
    "load_run",
    "losses",
    "open_run",
    "sources",
]

_HOMES = {
    "MonitorCallback": "potstill.integrations.transformers",
    "Run": "potstill.api",
    "diagnose": "potstill.diagnosis",
    "distil": "potstill.api",
    "load_run": "potstill.config",
    "open_run": "potstill.api",
}


def __getattr__(name: str) -> Any:
    """Import the public names when they are first asked for: `import potstill` stays instant."""
    if name in ("losses", "sources"):
        return importlib.import_module(f"potstill.{name}")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'potstill' has no attribute {name!r}")
