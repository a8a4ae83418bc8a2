"""From the start of the interpreter to the moment when the code runs, locked in.

`main` reads one job from standard input. One process supervises: it holds the clock,
kills, and reports how the code's process ended. Its child gives up, one after the other,
what the code must not have, and then runs it. The order matters: mounting needs powers
that are dropped next, and after seccomp nothing of all this can be called any more.
"""

from __future__ import annotations

import marshal
import os
import resource
import signal
import sys
import time
from types import FrameType

from potstill.verifiers.cell import harness, kernel, landlock, namespaces, seccomp

MEBIBYTE = 1 << 20
Job = dict  # plain values, as `sandbox` sends them


def main() -> None:
    """Run the job on standard input and report on the file descriptors that it names."""
    kernel.die_with_parent()
    job: Job = marshal.loads(sys.stdin.buffer.read())
    with open("/dev/null") as nothing:
        os.dup2(nothing.fileno(), 0)
    try:
        job["from_root"] = os.geteuid() == 0
        if job["namespaces"]:
            namespaces.enter()
            namespaces.build_root(job["folder"], job["readable"], job["limits"]["file_mb"])
        _supervise(job)
    except OSError as error:
        _report(job, {"fault": f"{type(error).__name__}: {error}"})


def _report(job: Job, facts: dict) -> None:
    os.write(job["report"], marshal.dumps(facts))
    os._exit(0)


def _supervise(job: Job) -> None:
    """Start the code's process, kill it when its time is over, and report its end."""
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        try:
            _lock_in(job)
        except OSError as error:
            _report(job, {"fault": f"{type(error).__name__}: {error}"})
        harness.run(job["program"], job["tests"], job["token"], job["verdict"])
    over = []

    def end(number: int, frame: FrameType | None) -> None:
        over.append(number)
        os.kill(child, signal.SIGKILL)

    signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, job["limits"]["wall_seconds"])
    _, status, used = os.wait4(child, 0)
    signal.setitimer(signal.ITIMER_REAL, 0)
    facts = {
        "ended": os.waitstatus_to_exitcode(status),
        "too_long": bool(over),
        "cpu_seconds": used.ru_utime + used.ru_stime,
        "wall_seconds": time.monotonic() - started,
    }
    _report(job, facts)


def _lock_in(job: Job) -> None:
    """Give up everything; only computing, reading the standard library and the pipes are left."""
    limits = job["limits"]
    inside = job["namespaces"]
    work = "/tmp" if inside else job["folder"]
    if inside and job["from_root"]:
        namespaces.become_nobody()
    kernel.die_with_parent()  # a change of user has cleared it
    if job["seccomp"]:  # which keeps the line above in force; without it the host must reach us by our session
        os.setsid()  # a signal to its own group must not meet the supervisor
    os.chdir(work)
    os.environ.clear()
    os.environ.update({"HOME": work, "TMPDIR": work, "LC_CTYPE": "C.UTF-8"})
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    _limit(limits, job)
    if sys.platform == "linux":
        kernel.drop_capabilities()
    if job["landlock"]:
        readable = [path for path in [*job["readable"], work] if os.path.exists(path)]
        writable = [work] if limits["file_mb"] and (inside or job["loose"]) else []
        landlock.restrict(readable, writable, list(namespaces.DEVICES))
    os.close(job["report"])
    if job["seccomp"]:
        seccomp.restrict(alone=limits["processes"] == 1, read_only=limits["file_mb"] == 0)


def _limit(limits: dict, job: Job) -> None:
    """The limits of one process; a child inherits them."""
    wanted = {
        resource.RLIMIT_CPU: limits["cpu_seconds"],
        resource.RLIMIT_FSIZE: limits["file_mb"] * MEBIBYTE,
        resource.RLIMIT_NOFILE: 64,
        resource.RLIMIT_CORE: 0,
    }
    if sys.platform == "linux":  # elsewhere the kernel takes the number and does not keep to it
        wanted[resource.RLIMIT_AS] = limits["memory_mb"] * MEBIBYTE
        wanted[resource.RLIMIT_MEMLOCK] = 0
        wanted[resource.RLIMIT_MSGQUEUE] = 0
    if job["namespaces"]:
        # counted in this namespace only; without root the supervisor is the same user and counts too
        wanted[resource.RLIMIT_NPROC] = limits["processes"] + (not job["from_root"])
    for kind, value in wanted.items():
        hard = resource.getrlimit(kind)[1]
        least = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (least, least))
