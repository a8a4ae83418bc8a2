r"""Where in a text its answer stands.

The rules are tried in the order given, and the first that finds something decides: the last \boxed{...}, what
stands behind the last marker on its line ("#### 42", "The answer is 42."), the last number, the last line, or
the whole text. A completion in which none of them finds anything has no answer; it is not searched further.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from potstill.config.verify import AnswerRule

_NUMBER = re.compile(
    r"[-\u2212]?[$€£¥₹]?\s?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)?(?:\.\d+|(?<=\d))(?:\s?/\s?\d+)?(?:\s?\\?%)?"
)


def extract(text: str, rules: Sequence[AnswerRule], markers: Sequence[str]) -> str | None:
    """The answer by the first rule that finds one, or None."""
    for rule in rules:
        found = {
            "boxed": lambda: boxed(text),
            "marker": lambda: behind_marker(text, markers),
            "last_number": lambda: last_number(text),
            "last_line": lambda: next((line.strip() for line in reversed(text.splitlines()) if line.strip()), None),
            "whole": lambda: text.strip() or None,
        }[rule]()
        if found is not None:
            return found
    return None


def boxed(text: str) -> str | None:
    r"""What the last \boxed{...} (or \fbox) holds; None where its brackets do not close."""
    starts = [match.end() for match in re.finditer(r"\\f?boxed\s*\{", text)]
    if not starts:
        return None
    depth = 1
    for at in range(starts[-1], len(text)):
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        if depth == 0:
            return text[starts[-1] : at].strip() or None
    return None


def behind_marker(text: str, markers: Sequence[str]) -> str | None:
    """The rest of the line behind the marker that stands last, without a colon; case does not count."""
    folded = text.lower()
    if len(folded) != len(text):  # a few letters change their length
        folded = text
    ends = [(folded.rfind(marker.lower()), len(marker)) for marker in markers]
    at, length = max(ends, default=(-1, 0))
    if at < 0:
        return None
    lines = text[at + length :].lstrip(" \t:").splitlines()
    answer = (lines[0] if lines else "").strip().strip("*").strip()
    answer = re.sub(r"(?<=\d)\.(?!\d).*|[.!\s]+$", "", answer) if re.match(r"[-$€£]?\d", answer) else answer
    return answer.rstrip(".! ") or None


def last_number(text: str) -> str | None:
    """The last number, with its sign, currency, fraction and percent sign."""
    found = [m.group().strip() for m in _NUMBER.finditer(text) if re.search(r"\d", m.group())]
    return found[-1] if found else None
