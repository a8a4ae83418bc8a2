"""Namespaces: a file system of our own making, no network, and process ids that end with their first.

A user namespace is what lets somebody who is not root have the others. It takes three
processes. The first stays outside and writes down who is who inside. The second enters
the new namespaces and builds the root folder. Its child is process 1 of the new
process ids: when that ends, however it ends, the kernel kills all that it ever started,
whatever session they moved to.

The root folder is an empty disk in memory. The standard library and the system's
shared libraries are bound into it read-only; nothing else is there. There is no /proc,
no /home, no /etc.
"""

from __future__ import annotations

import os

from potstill.verifiers.cell import kernel

MOUNTS, CGROUPS, UTS, IPC, USERS, PIDS, NETWORK = (
    0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000,
)  # fmt: skip
ALL = MOUNTS | CGROUPS | UTS | IPC | USERS | PIDS | NETWORK
RECURSIVE_BIND, RECURSIVE_PRIVATE, NO_SETUID_DEVICES = 0x5000, 0x44000, 0x6
DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom")
#: Outside, the code of a root user runs as nobody: limits on processes do not bind root.
NOBODY = 65534


def enter() -> None:
    """Go on as the second process, inside; the first waits for it and ends as it ended.

    Inside we are user 0, with the powers to mount. Raises OSError where the machine does not allow it.
    """
    entered_read, entered_write = os.pipe()
    mapped_read, mapped_write = os.pipe()
    child = os.fork()
    if child == 0:
        kernel.die_with_parent()
        os.close(entered_read)
        os.close(mapped_write)
        kernel.unshare(ALL)
        os.write(entered_write, b"1")
        if os.read(mapped_read, 1) != b"1":
            raise OSError("the process outside could not write the user map")
        os.close(entered_write)
        os.close(mapped_read)
        return
    os.close(entered_write)
    os.close(mapped_read)
    if os.read(entered_read, 1) == b"1":
        _write_maps(child)
        os.write(mapped_write, b"1")
    os.close(mapped_write)
    _, status = os.waitpid(child, 0)
    os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


def _write_maps(child: int) -> None:
    user, group = os.geteuid(), os.getegid()
    if user != 0:  # an unprivileged writer may map groups only once they cannot be changed any more
        _write(f"/proc/{child}/setgroups", "deny")
    nobody = f"\n1 {NOBODY} 1" if user == 0 else ""
    _write(f"/proc/{child}/gid_map", f"0 {group} 1{nobody}")
    _write(f"/proc/{child}/uid_map", f"0 {user} 1{nobody}")


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def build_root(folder: str, readable: list[str], file_mb: int) -> None:
    """Make `folder` the root: `readable` paths read-only, some devices, and /tmp of `file_mb` MiB."""
    kernel.mount(None, "/", None, RECURSIVE_PRIVATE)
    kernel.mount("tmpfs", folder, "tmpfs", NO_SETUID_DEVICES, "size=1m,nr_inodes=4096,mode=755")
    for path in readable:
        _bind(path, folder)
    for path in DEVICES:
        _bind(path, folder)
    os.mkdir(f"{folder}/tmp")
    kernel.mount("tmpfs", f"{folder}/tmp", "tmpfs", NO_SETUID_DEVICES, _work_options(file_mb))
    kernel.pivot_into(folder)
    kernel.mount_read_only("/", recursive=False)
    if file_mb == 0:
        kernel.mount_read_only("/tmp", recursive=False)


def _work_options(file_mb: int) -> str:
    """A disk with room for `file_mb` MiB; every entry costs kernel memory too, so those are counted."""
    return f"size={max(file_mb, 1)}m,nr_inodes={256 + 64 * file_mb},mode=777"


def _bind(path: str, root: str) -> None:
    """Show `path` at the same place under `root`, read-only (a device stays as it is)."""
    target = root + path
    if os.path.lexists(target):
        return
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if os.path.islink(path):
        os.symlink(os.readlink(path), target)
        return
    if os.path.isdir(path):
        os.mkdir(target)
    else:
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o600))
    kernel.mount(path, target, None, RECURSIVE_BIND)
    if path not in DEVICES:
        kernel.mount_read_only(target, recursive=True)


def become_nobody() -> None:
    """Leave user 0 of the namespace for the second user on its map. Only where root started the sandbox."""
    os.setgroups([])
    os.setresgid(1, 1, 1)
    os.setresuid(1, 1, 1)
