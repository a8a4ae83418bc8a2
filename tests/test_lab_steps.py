"""Steps of an experiment: addressed by what matters, made once, resumable, a failure loses nothing."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from potstill.lab.steps import Step, StepError, in_order, run_steps
from potstill.training.signals import Stopped

MAKERS = __name__


def write_sum(facts: dict[str, Any], folder: Path, needed: dict[str, Path]) -> None:
    """A maker: its number plus those of what it needs; leaves a trace of each time it ran."""
    total = facts["number"] + sum(json.loads((n / "sum.json").read_text()) for n in needed.values())
    with open(folder / "ran.txt", "a") as trace:
        trace.write("ran\n")
    (folder / "sum.json").write_text(json.dumps(total))


def fail(facts: dict[str, Any], folder: Path, needed: dict[str, Path]) -> None:
    if not (folder / "mended").exists():
        raise ValueError("this step fails until it is mended")


def meet(facts: dict[str, Any], folder: Path, needed: dict[str, Path]) -> None:
    """Ends only once the other one has begun."""
    (folder / "started").touch()
    until = time.monotonic() + 60
    while len(list(folder.parent.glob("*/started"))) < 2:
        if time.monotonic() > until:
            raise ValueError("the other step never began")
        time.sleep(0.02)


def stop(facts: dict[str, Any], folder: Path, needed: dict[str, Path]) -> None:
    raise Stopped("stopped after step 3 of 9", signal.SIGINT)


def die(facts: dict[str, Any], folder: Path, needed: dict[str, Path]) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def step(name: str, number: int, needs: dict[str, Step] | None = None, maker: str = "write_sum") -> Step:
    return Step(name, f"{MAKERS}:{maker}", {"number": number}, needs or {})


def chain() -> tuple[Step, Step, Step]:
    first = step("first", 1)
    second = step("second", 2, {"before": first})
    return first, second, step("third", 4, {"one": first, "two": second})


def runs_of(root: Path, one: Step) -> int:
    return len((one.folder(root) / "ran.txt").read_text().splitlines())


def test_needed_steps_come_first_and_once(tmp_path: Path) -> None:
    first, second, third = chain()
    assert [s.name for s in in_order([third, second])] == ["first", "second", "third"]
    seen: list[tuple[str, bool]] = []
    run_steps(tmp_path, [third], 1, lambda s, seconds: seen.append((s.name, seconds is None)))
    assert seen == [("first", False), ("second", False), ("third", False)]
    assert json.loads((third.folder(tmp_path) / "sum.json").read_text()) == 1 + (1 + 2) + 4
    run_steps(tmp_path, [third], 1, lambda s, seconds: seen.append((s.name, seconds is None)))
    assert seen[3:] == [("first", True), ("second", True), ("third", True)]
    assert [runs_of(tmp_path, s) for s in (first, second, third)] == [1, 1, 1]


def test_the_address_follows_what_matters() -> None:
    first, second, third = chain()
    assert step("first", 1).address == first.address
    assert step("first", 2).address != first.address
    changed = step("second", 2, {"before": step("first", 2)})
    assert changed.address != second.address, "a step changes with what it needs"
    assert step("third", 4, {"one": first, "two": changed}).address != third.address
    assert step("third", 4, {"two": second, "one": first}).address == third.address, "order of needs is no matter"


def test_an_unfinished_step_is_made_again(tmp_path: Path) -> None:
    first = step("first", 1)
    first.folder(tmp_path).mkdir(parents=True)
    (first.folder(tmp_path) / "sum.json").write_text("999")  # as a kill before done.json would leave it
    run_steps(tmp_path, [first], 1, lambda s, seconds: None)
    assert json.loads((first.folder(tmp_path) / "sum.json").read_text()) == 1


@pytest.mark.parametrize("workers", [1, 2])
def test_a_failure_keeps_what_was_made_and_can_be_mended(tmp_path: Path, workers: int) -> None:
    good, bad = step("good", 1), step("bad", 1, maker="fail")
    last = step("last", 1, {"bad": bad, "good": good})
    with pytest.raises(ValueError, match="until it is mended"):
        run_steps(tmp_path, [good, last], workers, lambda s, seconds: None)
    assert good.is_done(tmp_path) and not bad.is_done(tmp_path) and not last.folder(tmp_path).exists()
    (bad.folder(tmp_path) / "mended").touch()
    bad_sum = bad.folder(tmp_path) / "sum.json"
    bad_sum.write_text("5")
    run_steps(tmp_path, [good, last], workers, lambda s, seconds: None)
    assert json.loads((last.folder(tmp_path) / "sum.json").read_text()) == 1 + 5 + 1
    assert runs_of(tmp_path, good) == 1


def test_two_workers_work_at_the_same_time(tmp_path: Path) -> None:
    both = [step("left", 1, maker="meet"), step("right", 2, maker="meet")]
    run_steps(tmp_path, both, 2, lambda s, seconds: None)
    assert all(one.is_done(tmp_path) for one in both)


def test_a_request_to_stop_reaches_who_conducts(tmp_path: Path) -> None:
    with pytest.raises(Stopped, match="after step 3 of 9") as caught:
        run_steps(tmp_path, [step("stopped", 1, maker="stop")], 2, lambda s, seconds: None)
    assert caught.value.exit_code == 130


def test_a_worker_that_dies_is_told_of_and_nothing_is_lost(tmp_path: Path) -> None:
    good = step("good", 1)
    with pytest.raises(StepError, match="a worker process ended before its step did"):
        run_steps(tmp_path, [step("bad", 1, {"good": good}, maker="die")], 2, lambda s, seconds: None)
    assert good.is_done(tmp_path)
