"""Where a completion's reasoning ends and its answer begins.

A marker in the text (such as </think>) ends the trace. The boundary is found in
tokens: the shortest run of tokens whose decoded text holds the marker. Nothing is
tokenised again, so the ids stay as they were sampled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from potstill.data.collate import Row


def trace_length(tokenizer: Any, ids: Sequence[int], marker: str) -> int:
    """Tokens of `ids` up to and with the first `marker`; 0 where it does not occur."""

    def holds(count: int) -> bool:
        return marker in tokenizer.decode(ids[:count], skip_special_tokens=False)

    if not holds(len(ids)):
        return 0
    low, high = 0, len(ids)  # holds(high), not holds(low)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def mark_traces(rows: Sequence[Row], tokenizer: Any, marker: str) -> list[Row]:
    """The rows with their traces marked.

    Raises ValueError where no row at all has the marker: the setting would do nothing.
    """
    marked = [replace(row, num_trace=trace_length(tokenizer, row.answer, marker)) for row in rows]
    if not any(row.num_trace for row in marked):
        raise ValueError(
            f"data.trace_ends_with is {marker!r}, and none of {len(rows)} answers contains it; see how the "
            "completions write it (they are in the run's completions folder), or drop the token_weighting by part"
        )
    return marked
