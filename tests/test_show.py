"""What a log shows of long work: a line now and then, the end once, a rate where there is one."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from potstill.training import show as module
from potstill.training.show import Show


def said(monkeypatch: pytest.MonkeyPatch, seconds: list[float], steps: list[tuple[int, int]]) -> list[str]:
    """The lines of a bar over four units that is advanced at these seconds by (units, tokens)."""
    shown, now = io.StringIO(), [0.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    with Show(Console(file=shown, width=100)).bar("reading", 4) as bar:
        for second, (units, tokens) in zip(seconds, steps, strict=True):
            now[0] = second
            bar.advance(units, tokens)
    return shown.getvalue().splitlines()


def test_a_log_has_a_line_now_and_then_and_the_end_once(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = said(monkeypatch, [10, 25, 30, 40, 41], [(1, 100), (1, 100), (1, 100), (1, 100), (0, 100)])
    assert [" ".join(line.split()) for line in lines] == [
        "reading 2/4 8 tokens/s 25 s left",
        "reading 4/4 10 tokens/s 0 s left",
    ]


def test_work_that_counts_no_tokens_shows_no_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    (line,) = said(monkeypatch, [30], [(4, 0)])
    assert " ".join(line.split()) == "reading 4/4 0 s left"
