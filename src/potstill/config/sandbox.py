"""Unit tests as a judge of generated code, and the limits under which that code runs."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from potstill.config.base import Frozen


class SandboxLimits(Frozen):
    """What a piece of generated code may use up, and how well it must be locked in."""

    require: Literal["full", "limits_only"] = "full"
    """full: refuse to run any code unless network, files, processes and memory are all shut off or bounded.
    limits_only: accept a machine that can only bound time, output and file sizes; what was in force is
    named in the verifier's version. For code you trust, or a machine you can lose."""
    cpu_seconds: int = Field(default=5, ge=1)
    """Processor time of each process."""
    wall_seconds: float = Field(default=10.0, gt=0)
    """Time on the clock; then everything that the code started is killed."""
    memory_mb: int = Field(default=512, ge=64)
    """Address space of each process, in MiB; the interpreter itself takes about 30 of it."""
    file_mb: int = Field(default=0, ge=0)
    """What the code may write in its own folder, in MiB altogether. 0: nothing, anywhere. More needs user
    namespaces, whose folder is a small disk in memory."""
    processes: int = Field(default=1, ge=1, le=256)
    """Processes and threads at once. 1: the code can start neither. More needs user namespaces, and then
    memory_mb and cpu_seconds hold for each of them."""
    output_kb: int = Field(default=64, ge=1)
    """What the code may print, in KiB; then it is killed."""


class CodeTests(SandboxLimits):
    """Run the code in a completion against the prompt's tests, in a sandbox."""

    kind: Literal["code"]
    tests_from: Literal["reference"] = "reference"
    """Where the tests are: the prompt's reference text is Python code that fails by an exception."""
    entry_point: Literal["none", "prompt"] = "none"
    """What is tested by name. prompt: the last function or class whose definition the prompt's text shows
    (HumanEval, MBPP in HumanEval's form). none: the tests call it by its name themselves (MBPP)."""
    call: str | None = None
    """Put after the tests, with {entry_point} in it, such as check({entry_point})."""
    starts_with: Literal["nothing", "prompt"] = "nothing"
    """What stands before the completion in the program. prompt: the prompt's text, for completions that
    continue it, or that repeat its function but not its imports."""
    cut_at: tuple[str, ...] = ()
    """A completion without a fenced block ends before the first of these, such as a newline and 'def'.
    For base models, which go on after the function."""

    @model_validator(mode="after")
    def _naming(self) -> CodeTests:
        if self.entry_point == "prompt" and (self.call is None or "{entry_point}" not in self.call):
            raise ValueError("entry_point: prompt has no effect without call; write call: check({entry_point})")
        if self.entry_point == "none" and self.call is not None and "{entry_point}" in self.call:
            raise ValueError("call names {entry_point}, which is none; set entry_point: prompt")
        if "" in self.cut_at:
            raise ValueError("cut_at holds an empty text, which would cut everything")
        return self
