"""`potstill generate`: completions into a store, several per prompt, verified, resumable."""

from __future__ import annotations

from potstill.config.generate import Generate
from potstill.training.generating import generate
from potstill.training.quiet import quiet_libraries
from potstill.training.show import Show


def generate_verb(config: Generate) -> None:
    """Sample, verify, say where it is."""
    quiet_libraries()
    show = Show()
    run = generate(config, show)
    show.say(f"\n the store  {run.path}; a run reads it with data.completions={{kind: store, path: {run.path}}}")
