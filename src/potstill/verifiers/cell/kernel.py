"""System calls that Python 3.11 has no function for, made through ctypes.

Each returns its result or raises OSError with the call's name in it.
"""

from __future__ import annotations

import ctypes
import os
import sys

PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 22, 24, 38
#: Calls without a function in the C library; the same numbers on x86_64 and aarch64.
MOUNT_SETATTR, LANDLOCK_CREATE, LANDLOCK_ADD, LANDLOCK_RESTRICT = 442, 444, 445, 446

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long


def checked(result: int, what: str) -> int:
    """`result`, or OSError where it is negative."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def prctl(option: int, *values: int) -> int:
    """prctl(2)."""
    padded = [ctypes.c_ulong(v) for v in (*values, 0, 0, 0, 0)[:4]]
    return checked(libc.prctl(option, *padded), f"prctl {option}")


def syscall(number: int, what: str, *values: object) -> int:
    """A call by number; every value must be a ctypes object or None."""
    return checked(libc.syscall(ctypes.c_long(number), *values), what)


def unshare(flags: int) -> None:
    """unshare(2)."""
    checked(libc.unshare(flags), "unshare")


def mount(source: str | None, target: str, kind: str | None, flags: int = 0, options: str | None = None) -> None:
    """mount(2)."""
    texts = [None if t is None else t.encode() for t in (source, target, kind, options)]
    done = libc.mount(texts[0], texts[1], texts[2], ctypes.c_ulong(flags), texts[3])
    checked(done, f"mount {source or kind} on {target}")


def mount_read_only(target: str, recursive: bool) -> None:
    """Mark a mount (and those below it) read-only, without devices and set-uid files. Linux 5.12."""
    read_only, no_setuid, no_devices, at_recursive, at_cwd = 1, 2, 4, 0x8000, -100
    attributes = (ctypes.c_uint64 * 4)(read_only | no_setuid | no_devices, 0, 0, 0)
    syscall(
        MOUNT_SETATTR,
        f"mount_setattr {target}",
        ctypes.c_int(at_cwd),
        ctypes.c_char_p(target.encode()),
        ctypes.c_uint(at_recursive if recursive else 0),
        ctypes.byref(attributes),
        ctypes.c_size_t(ctypes.sizeof(attributes)),
    )


def pivot_into(folder: str) -> None:
    """Make `folder`, a mount point, the root, and let go of the old root."""
    os.chdir(folder)
    detach = 2
    pivot = {"x86_64": 155, "aarch64": 41}[os.uname().machine]
    syscall(pivot, "pivot_root", ctypes.c_char_p(b"."), ctypes.c_char_p(b"."))
    checked(libc.umount2(b".", detach), "umount2")
    os.chdir("/")


def die_with_parent() -> None:
    """Be killed when the thread that started this process ends. Linux only; elsewhere nothing is done."""
    if sys.platform == "linux":
        prctl(PR_SET_PDEATHSIG, 9)


def drop_capabilities() -> None:
    """Give up every capability, for good: the bounding set too, and no program can win one back."""
    for capability in range(64):
        if libc.prctl(PR_CAPBSET_DROP, ctypes.c_ulong(capability), 0, 0, 0) < 0:
            break  # past the last that this kernel knows, or never ours to begin with
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # version 3, this process
    checked(libc.capset(ctypes.byref(header), ctypes.byref((ctypes.c_uint32 * 6)())), "capset")
