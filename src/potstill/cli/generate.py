"""`potstill generate`: completions into a store, several per prompt, verified, resumable."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from potstill.config.load import load_generate
from potstill.training.generating import generate
from potstill.training.quiet import quiet_libraries
from potstill.training.show import Show


def generate_verb(path: Path, overrides: Sequence[str]) -> None:
    """Parse, sample, verify, say where it is."""
    config = load_generate(path, overrides)
    quiet_libraries()
    show = Show()
    run = generate(config, show)
    show.say(f"\n the store  {run.path}; a run reads it with data.completions={{kind: store, path: {run.path}}}")
