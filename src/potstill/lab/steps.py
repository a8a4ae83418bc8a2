"""Steps of an experiment that are never done twice.

A step has a name and an address: the name and a hash of all that decides its outcome (its
own settings, and the addresses of the steps that it needs). What it makes lies in a folder
of that address, and `done.json` in it is written last. A stopped experiment goes on where
it was; a changed setting does again what depends on it and nothing else.

Steps that do not need each other run side by side: in this process, in several, or in
Ray's workers.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from potstill.run_dir import digest, write_atomic
from potstill.training.quiet import quiet_imports, quiet_libraries

#: Longest hash that an address shows.
HASH_LENGTH = 8
Notice = Callable[["Step", float | None], None]  # a step that ended, and its seconds; None where it was done before


class StepError(RuntimeError):
    """A step could not be made, through no fault of its own."""


@dataclass(frozen=True)
class Step:
    """Something to make once. `maker` names a function, `module:function`, of (facts, folder, needed folders)."""

    name: str
    maker: str
    facts: Mapping[str, Any]  # plain values: they go to JSON, and decide the address
    needs: Mapping[str, Step] = field(default_factory=dict)

    @cached_property
    def address(self) -> str:
        """Folder name: changes when anything that matters does."""
        needed = {role: step.address for role, step in self.needs.items()}
        return f"{self.name}-{digest([self.maker, dict(self.facts), needed])[:HASH_LENGTH]}"

    def folder(self, root: Path) -> Path:
        return root / "steps" / self.address

    def is_done(self, root: Path) -> bool:
        return (self.folder(root) / "done.json").is_file()


def in_order(wanted: Sequence[Step]) -> list[Step]:
    """All steps that these need and themselves, each once, needed ones first."""
    found: dict[str, Step] = {}

    def visit(step: Step) -> None:
        if step.address not in found:
            for needed in step.needs.values():
                visit(needed)
            found[step.address] = step

    for step in wanted:
        visit(step)
    return list(found.values())


def perform(root: Path, step: Step) -> float:
    """Make one step in this process; returns its seconds."""
    start = time.perf_counter()
    folder = step.folder(root)
    folder.mkdir(parents=True, exist_ok=True)
    module, _, name = step.maker.partition(":")
    needed = {role: one.folder(root) for role, one in step.needs.items()}
    getattr(import_module(module), name)(dict(step.facts), folder, needed)
    seconds = round(time.perf_counter() - start, 2)
    record = {"seconds": seconds, "facts": dict(step.facts), "needs": {r: s.address for r, s in step.needs.items()}}
    write_atomic(folder / "done.json", json.dumps(record, indent=1).encode())
    return seconds


def run_steps(root: Path, wanted: Sequence[Step], workers: int, notice: Notice) -> None:
    """Make all that is not there yet, `workers` steps at a time.

    A step that fails stops the rest from being begun; what is at work ends first, and the
    error is raised then. Raises StepError where a worker process dies.
    """
    steps = in_order(wanted)
    for step in steps:
        if step.is_done(root):
            notice(step, None)
    open_steps = [step for step in steps if not step.is_done(root)]
    if workers == 1:
        for step in open_steps:
            notice(step, perform(root, step))
        return
    with ProcessPoolExecutor(workers, get_context("spawn"), _start_worker, (threads_each(workers),)) as pool:
        try:
            for step, seconds in _in_pool(pool, root, open_steps, workers):
                notice(step, seconds)
        except BrokenProcessPool as error:
            raise StepError(
                "a worker process ended before its step did: it was killed, or memory ran out. What is done is kept; "
                "run the same again, with fewer workers if memory was short."
            ) from error


def _in_pool(pool: ProcessPoolExecutor, root: Path, waiting: list[Step], workers: int) -> Iterator[tuple[Step, float]]:
    """Steps as they end. Only as many are handed over as can be at work, so that a stop is quick."""
    running: dict[Future[float], Step] = {}
    error: BaseException | None = None
    while running or (waiting and error is None):
        missing = {s.address for s in waiting} | {s.address for s in running.values()}
        for step in list(waiting) if error is None else ():
            if len(running) < workers and not any(n.address in missing for n in step.needs.values()):
                waiting.remove(step)
                running[pool.submit(perform, root, step)] = step
        ended, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in ended:
            step = running.pop(future)
            if future.exception() is not None:
                error = error or future.exception()
            else:
                yield step, future.result()
    if error is not None:
        raise error


def threads_each(workers: int) -> int:
    """Threads of each worker, so that together they fill the machine."""
    return max(1, (os.cpu_count() or 1) // workers)


def _start_worker(threads: int) -> None:
    """Few words, few threads, and no life after the conductor's death."""
    quiet_imports()
    # A run hears Ctrl-C itself and ends at a safe place; anything else can be taken up from where it is.
    signal.signal(signal.SIGINT, lambda number, frame: os._exit(128 + number))
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    import torch

    torch.set_num_threads(threads)
    quiet_libraries()


def _end_with(parent: int) -> None:
    """A step can be taken up after any kill; a worker that nobody waits for only takes room."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
