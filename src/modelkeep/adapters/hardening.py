"""What a process that holds keys asks of the kernel (Linux): no dumps, no tracing, no swap."""

from __future__ import annotations

import ctypes
import os
import resource
from pathlib import Path

_PR_SET_DUMPABLE = 4
_MCL_CURRENT = 1
_MCL_FUTURE = 2
_MCL_ONFAULT = 4  # a page is locked when it is first touched: nothing is read in for it
_CAP_IPC_LOCK = 14


def hardened() -> bool:
    """Protect this process's memory; done before it holds any secret.

    No core dumps. Not dumpable: no other process of the same user may trace it or read its memory,
    environment or descriptors under /proc. All memory locked, so that nothing is swapped out.

    Returns:
        Whether the memory is locked; without the right to (RLIMIT_MEMLOCK), it is not.

    Raises:
        OSError: when the kernel refuses what it never refuses.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    _, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (hard, hard))
    # Under a limit, locking what is to come would make the 64 MiB of Argon2id fail.
    is_unlimited = hard == resource.RLIM_INFINITY or _may_lock_all()
    flags = _MCL_CURRENT | _MCL_ONFAULT | (_MCL_FUTURE if is_unlimited else 0)
    return bool(libc.mlockall(flags) == 0)


def _may_lock_all() -> bool:
    """Whether the limit does not count: with the capability CAP_IPC_LOCK."""
    for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").split("\n"):
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> _CAP_IPC_LOCK & 1)
    return False
