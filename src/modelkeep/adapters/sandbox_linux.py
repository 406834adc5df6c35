"""Locking a process in on Linux, by itself: no helper program, no root needed.

The order, which is that of `ports.sandbox.MEASURES`:
 1. as root: namespaces without network while that is allowed, then another user for good;
 2. as another user: a user namespace, and the others within it where the kernel lets;
 3. capabilities, new privileges, dumps, the life beyond the parent: given up;
 4. descriptors that were not granted: closed; 0, 1 and 2 lead to /dev/null;
 5. limits, then Landlock, then the filter of system calls, which forbids all of the above;
 6. the try: a file, a socket, a process. What is on has to hold.

Each measure that the kernel refuses is said, with its reason; two that hold against the same thing
(a namespace without network and the filter, Landlock and the filter) make up for each other.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import signal
import socket
from contextlib import suppress
from pathlib import Path

from modelkeep.adapters.sandbox_calls import this_processor
from modelkeep.adapters.sandbox_landlock import restricted
from modelkeep.adapters.sandbox_seccomp import allowed_calls, filtered
from modelkeep.core.errors import UnavailableError
from modelkeep.core.record import parsed_json, replaced, to_json
from modelkeep.ports.sandbox import (
    CALLS,
    CAPABILITIES,
    DESCRIPTORS,
    FILES,
    LIFELINE,
    LIMITS,
    MEASURES,
    NAMESPACES,
    NETWORK,
    PRIVILEGES,
    UNDUMPABLE,
    USER,
    Grants,
    Limits,
    Measure,
)

_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000
_CLONE_NEWIPC = 0x08000000
_CLONE_NEWUTS = 0x04000000
_OTHERS = _CLONE_NEWNET | _CLONE_NEWIPC | _CLONE_NEWUTS
_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_CAPSET_VERSION = 0x20080522
_EXPLAINED_BYTES_MAX = 64 * 1024


class LinuxSandbox:
    """What this kernel can take from a process.

    Args:
        without: measures that are left out, so that a test sees what makes up for them.
    """

    def __init__(self, *, without: tuple[str, ...] = ()) -> None:
        self._without = without
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._processor = this_processor()
        self._enclosed: tuple[Measure, ...] = ()

    def enclose(self, grants: Grants) -> tuple[Measure, ...]:
        found = [*self._as_other_user(grants.user), self._without_capabilities()]
        found.append(self._flag(PRIVILEGES, _PR_SET_NO_NEW_PRIVS, 1, "execve gives no rights"))
        found.append(self._flag(UNDUMPABLE, _PR_SET_DUMPABLE, 0, "no dumps, no tracing"))
        self._enclosed = tuple(found)
        _demand(self._enclosed, [each for each in grants.demanded if each in _names(found)])
        return self._enclosed

    def lock_in(self, limits: Limits, grants: Grants) -> tuple[Measure, ...]:
        found = [*(self._enclosed or self.enclose(grants))]
        # Both are taken back by a change of user; a fork does not inherit the second.
        found = [each for each in found if each.name != UNDUMPABLE]
        found.append(self._flag(UNDUMPABLE, _PR_SET_DUMPABLE, 0, "no dumps, no tracing"))
        found.append(self._flag(LIFELINE, _PR_SET_PDEATHSIG, signal.SIGKILL, "SIGKILL then"))
        found.append(self._closed(grants))
        found.append(self._limited(limits))
        found.append(self._without_files(grants))
        found.append(self._filtered(grants))
        found = [_backed(each, found, grants) for each in found]
        _demand(found, grants.demanded)
        _demand_holds(found, grants)
        return tuple(sorted(found, key=lambda each: MEASURES.index(each.name)))

    def explain(self, limits: Limits, grants: Grants) -> tuple[Measure, ...]:
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            status = 70
            try:
                own = replaced(grants, descriptors=(writing,))
                os.write(writing, to_json(self.lock_in(limits, own)))
                status = 0
            except UnavailableError as error:
                os.write(writing, error.message.encode())
            finally:
                os._exit(status)
        os.close(writing)
        with os.fdopen(reading, "rb") as stream:
            raw = stream.read(_EXPLAINED_BYTES_MAX)
        _, ended = os.waitpid(pid, 0)
        if ended != 0:
            said = raw.decode("utf-8", "replace") or f"a trial ended with status {ended}"
            return (Measure(name=PRIVILEGES, is_on=False, why=said),)
        rows = parsed_json(raw, what="the trial of a sandbox")
        return tuple(Measure(**each) for each in rows)

    # ---- the measures ----------------------------------------------------------------------------

    def _as_other_user(self, user: int) -> list[Measure]:
        """Steps 1 and 2: another user, and namespaces of its own."""
        is_root = os.geteuid() == 0
        flags, why = 0, ""
        if is_root:
            flags, why = self._unshared(_OTHERS)
            own = _became(user)
        else:
            text = f"stays user {os.getuid()}: only root can become another one"
            own = Measure(name=USER, is_on=False, why=text)
        more, refusal = self._unshared(_CLONE_NEWUSER | (_OTHERS & ~flags))
        if not more:
            more, _ = self._unshared(_CLONE_NEWUSER)
        flags |= more
        why = why or refusal
        names = [
            name
            for bit, name in (
                (_CLONE_NEWUSER, "user"),
                (_CLONE_NEWIPC, "ipc"),
                (_CLONE_NEWUTS, "uts"),
            )
            if flags & bit
        ]
        return [
            own,
            Measure(name=NAMESPACES, is_on=bool(names), why=", ".join(names) or why),
            Measure(
                name=NETWORK,
                is_on=bool(flags & _CLONE_NEWNET),
                why="a network namespace with nothing in it" if flags & _CLONE_NEWNET else why,
            ),
        ]

    def _unshared(self, flags: int) -> tuple[int, str]:
        """Namespaces of our own: those that the kernel gave, and why it gave none."""
        if NAMESPACES in self._without:
            return 0, "left out"
        if self._libc.unshare(flags) == 0:
            return flags, ""
        return 0, f"the kernel refuses it: {os.strerror(ctypes.get_errno())}"

    def _without_capabilities(self) -> Measure:
        """Also those that a user namespace of our own gave us in it."""
        self._libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
        header = (ctypes.c_uint32 * 2)(_CAPSET_VERSION, 0)
        data = (ctypes.c_uint32 * 6)()
        is_on = self._libc.capset(header, data) == 0
        return Measure(name=CAPABILITIES, is_on=is_on, why="none" if is_on else _reason())

    def _flag(self, name: str, option: int, value: int, why: str) -> Measure:
        is_on = self._libc.prctl(option, value, 0, 0, 0) == 0
        return Measure(name=name, is_on=is_on, why=why if is_on else _reason())

    def _closed(self, grants: Grants) -> Measure:
        """Step 4; what was granted keeps its number."""
        nothing = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC) if _has_null() else -1
        for fd in (0, 1, 2):
            if fd not in grants.descriptors:
                if nothing >= 0:
                    os.dup2(nothing, fd)
                else:
                    with suppress(OSError):
                        os.close(fd)
        last = 2
        for fd in (*sorted(each for each in grants.descriptors if each > 2), 1 << 20):
            os.closerange(last + 1, fd)
            last = fd
        many = len(grants.descriptors)
        return Measure(name=DESCRIPTORS, is_on=True, why=f"{many} kept beside /dev/null")

    def _limited(self, limits: Limits) -> Measure:
        pages = int(Path("/proc/self/statm").read_bytes().split()[0])
        memory = pages * resource.getpagesize() + limits.memory_bytes
        wanted = (
            (resource.RLIMIT_AS, memory, memory),
            *(((resource.RLIMIT_CPU, limits.cpu_s, limits.cpu_s + 1),) if limits.cpu_s else ()),
            (resource.RLIMIT_FSIZE, limits.file_bytes, limits.file_bytes),
            (resource.RLIMIT_NOFILE, limits.descriptors, limits.descriptors),
            (resource.RLIMIT_NPROC, limits.processes, limits.processes),
            (resource.RLIMIT_CORE, 0, 0),
            (resource.RLIMIT_MEMLOCK, 0, 0),
            (resource.RLIMIT_MSGQUEUE, 0, 0),
        )
        try:
            for kind, soft, hard in wanted:
                _, bound = resource.getrlimit(kind)
                within = bound if bound != resource.RLIM_INFINITY else max(hard, soft)
                resource.setrlimit(kind, (min(soft, within), min(hard, within)))
        except (OSError, ValueError) as error:
            return Measure(name=LIMITS, is_on=False, why=str(error))
        text = f"{limits.memory_bytes >> 20} MiB more memory, {limits.cpu_s} s of processor"
        return Measure(name=LIMITS, is_on=True, why=text)

    def _without_files(self, grants: Grants) -> Measure:
        if self._processor is None or FILES in self._without:
            why = "left out" if self._processor else "this processor is not known here"
            return Measure(name=FILES, is_on=False, why=why)
        try:
            abi = restricted(self._libc, self._processor, grants.readable)
        except OSError as error:
            return Measure(name=FILES, is_on=False, why=f"no Landlock: {error.strerror}")
        beside = f" but to read {', '.join(grants.readable)}" if grants.readable else ""
        return Measure(name=FILES, is_on=True, why=f"Landlock (ABI {abi}): nothing opens{beside}")

    def _filtered(self, grants: Grants) -> Measure:
        if self._processor is None or CALLS in self._without:
            why = "left out" if self._processor else "this processor is not known here"
            return Measure(name=CALLS, is_on=False, why=why)
        try:
            filtered(self._libc, self._processor, grants)
        except OSError as error:
            return Measure(name=CALLS, is_on=False, why=f"no seccomp: {error.strerror}")
        text = f"seccomp: {len(allowed_calls(grants))} calls, no socket, no program, no tracing"
        return Measure(name=CALLS, is_on=True, why=text)


def _became(user: int) -> Measure:
    """Step 1: root becomes another user, for good."""
    try:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    except OSError as error:  # a container whose root may not, or in which there is no such user
        text = f"stays root: {error.strerror}"
        return Measure(name=USER, is_on=False, why=text)
    return Measure(name=USER, is_on=True, why=f"user {user} in place of root")


def _backed(each: Measure, found: list[Measure], grants: Grants) -> Measure:
    """What the filter forbids as well is on, whatever it was that the kernel refused."""
    has_filter = any(other.name == CALLS and other.is_on for other in found)
    if each.is_on or not has_filter:
        return each
    if each.name == NETWORK:
        text = f"the filter lets no socket be made ({each.why})"
        return Measure(name=NETWORK, is_on=True, why=text)
    if each.name == FILES and not grants.readable:
        return Measure(name=FILES, is_on=True, why=f"the filter lets nothing open ({each.why})")
    return each


def _demand(found: tuple[Measure, ...] | list[Measure], demanded: object) -> None:
    """Go on only with every demanded measure.

    Raises:
        UnavailableError: `sandbox.demanded`.
    """
    assert isinstance(demanded, list | tuple)
    on = {each.name: each for each in found}
    for name in demanded:
        if name not in on or not on[name].is_on:
            why = on[name].why if name in on else "no such measure"
            raise UnavailableError(
                "sandbox.demanded",
                f"this machine does not give {name!r} to a process: {why}",
                hint="`modelkeep scan --explain-sandbox` shows what it gives",
            )


def _demand_holds(found: list[Measure], grants: Grants) -> None:
    """Step 6.

    Raises:
        UnavailableError: `sandbox.leaks`.
    """
    on = {each.name for each in found if each.is_on}
    leaks = []
    if CALLS in on or NETWORK in on:
        leaks += [NETWORK] if _reaches_out() else []
    if FILES in on:
        leaks += [FILES] if _opens("/etc/passwd", grants) or _opens("/", grants) else []
    if CALLS in on:
        leaks += [CALLS] if _forks() else []
    if leaks:
        raise UnavailableError(
            "sandbox.leaks", f"what should be forbidden still works: {', '.join(leaks)}"
        )


def _reaches_out() -> bool:
    """Whether a datagram finds a way out; a socket in an empty namespace does not."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
            one.connect(("192.0.2.1", 9))  # TEST-NET-1 (RFC 5737): nothing is sent by this
    except OSError:
        return False
    return True


def _opens(path: str, grants: Grants) -> bool:
    if any(path == each or path.startswith(each.rstrip("/") + "/") for each in grants.readable):
        return False
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def _forks() -> bool:
    try:
        pid = os.fork()
    except OSError:
        return False
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return True


def _has_null() -> bool:
    try:
        os.close(os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.EACCES, errno.EPERM):
            raise
        return False
    return True


def _names(found: list[Measure]) -> set[str]:
    return {each.name for each in found}


def _reason() -> str:
    return f"the kernel refuses it: {os.strerror(ctypes.get_errno())}"
