"""What a process keeps that runs a model: memory to compute in, threads, and the sockets it has.

The same for a replica and for the process that asks a canary at admission. A graph is parsed by the
runtime, and its operators are the runtime's, but both are large programs in C++: what takes one of
them over reaches no file, no network, no other process and no key.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Sequence

from modelkeep.core.record import replaced
from modelkeep.ports.sandbox import CALLS, DESCRIPTORS, LIMITS, PRIVILEGES, Grants, Limits

# While it loads, the runtime may hold a weight three times (adapters.runtime_onnx), and calls and
# answers take room beside them. This is of addresses, not of memory that is used.
_COPIES = 4
_BESIDE_BYTES = 4 * 1024 * 1024 * 1024
# What is written to standard error may go to a file: so much behind what stands there already, so
# that a replica that was taken over does not fill the disk. Then its words are lost.
_LOG_BYTES_MAX = 1024 * 1024
_ERRORS = 2
# In a namespace of one's own all threads of this user count, those of other replicas too.
_THREADS_MAX = 4096
_DESCRIPTORS_MAX = 1024


def replica_grants(descriptors: Sequence[int], *, sockets: bool) -> Grants:
    """What is kept: these descriptors and standard error, for a traceback."""
    return Grants(descriptors=(_ERRORS, *descriptors), threads=True, sockets=sockets)


def trial_grants(writing: int) -> Grants:
    """What the process keeps that asks a canary: where it answers. It shows nobody a text.

    A model that nobody vouches for is not asked without a sandbox where the system has one.
    """
    demanded = (PRIVILEGES, LIMITS, DESCRIPTORS, CALLS) if sys.platform == "linux" else ()
    return Grants(descriptors=(writing,), threads=True, demanded=demanded)


def trial_limits(model_bytes: int, *, cpu_s: int) -> Limits:
    """As a replica's, and it writes no file and ends."""
    return replaced(replica_limits(model_bytes), cpu_s=cpu_s, file_bytes=0)


def replica_limits(model_bytes: int) -> Limits:
    """Bounds for a model of that size; a replica may compute for as long as it lives."""
    return Limits(
        memory_bytes=_COPIES * model_bytes + _BESIDE_BYTES,
        cpu_s=0,
        file_bytes=_log_bytes() + _LOG_BYTES_MAX,
        descriptors=_DESCRIPTORS_MAX,
        processes=_THREADS_MAX,
    )


def _log_bytes() -> int:
    """The size of the file that standard error goes to; 0 where it is no file."""
    try:
        found = os.fstat(_ERRORS)
    except OSError:
        return 0
    return found.st_size if stat.S_ISREG(found.st_mode) else 0
