"""The test at the end of a run: held-out prompts, answered and verified."""

from __future__ import annotations

from pydantic import Field

from potstill.config.base import Frozen
from potstill.config.verify import Verify


class Benchmark(Frozen):
    """Teacher, the student as it began and the student as it is exported answer held-out prompts greedily."""

    verifiers: tuple[Verify, ...] = Field(min_length=1)
    """An answer counts as right where all pass."""
    max_prompts: int = Field(default=128, ge=1)
    """Held-out prompts of the split `test` that are asked, of those that have a reference."""
    max_new_tokens: int = Field(default=128, ge=1)
    """Longest answer in tokens; one that is cut there is verified as it stands."""
