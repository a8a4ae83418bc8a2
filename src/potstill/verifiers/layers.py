"""What this machine offers to lock code in, and whether that is enough.

Two walls shut off files and network, and one of them suffices: namespaces (own file
system, own network, own process ids) or Landlock (a list of files, kept by the kernel).
Both are put up where both are offered. seccomp must be there with either. What the machine
says is not trusted: before the first real run, `rehearsal` tries the attacks that the walls
must stop, in the sandbox as configured.
"""

from __future__ import annotations

import functools
import marshal
import os
import subprocess
import sys
import sysconfig
import tempfile
from dataclasses import dataclass
from pathlib import Path

from potstill.config.sandbox import SandboxLimits

LANDLOCK_NEEDED = 3
CELL = Path(__file__).parent / "cell"


class SandboxUnavailable(RuntimeError):
    """This machine cannot lock code in as well as the configuration asks; nothing has been run."""


@dataclass(frozen=True, slots=True)
class Layers:
    """What is offered; a text says why something is not."""

    namespaces: str | None = None  # None: offered
    landlock: int | str = 0  # its ABI version
    seccomp: str | None = None

    @property
    def landlock_holds(self) -> bool:
        """Whether Landlock alone keeps files outside unchanged."""
        return isinstance(self.landlock, int) and self.landlock >= LANDLOCK_NEEDED

    @property
    def full(self) -> bool:
        """Whether network, files, processes and memory can all be shut off or bounded."""
        return self.seccomp is None and (self.namespaces is None or self.landlock_holds)

    @property
    def names(self) -> tuple[str, ...]:
        """What will be in force, for the verifier's version."""
        offered = (self.namespaces is None, isinstance(self.landlock, int), self.seccomp is None)
        walls = [n for n, there in zip(("namespaces", "landlock", "seccomp"), offered, strict=True) if there]
        return (*walls, "limits")


def bootstrap(module: str, call: str) -> list[str]:
    """Arguments of an isolated interpreter that runs a function of `cell` and imports nothing else of Potstill."""
    code = (
        "import sys, types\n"
        f"for name, path in (('potstill', []), ('potstill.verifiers', [{str(CELL.parent)!r}])):\n"
        "    sys.modules[name] = types.ModuleType(name)\n"
        "    sys.modules[name].__path__ = path\n"
        f"from potstill.verifiers.cell import {module}\n"
        f"{module}.{call}()"
    )
    return ["-I", "-S", "-u", "-X", "utf8", "-c", code]


def readable_paths() -> list[str]:
    """What the code may read: the standard library, the system's shared libraries, time zones."""
    lib = {f"{prefix}/lib" for prefix in (sys.base_prefix, sys.base_exec_prefix)}
    system = ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/share/zoneinfo", "/etc/ld.so.cache", "/nix/store"]
    wanted = [*sorted(lib), *system, os.path.realpath(sysconfig.get_path("stdlib"))]
    kept: list[str] = []
    for path in wanted:  # a folder inside one that is shown already needs no place of its own
        if os.path.exists(path) and not any(path.startswith(f"{other}/") for other in kept):
            kept.append(path)
    return kept


@functools.cache
def offered() -> Layers:
    """Ask the kernel, each wall in a process of its own."""
    if os.name != "posix":
        raise SandboxUnavailable(
            "generated code needs Linux to be run safely; this system has not even resource limits"
        )
    if not sys.platform.startswith("linux"):
        reason = f"only Linux has it, this is {sys.platform}"
        return Layers(reason, reason, reason)
    with tempfile.TemporaryDirectory(prefix="potstill-") as folder:
        said = {name: _ask(name, folder) for name in ("namespaces", "landlock", "seccomp")}
    landlock = said["landlock"]
    return Layers(
        None if said["namespaces"] == "ok" else said["namespaces"],
        int(landlock) if landlock.isdecimal() else landlock,
        None if said["seccomp"] == "ok" else said["seccomp"],
    )


def _ask(name: str, folder: str) -> str:
    question = marshal.dumps({"wall": name, "folder": folder, "readable": readable_paths()})
    command = [sys.executable, *bootstrap("probe", "main")]
    done = subprocess.run(command, input=question, capture_output=True, timeout=30, env={}, check=False)
    return done.stdout.decode() or f"the probe ended with {done.returncode}: {done.stderr.decode().strip()[-200:]}"


def choose(limits: SandboxLimits, there: Layers) -> Layers:
    """What to use of what is there, or why that is not enough.

    Raises:
        SandboxUnavailable: Where `limits` asks for more than the machine has.
    """
    needs_namespaces = [
        f"{name}: {getattr(limits, name)}" for name in ("file_mb", "processes") if _beyond(limits, name)
    ]
    if needs_namespaces and there.namespaces is not None:
        raise SandboxUnavailable(
            f"{' and '.join(needs_namespaces)} needs user namespaces, without which neither can be bounded, and this "
            f"machine has none ({there.namespaces}). Set file_mb: 0 and processes: 1. {_mend()}"
        )
    if limits.require == "full" and not there.full:
        missing = [f"seccomp ({there.seccomp})"] if there.seccomp is not None else []
        if there.namespaces is not None and not there.landlock_holds:
            missing.append(f"user namespaces ({there.namespaces}) or Landlock ABI {LANDLOCK_NEEDED} ({there.landlock})")
        raise SandboxUnavailable(
            f"generated code is not run here, because this machine cannot lock it in. Missing: "
            f"{', and '.join(missing)}. {_mend()} Or, in a virtual machine that you can lose, set require: limits_only"
        )
    return there


def _beyond(limits: SandboxLimits, name: str) -> bool:
    return bool(getattr(limits, name) > {"file_mb": 0, "processes": 1}[name])


def _mend() -> str:
    return (
        "Linux 6.2 or newer has Landlock (it must stand in the kernel's lsm= list); namespaces need Linux 5.14 and "
        "may be switched off by kernel.apparmor_restrict_unprivileged_userns, kernel.unprivileged_userns_clone, "
        "user.max_user_namespaces, or by a container's seccomp profile."
    )


def rehearsal(processes: int, memory_mb: int, outside: str) -> str:
    """Tests that fail where an attack goes through: sockets, files outside, processes and memory.

    `outside` is a file that holds "secret". That it is unchanged afterwards is for the caller to check: inside
    there may be another file of that name.
    """
    return f"""
import os, signal, time
def stopped(attempt, *values):
    try:
        attempt(*values)
    except (OSError, MemoryError):
        return True
    return False
import socket
for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
    assert stopped(socket.socket, family), "a socket was opened"
try:
    assert open({outside!r}).read() != "secret", "a file outside was read"
except OSError:
    pass
stopped(os.chmod, {outside!r}, 0) and stopped(open, {outside!r}, "w") and stopped(os.remove, {outside!r})
assert stopped(os.listdir, "/proc"), "/proc was read"
assert stopped(bytearray, {memory_mb} << 20), "memory had no limit"
children = []
for _ in range({processes}):
    try:
        child = os.fork()
    except OSError:
        break
    if child == 0:
        time.sleep(60)
        os._exit(0)
    children.append(child)
for child in children:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
assert len(children) < {processes}, "processes had no limit"
"""
