"""Unit tests as the judge of a completion: its code is run in a sandbox, then the prompt's tests are.

The program is `starts_with` (nothing, or the prompt's text) and the code found in the completion; the tests
are the prompt's reference text and, after it, `call`. So both usual forms work: tests that are plain asserts
(MBPP), and tests that define check(candidate) for a function which the prompt begins (HumanEval).
"""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from potstill.config.sandbox import CodeTests
from potstill.records import Completion, Prompt
from potstill.verifiers.base import Outcome, VerifierError, reference_of
from potstill.verifiers.code_blocks import code_in, last_definition
from potstill.verifiers.sandbox import Sandbox


class CodeVerifier:
    """Passes a completion whose code passes the prompt's tests.

    Labels: right; wrong (an assertion of the tests failed); error (any other exception, or it left early, or was
    killed); timeout; memory; syntax; no_code. `detail` holds the exception's type and text.
    """

    def __init__(self, config: CodeTests, sandbox: Sandbox | None = None) -> None:
        """Raises SandboxUnavailable where this machine cannot lock code in as `config` asks."""
        self.config = config
        self.sandbox = Sandbox(config) if sandbox is None else sandbox

    @property
    def name(self) -> str:
        """For the completions' history."""
        return "code"

    @property
    def version(self) -> str:
        """Rules, Python (whose version decides what code does), and what the sandbox held."""
        python = ".".join(platform.python_version_tuple()[:2])
        layers = self.sandbox.layers
        held = "full" if layers.full else "limits_only:" + "+".join(layers.names)
        return f"1 python{python} {held}"

    def verify(self, prompt: Prompt, completion: Completion) -> Outcome:
        """Run one completion.

        Raises:
            VerifierError: If the prompt has no tests, they are not Python, or the entry point is not found.
        """
        tests = reference_of(prompt, self.name)
        entry_point = self._entry_point(prompt)
        code = code_in(completion.text, entry_point, self.config.cut_at)
        if not code.strip():
            return Outcome(False, "no_code", "")
        try:
            ran = self.sandbox.run(self._program(prompt, code), self._with_call(tests, entry_point))
        except ValueError as error:
            raise VerifierError(
                f"prompt {prompt.id!r}: {error}. The verifier 'code' expects Python there that raises where the "
                "tested code is wrong"
            ) from error
        return Outcome(ran.label == "right", ran.label, ran.detail)

    def verify_all(self, pairs: Sequence[tuple[Prompt, Completion]]) -> list[Outcome]:
        """Run many, one for each core at a time; outcomes in the order of `pairs`."""
        with ThreadPoolExecutor(cores()) as pool:
            return list(pool.map(lambda pair: self.verify(*pair), pairs))

    def _entry_point(self, prompt: Prompt) -> str | None:
        if self.config.entry_point == "none":
            return None
        name = last_definition(prompt.flat_text())
        if name is None:
            raise VerifierError(
                f"prompt {prompt.id!r} defines no function at the left margin, so entry_point: prompt finds no name; "
                "let the tests call it by name and set entry_point: none"
            )
        return name

    def _program(self, prompt: Prompt, code: str) -> str:
        if self.config.starts_with == "nothing":
            return code
        before = prompt.flat_text()
        # A body goes on where the prompt ends; a whole function needs a line of its own.
        joint = "" if before.endswith("\n") or code[0] in " \t\n" else "\n"
        return before + joint + code

    def _with_call(self, tests: str, entry_point: str | None) -> str:
        call = self.config.call or ""
        return f"{tests}\n{call.replace('{entry_point}', entry_point or '')}\n"


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
