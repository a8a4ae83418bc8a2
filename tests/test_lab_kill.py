"""A lab that is stopped or killed leaves nobody behind, and goes on where it was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from lab_miniature import SMALL

pytestmark = pytest.mark.slow


def start(output: Path) -> subprocess.Popen[bytes]:
    changes = [*SMALL, "arms=[offline, oracle_as_teacher, online_student]", "seeds=[0, 1]"]
    command = [sys.executable, "-m", "potstill.cli.main", "lab", "hacking", "--output", str(output), "--workers", "2"]
    return subprocess.Popen(
        [*command, *changes], start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        # A shell's background jobs ignore Ctrl-C, and so would all that they start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip


def wait_for(condition: object, seconds: float, what: str) -> None:
    until = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < until, f"{what} did not happen within {seconds} s"
        time.sleep(0.1)


def group_is_gone(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_lab_leaves_no_worker_and_goes_on(tmp_path: Path, number: signal.Signals) -> None:
    output = tmp_path / "lab"
    lab = start(output)
    wait_for(lambda: list(output.glob("steps/student-s*/done.json")), 300, "the first student")
    done = {path: path.stat().st_mtime for path in output.glob("steps/*/done.json")}
    if number == signal.SIGINT:
        os.killpg(lab.pid, number)  # as a terminal does
    else:
        lab.kill()
    said, _ = lab.communicate(timeout=120)
    assert lab.returncode == (130 if number == signal.SIGINT else -signal.SIGKILL), said.decode()
    if number == signal.SIGINT:
        assert b"Traceback" not in said, said.decode()
    wait_for(lambda: group_is_gone(lab.pid), 30, "the end of the workers")
    again = start(output)
    said, _ = again.communicate(timeout=600)
    assert again.returncode == 0, said.decode()
    assert all(path.stat().st_mtime == when for path, when in done.items()), "what was done is not done again"
    assert len(list(output.glob("steps/distil-*/done.json"))) == 6
