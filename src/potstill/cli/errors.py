"""Errors that are the user's to mend end the program in their own words, with exit code 1.

What is not among them is a defect of ours and keeps its traceback.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def explained() -> Iterator[None]:
    """Print expected errors; leave others alone."""
    try:
        yield
    except KeyboardInterrupt:
        print("interrupted; what was on disk is kept", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        code = getattr(error, "exit_code", None)
        if code is not None:  # training.signals.Stopped
            print(f"{error}; run the same command again to go on", file=sys.stderr)
            sys.exit(code)
        if not _is_for_user(error):
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


def _is_for_user(error: Exception) -> bool:
    """Our own error classes, and plain ValueErrors that our own modules raise; not libraries' ones."""
    if type(error).__module__.startswith("potstill."):
        return True
    if not isinstance(error, ValueError | FloatingPointError):
        return False
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_globals.get("__name__", "").startswith("potstill.")
