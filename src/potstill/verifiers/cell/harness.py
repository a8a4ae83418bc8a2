"""Running the code and then its tests, and saying how that went in a way that the code does not.

Code and tests share an interpreter, as the tests call the code. So what the code must
not do is done before it runs: the tests are compiled, and every function that is needed
afterwards is held in a local variable, where replacing a builtin does not reach it. The
verdict counts only with a token that is drawn anew for every run. Code that leaves
early (`sys.exit`, `os._exit`) never gets to the line that writes it.

What remains: code that looks for it finds the token in this function's frame, and an
answer whose `__eq__` is always true passes any `==`. That takes intent.
"""

from __future__ import annotations

import os
import sys
import types

DETAIL_CHARACTERS = 300
NAME = "completion"


def describe(error: BaseException) -> str:
    """Type and text of an exception; its text is the code's own and may fail too."""
    try:
        text = str(error)
    except Exception:  # whatever the code under test raises here; the outcome is an error already
        text = "(an exception whose text cannot be read)"
    return f"{type(error).__name__}: {text}"[:DETAIL_CHARACTERS]


def label_of(error: BaseException, stage: str) -> str:
    """Which of the outcomes an exception is, in stage `program` or `tests`."""
    if isinstance(error, MemoryError):
        return "memory"
    return "wrong" if stage == "tests" and isinstance(error, AssertionError) else "error"


def run(program: str, tests: str, token: str, verdict: int) -> None:
    """Run both, write one line to the file descriptor `verdict`, and end this process."""
    leave, write, execute = os._exit, os.write, exec
    right = f"{token} right \n".encode()

    def say(label: str, detail: str) -> None:
        write(verdict, f"{token} {label} {detail.encode(errors='replace').hex()}\n".encode())
        leave(0)

    module = types.ModuleType(NAME)
    sys.modules[NAME] = module  # dataclasses and pickle look their classes' module up
    names = module.__dict__
    try:
        after = compile(tests, "tests.py", "exec")
    except (SyntaxError, ValueError) as error:
        say("bad_tests", describe(error))
    try:
        code = compile(program, "completion.py", "exec")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        say("syntax", describe(error))
    stage = "program"
    try:
        execute(code, names)
        stage = "tests"
        execute(after, names)
    except BaseException as error:  # SystemExit and KeyboardInterrupt too: whatever ends it early has not passed
        say(label_of(error, stage), describe(error))
    write(verdict, right)
    leave(0)
