"""Whether this machine lets us put up a wall: the wall is put up, in a process that then ends."""

from __future__ import annotations

import marshal
import os
import sys

from potstill.verifiers.cell import kernel, landlock, namespaces, seccomp


def main() -> None:
    """Read one question from standard input, answer `ok`, a version, or what went wrong."""
    question = marshal.loads(sys.stdin.buffer.read())
    answer = "ok"
    try:
        if question["wall"] == "namespaces":
            namespaces.enter()
            namespaces.build_root(question["folder"], question["readable"], 0)
            if os.fork() == 0:  # a first process must be possible in the new namespace
                os._exit(0)
            os.wait()
        elif question["wall"] == "landlock":
            answer = str(landlock.abi())
        else:
            kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
            seccomp.restrict(alone=True, read_only=True)
    except OSError as error:
        answer = f"{type(error).__name__}: {error}"
    os.write(1, answer.encode())
