"""What is wrong with a corpus's text: refused with its place and how to mend it, or left out and counted."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

from potstill.data.corpus import CorpusError

#: Places that are listed for each reason; the others are only counted.
LISTED = 20
OR_SKIP = "or set `on_broken: skip` to leave it out"


class LeftOut:
    """What of a source is left out: how often for each reason, and the first places."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.places: dict[str, list[str]] = {}

    def add(self, why: str, where: str) -> None:
        self.counts[why] = self.counts.get(why, 0) + 1
        places = self.places.setdefault(why, [])
        if len(places) < LISTED:
            places.append(where)

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    def facts(self, name: str) -> list[dict[str, Any]]:
        """As corpus.json lists it for the set `name`."""
        return [
            {"set": name, "why": why, "count": count, "places": self.places[why]} for why, count in self.counts.items()
        ]


def broken(on_broken: str, left_out: LeftOut, why: str, where: str, found: str, mend: str) -> None:
    """Raise CorpusError("where: found. mend, or ..."), or where faults are skipped count it under `why`."""
    if on_broken == "refuse":
        raise CorpusError(f"{where}: {found}. {mend}, {OR_SKIP}.")
    left_out.add(why, where)


def no_column(wanted: str, found: Iterable[str]) -> str:
    """In words: a column is not there, and which one may be meant."""
    names = list(found)
    near = difflib.get_close_matches(wanted, names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"expected a column {wanted!r}, found {', '.join(map(repr, names)) or 'none'}{hint}"


def not_text(value: Any) -> str | None:
    """In words why a value cannot be a document's text; None where it can."""
    if not isinstance(value, str):
        return f"expected a text, found {type(value).__name__}"
    try:
        value.encode()
    except UnicodeEncodeError as error:
        return f"the text holds half of a surrogate pair at character {error.start}, which is no character"
    return None
