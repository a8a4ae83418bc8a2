"""The process in which math-verify compares expressions; `math.py` starts, times and kills it.

Computer algebra can take any time, and the library's own time-outs need signals, which only a main
thread has. So each comparison is a JSON line in and a JSON line out, and the parent holds the watch.
Run as `python -m potstill.verifiers.math_worker`.
"""

from __future__ import annotations

import json
import logging
import sys
import warnings
from typing import Any

_MOST_MEMORY = 4 * 2**30  # bytes


def compare(gold: str, answer: str, decimals: int) -> str:
    """right, wrong, unparsed (the answer) or unparsed_reference, of two LaTeX or plain expressions."""
    from math_verify import verify

    wanted, found = _parse(gold), _parse(answer)
    if not wanted:
        return "unparsed_reference"
    if not found:
        return "unparsed"
    return "right" if verify(wanted, found, float_rounding=decimals, timeout_seconds=None) else "wrong"


def _parse(text: str) -> list[Any]:
    from math_verify import LatexExtractionConfig, parse

    latex = LatexExtractionConfig(boxed_match_priority=-1)
    return list(parse(f"${text}$", [latex], fallback_mode="no_fallback", parsing_timeout=None))


def _bound_memory() -> None:
    """A power tower should end this process, not its machine."""
    try:
        import resource
    except ImportError:  # no such bound on Windows; the parent's watch still holds
        return
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))


def main() -> None:
    """Answer requests until the input ends."""
    _bound_memory()
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    compare("1", "1", 6)  # loads the library before the watch runs
    print("ready", flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(compare(request["gold"], request["answer"], request["decimals"])), flush=True)


if __name__ == "__main__":
    main()
