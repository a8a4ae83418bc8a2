"""seccomp: which system calls this process and its children may make, from now on and for good.

A list of refusals, because an interpreter needs most of the rest. Refused are: all
sockets, io_uring (which can open sockets without the call), starting other programs,
mounting and namespaces, looking into or signalling other processes, memory that no limit
counts, and what can change a file that may only be read. Calls that are newer than the
list are refused too, and so are those of another architecture (32 bit, x32).
"""

from __future__ import annotations

import ctypes
import errno
import os

from potstill.verifiers.cell import kernel

#: Name: number on x86_64, number on aarch64 (None: no such call there). From the kernel's tables.
Numbers = dict[str, tuple[int | None, int | None]]
NEWEST_KNOWN = 450
ALWAYS: Numbers = {
    "socket": (41, 198), "connect": (42, 203), "bind": (49, 200), "listen": (50, 201), "accept": (43, 202),
    "accept4": (288, 242), "io_uring_setup": (425, 425), "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427), "execve": (59, 221), "execveat": (322, 281),
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "process_madvise": (440, 440), "process_mrelease": (448, 448), "kcmp": (312, 272), "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438), "pidfd_send_signal": (424, 424), "perf_event_open": (298, 241),
    "migrate_pages": (256, 238), "move_pages": (279, 239), "sched_setaffinity": (203, 122),
    "sched_setscheduler": (144, 119), "sched_setparam": (142, 118), "sched_setattr": (314, 274),
    "setpriority": (141, 140), "ioprio_set": (251, 30),
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "unshare": (272, 97),
    "setns": (308, 268), "mount_setattr": (442, 442), "move_mount": (429, 429), "open_tree": (428, 428),
    "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433),
    "mknod": (133, None), "mknodat": (259, 33), "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265),
    "fanotify_init": (300, 262), "quotactl": (179, 60), "quotactl_fd": (443, 443),
    "memfd_create": (319, 279), "memfd_secret": (447, 447), "userfaultfd": (323, 282), "shmget": (29, 194),
    "shmat": (30, 196), "msgget": (68, 186), "semget": (64, 190), "mq_open": (240, 180), "add_key": (248, 217),
    "request_key": (249, 218), "keyctl": (250, 219), "bpf": (321, 280), "syslog": (103, 116), "acct": (163, 89),
    "kexec_load": (246, 104), "kexec_file_load": (320, 294), "init_module": (175, 105), "finit_module": (313, 273),
    "delete_module": (176, 106), "swapon": (167, 224), "swapoff": (168, 225), "reboot": (169, 142),
    "sethostname": (170, 161), "setdomainname": (171, 162), "settimeofday": (164, 170),
    "clock_settime": (227, 112), "adjtimex": (159, 171), "clock_adjtime": (305, 266), "vhangup": (153, 58),
    "personality": (135, 92), "iopl": (172, None), "ioperm": (173, None), "modify_ldt": (154, None),
    "uselib": (134, None), "lookup_dcookie": (212, 18), "nfsservctl": (180, 42),
}  # fmt: skip
#: Where one process is all there may be: no other is started, signalled or left.
ALONE: Numbers = {
    "fork": (57, None), "vfork": (58, None), "clone": (56, 220), "clone3": (435, 435), "kill": (62, 129),
    "tkill": (200, 130), "tgkill": (234, 131), "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240),
    "setsid": (112, 157), "setpgid": (109, 154),
}  # fmt: skip
#: Where nothing may be written. Landlock does not see most of these.
READ_ONLY: Numbers = {
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "chown": (92, None), "fchown": (93, 55),
    "lchown": (94, None), "fchownat": (260, 54), "utime": (132, None), "utimes": (235, None),
    "utimensat": (280, 88), "futimesat": (261, None), "setxattr": (188, 5), "lsetxattr": (189, 6),
    "fsetxattr": (190, 7), "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16),
    "link": (86, None), "linkat": (265, 37), "flock": (73, 32),
}  # fmt: skip
CLONE, CLONE3, PRLIMIT, PRCTL, FCNTL, IOCTL = (56, 220), (435, 435), (302, 261), (157, 167), (72, 25), (16, 29)
NEW_NAMESPACES = 0x7E020000  # the CLONE_NEW* flags of clone
SET_OWNERS = (8, 10, 15)  # F_SETOWN, F_SETSIG, F_SETOWN_EX: they make the kernel send signals to anybody
TERMINALS = (0x5412, 0x541C, 0x8901, 0x8902)  # TIOCSTI, TIOCLINUX, FIOSETOWN, SIOCSPGRP
ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
ALLOW, REFUSE, KILL = 0x7FFF0000, 0x00050000, 0x80000000

Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, constant


