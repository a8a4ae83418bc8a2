"""How the generator is asked, where that differs from what the student is shown.

Orca asked its teacher under system messages that call for explanations; Orca 2 then showed
the student the bare question (prompt erasure), so that it learned to choose a way of
answering by itself. Here each way is a named strategy, and the name stays with the completion.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from potstill.config.base import Frozen

PLACE = "{prompt}"
StudentSees = Literal["prompt", "what_was_asked"]


class Strategy(Frozen):
    """One way of asking, such as step by step, direct, or as code."""

    name: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9_.-]*$")
    """Kept in the completion's history."""
    system: str | None = Field(default=None, min_length=1)
    """System message, in the place of the prompt's own."""
    template: str | None = None
    """Text round the last user's message, or round a plain text prompt; {prompt} stands for it."""
    tasks: tuple[str, ...] | None = Field(default=None, min_length=1)
    """Only for prompts of these groups (data.prompts.group or .task); null: for all."""

    @model_validator(mode="after")
    def _has_a_place(self) -> Strategy:
        if self.template is not None and PLACE not in self.template:
            raise ValueError(f"template must say where the prompt goes, as {PLACE}; found {self.template!r}")
        return self


class Asking(Frozen):
    """What the generator is shown."""

    strategies: tuple[Strategy, ...] = Field(min_length=1)
    """Completion 0, 1, 2, ... of a prompt takes them in turn, beginning at one that the seed chooses."""
    student_sees: StudentSees = "prompt"
    """prompt: the student learns to answer the bare prompt (prompt erasure). what_was_asked: the same as the
    generator."""
    critique: str | None = Field(default=None, min_length=1)
    """A second turn that follows on the first answer, such as "Check each step. Then write the corrected
    solution."; the answer to it becomes the completion. Null: no second turn."""

    @model_validator(mode="after")
    def _names_differ(self) -> Asking:
        names = [strategy.name for strategy in self.strategies]
        if len(set(names)) != len(names):
            raise ValueError(f"two strategies have one name: {names}")
        return self
