"""What a person sees while a run works: what it is at, how fast, how long still.

On a terminal a live line; elsewhere (a log, CI) a plain line now and then.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

PLAIN_SECONDS = 20.0


class Show:
    """A console that may be silent (other processes, tests)."""

    def __init__(self, console: Console | None = None, quiet: bool = False):
        self.console = console or Console(highlight=False, soft_wrap=True)
        self.quiet = quiet
        self.live: list[Progress] = []  # a terminal has room for one: the last is drawn, the others wait

    def say(self, text: str) -> None:
        if not self.quiet:
            self.console.print(text)

    def bar(self, what: str, total: int | None, done: int = 0) -> Bar:
        return Bar(self, what, total, done)

    @contextmanager
    def bars(self, asked_to_stop: Callable[[], bool]) -> Iterator[Callable[[str, int | None, int, int], bool]]:
        """A function that is told (what, total, units, tokens) and draws a bar for each `what`; it says whether
        to stop. The first call for a `what` tells what is done already."""
        made: dict[str, Bar] = {}

        def progress(what: str, total: int | None, units: int, tokens: int) -> bool:
            if what not in made:
                made[what] = self.bar(what, total, units).__enter__()
            else:
                made[what].advance(units, tokens)
            return asked_to_stop()

        try:
            yield progress
        finally:
            for bar in made.values():
                bar.__exit__(None, None, None)


class Bar:
    """Progress of one stage, in `total` units (None: nobody knows), with a rate in tokens per second."""

    def __init__(self, show: Show, what: str, total: int | None, done: int):
        self.show, self.what, self.total, self.done = show, what, total, done
        self.tokens, self.started, self._first = 0, time.perf_counter(), done
        self._spoke, self._ended = self.started, False
        self._live = show.console.is_terminal and not show.quiet
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Bar:
        if self._live:
            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=30),
                TextColumn("{task.completed}/{task.total}"),
                TextColumn("{task.fields[note]}"),
                TimeRemainingColumn(),
                console=self.show.console,
            )
            if self.show.live:
                self.show.live[-1].stop()
            self.show.live.append(self._progress)
            self._progress.start()
            self._task = self._progress.add_task(self.what, total=self.total, completed=self.done, note="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()
            self.show.live.remove(self._progress)
            if self.show.live:
                self.show.live[-1].start()

    def advance(self, units: int, tokens: int, note: str = "") -> None:
        """`units` more are done, which took `tokens` tokens."""
        self.done += units
        self.tokens += tokens
        passed = max(1e-9, time.perf_counter() - self.started)
        text = f"{self.tokens / passed:,.0f} tokens/s {note}" if self.tokens else note
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=self.done, note=text)
            return
        last = self.total is not None and self.done >= self.total
        silent = self._ended if last else time.perf_counter() - self._spoke < PLAIN_SECONDS
        if self.show.quiet or silent:
            return
        self._spoke, self._ended = time.perf_counter(), last
        if self.total is None:
            self.show.say(f"{self.what} {self.done}  {text}")
            return
        left = passed / max(1, self.done - self._first) * (self.total - self.done)
        self.show.say(f"{self.what} {self.done}/{self.total}  {text}  {left:,.0f} s left")
