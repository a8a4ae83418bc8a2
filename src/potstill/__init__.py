"""Potstill distils language models and tells whether the student learned the task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from potstill.config import load_run
    from potstill.diagnosis import diagnose
    from potstill.training.distil import distil

__version__ = "0.1.0"
__all__ = ["__version__", "diagnose", "distil", "load_run"]

_HOMES = {
    "distil": "potstill.training.distil",
    "diagnose": "potstill.diagnosis",
    "load_run": "potstill.config",
}


def __getattr__(name: str) -> Any:
    """Import the public names when they are first asked for: `import potstill` stays instant."""
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'potstill' has no attribute {name!r}")
