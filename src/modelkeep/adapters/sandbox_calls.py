"""Numbers of system calls per processor, and which of them a locked-in process needs.

From the kernel's own tables (arch/x86/entry/syscalls/syscall_64.tbl and
include/uapi/asm-generic/unistd.h); numbers are never reused. A call that a processor does not have
is left out of its row.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Processor:
    """How one processor's calls are told apart.

    Attributes:
        audit: AUDIT_ARCH_*, which a filter compares first.
        numbers: of the calls, by name.
    """

    audit: int
    numbers: dict[str, int]


# name: x86_64, aarch64; -1 where there is none.
_NUMBERS = {
    "accept4": (288, 242),
    "access": (21, -1),
    "arch_prctl": (158, -1),
    "brk": (12, 214),
    "clock_getres": (229, 114),
    "clock_gettime": (228, 113),
    "clock_nanosleep": (230, 115),
    "clone": (56, 220),
    "clone3": (435, 435),
    "close": (3, 57),
    "epoll_create1": (291, 20),
    "epoll_ctl": (233, 21),
    "epoll_pwait": (281, 22),
    "epoll_wait": (232, -1),
    "exit": (60, 93),
    "exit_group": (231, 94),
    "faccessat": (269, 48),
    "fcntl": (72, 25),
    "fstat": (5, 80),
    "futex": (202, 98),
    "getcwd": (79, 17),
    "getdents64": (217, 61),
    "getegid": (108, 177),
    "geteuid": (107, 175),
    "getgid": (104, 176),
    "getpeername": (52, 205),
    "getpid": (39, 172),
    "getppid": (110, 173),
    "getrandom": (318, 278),
    "getrusage": (98, 165),
    "getsockname": (51, 204),
    "getsockopt": (55, 209),
    "gettid": (186, 178),
    "gettimeofday": (96, 169),
    "getuid": (102, 174),
    "landlock_add_rule": (445, 445),
    "landlock_create_ruleset": (444, 444),
    "landlock_restrict_self": (446, 446),
    "lseek": (8, 62),
    "madvise": (28, 233),
    "membarrier": (324, 283),
    "mmap": (9, 222),
    "mprotect": (10, 226),
    "mremap": (25, 216),
    "munmap": (11, 215),
    "nanosleep": (35, 101),
    "newfstatat": (262, 79),
    "open": (2, -1),
    "openat": (257, 56),
    "poll": (7, -1),
    "ppoll": (271, 73),
    "pread64": (17, 67),
    "preadv": (295, 69),
    "pwrite64": (18, 68),
    "pselect6": (270, 72),
    "read": (0, 63),
    "readlink": (89, -1),
    "readlinkat": (267, 78),
    "readv": (19, 65),
    "recvfrom": (45, 207),
    "recvmsg": (47, 212),
    "restart_syscall": (219, 128),
    "rseq": (334, 293),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sched_getaffinity": (204, 123),
    "sched_yield": (24, 124),
    "seccomp": (317, 277),
    "select": (23, -1),
    "sendmsg": (46, 211),
    "sendto": (44, 206),
    "set_robust_list": (273, 99),
    "setsockopt": (54, 208),
    "sigaltstack": (131, 132),
    "stat": (4, -1),
    "statx": (332, 291),
    "sysinfo": (99, 179),
    "uname": (63, 160),
    "write": (1, 64),
    "writev": (20, 66),
}
_AUDIT = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}

# To compute, to read and write what is open already, and to end.
COMPUTE = (
    *("brk", "clock_getres", "clock_gettime", "clock_nanosleep", "close", "exit", "exit_group"),
    *("fstat", "futex", "getpid", "getppid", "getrandom", "getrusage", "gettid", "gettimeofday"),
    *(
        "lseek",
        "madvise",
        "mremap",
        "munmap",
        "nanosleep",
        "poll",
        "ppoll",
        "pread64",
        "read",
        "readv",
    ),
    *("restart_syscall", "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sched_yield"),
    *("sigaltstack", "write", "writev"),
)
THREADS = ("membarrier", "rseq", "sched_getaffinity", "set_robust_list", "sysinfo")
SOCKETS = (
    *("accept4", "epoll_create1", "epoll_ctl", "epoll_pwait", "epoll_wait"),
    *("getpeername", "getsockname", "getsockopt", "pselect6", "recvfrom", "recvmsg", "select"),
    # No `shutdown`: of a listening socket that others hold too, it would outlive the process.
    *("sendmsg", "sendto", "setsockopt"),
)
READING = (
    *(
        "access",
        "faccessat",
        "getcwd",
        "getdents64",
        "getegid",
        "geteuid",
        "getgid",
        "getuid",
        "newfstatat",
    ),
    *("open", "openat", "preadv", "readlink", "readlinkat", "stat", "statx", "uname"),
)


def this_processor() -> Processor | None:
    """The processor that this machine has; None for one without a row here."""
    found = _AUDIT.get(platform.machine())
    if found is None:
        return None
    audit, column = found
    numbers = {name: each[column] for name, each in _NUMBERS.items() if each[column] >= 0}
    return Processor(audit, numbers)