def _stop_if(test: int, constant: int, error: int) -> list[Instruction]:
    """Two instructions: return `error` where the test holds for what is loaded, otherwise go on."""
    return [(test, 0, 1, constant), (RETURN, 0, 0, REFUSE | error)]


def _on_argument(number: int, index: int, checks: list[Instruction]) -> list[Instruction]:
    """For call `number` only: run `checks` on the low word of argument `index`, then allow."""
    inner = [(LOAD, 0, 0, 16 + 8 * index), *checks, (RETURN, 0, 0, ALLOW)]
    return [(EQUAL, 0, len(inner), number), *inner]


def program(machine: str, alone: bool, read_only: bool) -> list[Instruction]:
    """The filter, as instructions of classic BPF.

    Raises:
        OSError: For an architecture whose numbers are not known here.
    """
    if machine not in ARCHITECTURES:
        raise OSError(errno.ENOSYS, f"the sandbox knows the system calls of {sorted(ARCHITECTURES)}, not of {machine}")
    column, architecture = ARCHITECTURES[machine]
    steps: list[Instruction] = [
        (LOAD, 0, 0, 4), (EQUAL, 1, 0, architecture), (RETURN, 0, 0, KILL), (LOAD, 0, 0, 0),
    ]  # fmt: skip
    steps += _stop_if(AT_LEAST, NEWEST_KNOWN + 1, errno.ENOSYS)  # x32 calls have a high bit set and end here too
    refused = ALWAYS | (ALONE if alone else {}) | (READ_ONLY if read_only else {})
    for name, numbers in refused.items():
        number = numbers[column]
        if number is not None:
            # a refused fork looks like one that met a limit
            error = errno.EAGAIN if name in {"fork", "vfork", "clone", "clone3"} else errno.EPERM
            steps += _stop_if(EQUAL, number, error)
    if not alone:
        # clone3 keeps its flags in memory, where a filter cannot look; the C library falls back to clone
        steps += _stop_if(EQUAL, CLONE3[column], errno.ENOSYS)
        steps += _on_argument(CLONE[column], 0, _stop_if(ANY_BIT, NEW_NAMESPACES, errno.EPERM))
    other_process = [(EQUAL, 1, 0, 0), (RETURN, 0, 0, REFUSE | errno.EPERM)]
    steps += _on_argument(PRLIMIT[column], 0, other_process)
    steps += _on_argument(PRCTL[column], 0, _stop_if(EQUAL, kernel.PR_SET_PDEATHSIG, errno.EPERM))
    steps += _on_argument(FCNTL[column], 1, [s for c in SET_OWNERS for s in _stop_if(EQUAL, c, errno.EPERM)])
    steps += _on_argument(IOCTL[column], 1, [s for c in TERMINALS for s in _stop_if(EQUAL, c, errno.EPERM)])
    return [*steps, (RETURN, 0, 0, ALLOW)]


class _Filter(ctypes.Structure):
    _fields_ = (("code", ctypes.c_ushort), ("yes", ctypes.c_ubyte), ("no", ctypes.c_ubyte), ("k", ctypes.c_uint32))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filters", ctypes.POINTER(_Filter)))


def restrict(alone: bool, read_only: bool) -> None:
    """Put the filter on. Needs PR_SET_NO_NEW_PRIVS first; raises OSError where the kernel has none."""
    steps = program(os.uname().machine, alone, read_only)
    filters = (_Filter * len(steps))(*(_Filter(*step) for step in steps))
    whole = _Program(len(steps), filters)
    mode_filter = 2
    kernel.prctl(kernel.PR_SET_SECCOMP, mode_filter, ctypes.addressof(whole))
