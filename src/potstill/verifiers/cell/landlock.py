"""Landlock: which files this process and its children may touch, from now on and for good.

Needs no privileges and no namespaces. What the kernel can forbid grows with its ABI
version; from version 3 (Linux 6.2) a file outside can neither be changed, made, removed
nor cut. Not covered: looking up whether a path exists, how big it is and whose, and
changing modes, owners and times (`seccomp` denies those).
"""

from __future__ import annotations

import ctypes
import os

from potstill.verifiers.cell import kernel

NEEDED_ABI = 3
EXECUTE, WRITE_FILE, READ_FILE, READ_FOLDER = 1 << 0, 1 << 1, 1 << 2, 1 << 3
READ = READ_FILE | READ_FOLDER
ALL_TCP, ALL_SCOPES = 0b11, 0b11


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("tcp", ctypes.c_uint64), ("scopes", ctypes.c_uint64))


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("folder", ctypes.c_int32))


def abi() -> int:
    """The version that this kernel offers; OSError where it has none."""
    version = ctypes.c_uint(1)
    return kernel.syscall(kernel.LANDLOCK_CREATE, "landlock", None, ctypes.c_size_t(0), version)


def _all_files(version: int) -> int:
    """Every right on files that this version knows: 13 in the first, then refer, truncate and devices."""
    return (1 << (13 + (version >= 2) + (version >= 3) + (version >= 5))) - 1


def restrict(readable: list[str], writable: list[str], devices: list[str]) -> None:
    """Forbid all files but those below `readable` (to read) and `writable` (to do anything with).

    From ABI 4 on all TCP is forbidden, from ABI 6 signals and abstract sockets to processes outside.
    """
    version = abi()
    rights = _all_files(version)
    asked = _Ruleset(rights, ALL_TCP if version >= 4 else 0, ALL_SCOPES if version >= 6 else 0)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    create = kernel.LANDLOCK_CREATE
    ruleset = kernel.syscall(create, "landlock", ctypes.byref(asked), ctypes.c_size_t(size), ctypes.c_uint(0))
    for path in readable:
        _allow(ruleset, path, READ)
    for path in writable:
        _allow(ruleset, path, rights & ~EXECUTE)
    for path in devices:
        _allow(ruleset, path, READ_FILE | WRITE_FILE)
    kernel.syscall(kernel.LANDLOCK_RESTRICT, "landlock_restrict_self", ctypes.c_int(ruleset), ctypes.c_uint(0))
    os.close(ruleset)


def _allow(ruleset: int, path: str, rights: int) -> None:
    if not os.path.isdir(path):
        rights &= READ_FILE | WRITE_FILE
    folder = os.open(path, os.O_PATH | os.O_CLOEXEC)
    rule = _Beneath(rights, folder)
    beneath = ctypes.c_int(1)
    kernel.syscall(kernel.LANDLOCK_ADD, path, ctypes.c_int(ruleset), beneath, ctypes.byref(rule), ctypes.c_uint(0))
    os.close(folder)
