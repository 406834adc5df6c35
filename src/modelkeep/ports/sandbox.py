"""Locking a process in, before it touches bytes that nobody vouches for.

What is taken away stays away: none of it can be had back by the process or by its children. So a
process that parses untrusted bytes imports what it needs, opens what it was given, is locked in,
and only then looks at the first byte.
"""

from __future__ import annotations

from typing import Protocol

from modelkeep.core.record import Record

# The measures, in the order in which they are taken.
USER = "own user"
NAMESPACES = "namespaces"
NETWORK = "no network"
CAPABILITIES = "no capabilities"
PRIVILEGES = "no new privileges"
UNDUMPABLE = "memory unreadable"
LIFELINE = "ends with its parent"
DESCRIPTORS = "descriptors closed"
LIMITS = "limits"
FILES = "no files"
CALLS = "system calls"
MEASURES = (
    USER,
    NAMESPACES,
    NETWORK,
    CAPABILITIES,
    PRIVILEGES,
    UNDUMPABLE,
    LIFELINE,
    DESCRIPTORS,
    LIMITS,
    FILES,
    CALLS,
)


class Limits(Record, frozen=True):
    """What a locked-in process may use up; past a bound a call fails or the process is killed.

    Attributes:
        memory_bytes: of address space, beyond what it has when it is locked in.
        cpu_s: of processor time, from its start on; then it is killed. 0 for no bound.
        file_bytes: of any file that it writes.
        descriptors: how many it may have open.
        processes: how many processes and threads its user may have when it starts one.
    """

    memory_bytes: int
    cpu_s: int
    file_bytes: int = 0
    descriptors: int = 16
    processes: int = 0


class Grants(Record, frozen=True):
    """What a locked-in process keeps; everything that is not named here is gone.

    Attributes:
        descriptors: that stay open beside 0, 1 and 2, which lead nowhere.
        readable: folders and files that may still be opened for reading; where the kernel cannot
            keep it to these, nothing can be opened.
        threads: whether it may start threads.
        sockets: whether it may accept, send and receive on sockets that it has; new ones never.
        executable: whether memory may be made executable, which compiled graphs need.
        user: that a process of root becomes; for others nothing changes.
        demanded: measures without which nothing is to be done.
    """

    descriptors: tuple[int, ...] = ()
    readable: tuple[str, ...] = ()
    threads: bool = False
    sockets: bool = False
    executable: bool = False
    user: int = 65534
    demanded: tuple[str, ...] = ()


class Measure(Record, frozen=True):
    """One measure: whether it is on, and what that means here, or why not."""

    name: str
    is_on: bool
    why: str


class Sandbox(Protocol):
    """Takes from the calling process what it does not need; what the kernel lacks is said."""

    def enclose(self, grants: Grants) -> tuple[Measure, ...]:
        """Give up other users' rights and the network; what is forked from now on has neither.

        For a process that forks many that are locked in: what is slow is done once. The process
        has one thread.

        Raises:
            UnavailableError: `sandbox.demanded`.
        """
        ...

    def lock_in(self, limits: Limits, grants: Grants) -> tuple[Measure, ...]:
        """Take everything that is not granted, for good; encloses first where nobody did.

        On return it was tried out: opening a file, making a socket and starting a process fail
        wherever the measure against it says that it is on.

        Raises:
            UnavailableError: `sandbox.demanded`, when a demanded measure cannot be had;
                `sandbox.leaks`, when one that is on does not hold. The process has to end then.
        """
        ...

    def explain(self, limits: Limits, grants: Grants) -> tuple[Measure, ...]:
        """Say what `lock_in` would bring here, found out by a process that does it and ends."""
        ...
