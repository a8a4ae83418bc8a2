"""The command line in this process: what a user types, without the seconds in which a new process imports torch."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

from potstill.cli.main import main


def here(*arguments: str | Path, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run `potstill ARGUMENTS` in a folder; stdout, stderr and the exit code come back, as from a process."""
    out, err, typed = io.StringIO(), io.StringIO(), ["potstill", *map(str, arguments)]
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.chdir(folder or Path.cwd()))
        stack.enter_context(mock.patch.object(sys, "argv", typed))
        stack.enter_context(mock.patch.dict(os.environ, {"COLUMNS": "200"}))
        stack.enter_context(contextlib.redirect_stdout(out))
        stack.enter_context(contextlib.redirect_stderr(err))
        code = 0
        try:
            main()
        except SystemExit as left:
            code = left.code if isinstance(left.code, int) else int(left.code is not None)
    return subprocess.CompletedProcess(typed, code, out.getvalue(), err.getvalue())
