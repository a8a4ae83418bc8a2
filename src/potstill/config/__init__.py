"""A run, described: frozen pydantic models with tagged unions, read from YAML.

Nothing here imports torch, so that `--help`, `check`'s first half and the tests
of recipes answer at once.
"""

from potstill.config.load import ConfigError, build_run, load_run, parse_run
from potstill.config.run import Run

__all__ = ["ConfigError", "Run", "build_run", "load_run", "parse_run"]
