"""Finding the code in what a model said, and the name of what the prompt asks for.

Three cases, in this order:

- Fenced blocks marked python, py, python3, or not at all: the last one that defines the entry point, and
  without an entry point (or where none defines it) the last one. Answers often repair their
  first attempt, or show how to call it afterwards. A fence that is never closed ends with the text; one that is
  indented has its indentation removed from every line.
- Only blocks of other languages: no code.
- No fence: the whole text, untouched, so that a continuation keeps its indentation.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_FENCE = re.compile(r"^([ \t]*)(```+|~~~+)[ \t]*([\w+.-]*)[^\n`]*$", re.MULTILINE)
_PYTHON = frozenset({"", "python", "py", "python3"})
_DEFINITION = r"^(?:async[ \t]+def|def|class)[ \t]+{name}\b"


def fenced_blocks(text: str) -> list[tuple[str, str]]:
    """(language in lower case, content) of each fenced block."""
    blocks, position = [], 0
    while opening := _FENCE.search(text, position):
        indent, fence, language = opening.groups()
        closing = re.compile(rf"^[ \t]*{fence}[ \t\r]*$", re.MULTILINE).search(text, opening.end())
        content = text[opening.end() + 1 : closing.start() if closing else len(text)]
        if indent:  # a block in a list is indented with its fence
            content = re.sub(rf"^{indent}", "", content, flags=re.MULTILINE)
        blocks.append((language.lower(), content))
        position = closing.end() if closing else len(text)
    return blocks


def code_in(text: str, entry_point: str | None, cut_at: Sequence[str] = ()) -> str:
    """The code in `text` by the rules above; empty where there is none. `cut_at` ends text without fences."""
    blocks = fenced_blocks(text)
    if not blocks:
        ends = [place for stop in cut_at if (place := text.find(stop)) >= 0]
        return text[: min(ends)] if ends else text
    code = [content for language, content in blocks if language in _PYTHON]
    if entry_point is not None:
        defines = re.compile(_DEFINITION.format(name=re.escape(entry_point)), re.MULTILINE)
        code = [content for content in code if defines.search(content)] or code
    return code[-1] if code else ""


def last_definition(text: str) -> str | None:
    """Name of the last function or class that `text` defines at the left margin."""
    names: list[str] = re.findall(_DEFINITION.format(name=r"(\w+)"), text, re.MULTILINE)
    return names[-1] if names else None
