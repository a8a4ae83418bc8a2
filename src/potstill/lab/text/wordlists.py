"""Word lists as they are comfortable to write: many words in one string."""

from __future__ import annotations


def words(text: str) -> tuple[str, ...]:
    """The words of a text."""
    return tuple(text.split())


def phrases(text: str) -> tuple[str, ...]:
    """The phrases of a text, a slash between them, on as many lines as you like."""
    return tuple(part.strip() for part in " ".join(text.split()).replace("| ", "|").split("/"))
