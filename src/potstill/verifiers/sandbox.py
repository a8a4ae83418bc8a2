"""Running code that a model wrote, so that it can do nothing but compute, for a while.

Every run gets a fresh interpreter without site-packages (`python -I -S`), an empty environment, nothing on standard
input, and limits on time, memory, output, files and processes. It cannot open a
socket, start another program, write or read files outside the standard library and the
system's shared libraries, see or signal another process. When it ends, or its time is
over, all that it started is killed. Where the machine cannot hold this, nothing is run:
see `layers`. What happens inside is in `cell`.

What it does NOT protect against:

- Bugs in the kernel: the code shares it with you. Somebody who attacks on purpose wants a virtual machine.
- Reading what is readable: the standard library, the folder `lib` of the Python installation with its
  site-packages, /usr/lib, /lib, time zones. No home, /etc, /proc or /tmp. Behind Landlock alone (no user namespaces)
  it can also ask whether any path exists, how big it is and when it changed, see the machine's name, and learn
  its own and its parent's process number.
- Side channels: timing, caches, load. It heats one core until cpu_seconds are over.
- Memory of many runs: each may take memory_mb, and with `processes` above 1 each of its processes may.
- GPU devices cannot be opened, nor any device but null, zero and urandom.
- Cheating: see `cell.harness`. The code shares an interpreter with its tests.
- With require: limits_only, all that the missing layers would have stopped. On macOS those are all layers: time, output
  and the size of a file are bounded there, memory and processes are not, and a process that leaves its session
  outlives the run. On Windows nothing runs.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import secrets
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from potstill.config.sandbox import SandboxLimits
from potstill.verifiers.layers import Layers, SandboxUnavailable, bootstrap, choose, offered, readable_paths, rehearsal

Label = Literal["right", "wrong", "error", "timeout", "memory", "syntax"]
#: On top of wall_seconds, for the start and the end of the interpreter; then the host kills it.
GRACE_SECONDS = 10.0
VERDICT_BYTES = 65536


@dataclass(frozen=True, slots=True)
class Ran:
    """How a run went. `output` is what it printed, standard output and error together, capped."""

    label: Label
    detail: str
    output: str
    wall_seconds: float
    cpu_seconds: float


@dataclass(frozen=True, slots=True)
class _Raw:
    """What came out of the pipes, and whether the host had to kill."""

    output: bytes
    report: bytes
    verdict: bytes
    killed: Literal["", "output", "time"]
    ended: int  # exit status of the first process


class Sandbox:
    """Runs programs with their tests under `limits`; may be used from many threads at once."""

    def __init__(self, limits: SandboxLimits, layers: Layers | None = None) -> None:
        """Look what the machine offers (or take `layers`) and rehearse, where the full sandbox is asked for.

        Raises:
            SandboxUnavailable: Where the machine cannot hold what `limits` asks for; names what is missing.
        """
        self.limits = limits
        self.layers = choose(limits, offered() if layers is None else layers)
        self._command = [sys.executable, *bootstrap("start", "main")]
        self._readable = readable_paths()
        if limits.require == "full":
            self._rehearse()

    def _rehearse(self) -> None:
        """Run the attacks of `rehearsal`, and look whether they did anything."""
        with tempfile.TemporaryDirectory(prefix="potstill-") as folder:
            outside = Path(folder, "outside")
            outside.write_text("secret")
            before = outside.stat()
            ran = self.run("", rehearsal(self.limits.processes, self.limits.memory_mb, str(outside)))
            kept = outside.exists() and outside.read_text() == "secret" and outside.stat().st_mode == before.st_mode
        if ran.label != "right" or not kept:
            found = f"{ran.label}: {ran.detail}" if kept else "a file outside was changed"
            raise SandboxUnavailable(
                f"generated code is not run here: with {'+'.join(self.layers.names)} in force, a rehearsed attack was "
                f"not stopped as it should ({found}). Please report this, and the kernel: {os.uname().release}"
            )

    def run(self, program: str, tests: str) -> Ran:
        """Run `program`, then `tests` in the same names; right when neither raised.

        Raises:
            SandboxUnavailable: If the sandbox could not be set up.
            ValueError: If `tests` is empty or is not Python.
        """
        if not tests.strip():
            raise ValueError("there are no tests to run; without tests every program would pass")
        token = secrets.token_hex(16)
        with tempfile.TemporaryDirectory(prefix="potstill-") as folder:
            raw = self._execute({"program": program, "tests": tests, "token": token, "folder": folder})
        return self._judge(raw, token)

    def _execute(self, job: dict[str, Any]) -> _Raw:
        """Start the interpreter, hand it the job, and read its pipes until all are closed."""
        report_read, report = os.pipe()
        verdict_read, verdict = os.pipe()
        job |= {
            "limits": self.limits.model_dump(include=set(SandboxLimits.model_fields)),
            "namespaces": self.layers.namespaces is None,
            "landlock": isinstance(self.layers.landlock, int),
            "seccomp": self.layers.seccomp is None,
            "loose": self.limits.require == "limits_only",
            "readable": self._readable,
            "report": report,
            "verdict": verdict,
        }
        with open(report_read, "rb", 0) as reports, open(verdict_read, "rb", 0) as verdicts:
            process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd="/",
                env={},
                pass_fds=(report, verdict),
                start_new_session=True,
            )
            os.close(report)
            os.close(verdict)
            try:
                return self._read(process, job, reports.fileno(), verdicts.fileno())
            finally:
                _kill(process)  # what it left in its session, if anything

    def _read(self, process: subprocess.Popen[bytes], job: dict[str, Any], report: int, verdict: int) -> _Raw:
        assert process.stdin is not None and process.stdout is not None
        with contextlib.suppress(BrokenPipeError), process.stdin as stdin:  # it died early: the report says why
            stdin.write(marshal.dumps(job))
        caps = {process.stdout.fileno(): self.limits.output_kb * 1024, report: VERDICT_BYTES, verdict: VERDICT_BYTES}
        got = {fd: bytearray() for fd in caps}
        deadline = time.monotonic() + self.limits.wall_seconds + GRACE_SECONDS
        killed: Literal["", "output", "time"] = ""
        with selectors.DefaultSelector() as selector, process.stdout:
            for fd in caps:
                selector.register(fd, selectors.EVENT_READ)
            while selector.get_map() and not killed:
                ready = selector.select(max(0.0, deadline - time.monotonic()))
                if not ready:
                    killed = "time"
                for key, _ in ready:
                    chunk = os.read(key.fd, 65536)
                    got[key.fd] += chunk
                    if not chunk:
                        selector.unregister(key.fd)
                    elif len(got[key.fd]) > caps[key.fd]:
                        killed = "output"
            out = bytes(got[process.stdout.fileno()][: caps[process.stdout.fileno()]])
        ended = 0 if killed else process.wait()  # every pipe is closed: it is on its way out
        return _Raw(out, bytes(got[report]), bytes(got[verdict]), killed, ended)

    def _judge(self, raw: _Raw, token: str) -> Ran:
        """What the pipes say, taken together; only the supervisor's report and the token are believed."""
        printed = raw.output.decode(errors="replace")
        if raw.killed == "output":
            return Ran("error", f"printed more than {self.limits.output_kb} KiB", printed, 0.0, 0.0)
        if raw.killed == "time":
            return Ran("timeout", "did not end", printed, self.limits.wall_seconds + GRACE_SECONDS, 0.0)
        if not raw.report and raw.ended < 0:
            return Ran("error", f"the supervisor was killed by {signal.Signals(-raw.ended).name}", printed, 0.0, 0.0)
        if not raw.report:
            raise SandboxUnavailable(
                f"the sandbox's interpreter did not start: {printed.strip()[-500:] or 'it said nothing'}"
            )
        report = marshal.loads(raw.report)
        if "fault" in report:
            raise SandboxUnavailable(f"the sandbox could not be set up: {report['fault']}")
        label, detail = self._verdict(raw.verdict, token, report)
        if label == "bad_tests":
            raise ValueError(f"the tests are not Python: {detail}")
        return Ran(label, detail, printed, report["wall_seconds"], report["cpu_seconds"])

    def _verdict(self, said: bytes, token: str, report: dict[str, Any]) -> tuple[Any, str]:
        limits = self.limits
        if report["too_long"]:
            return "timeout", f"ran for more than {limits.wall_seconds:g} s"
        ended = report["ended"]
        # The kernel counts by clock ticks where the limit is concerned, and exactly in the report: half is surely it.
        if ended == -signal.SIGXCPU or (ended == -signal.SIGKILL and report["cpu_seconds"] >= 0.5 * limits.cpu_seconds):
            return "timeout", f"took more than {limits.cpu_seconds} s of processor time"
        if ended < 0:
            return "error", f"killed by {signal.Signals(-ended).name}"
        lines = said.decode(errors="replace").splitlines()
        true = [line.removeprefix(f"{token} ") for line in lines if line.startswith(f"{token} ")]
        if ended != 0 or len(true) != 1 or len(lines) != 1:
            return "error", f"left before the tests had run, with exit status {ended}"
        label, _, detail = true[0].partition(" ")
        return label, bytes.fromhex(detail).decode(errors="replace")


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End the interpreter's session and wait for it; the kernel ends what is in its namespace."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # it has ended by itself
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
