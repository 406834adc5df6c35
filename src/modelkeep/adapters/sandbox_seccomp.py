"""A filter of system calls (seccomp): what is not listed fails with EPERM, for good.

The filter is a program of classic BPF that the kernel runs before every call. It is built here,
a hundred instructions long, because no library that is kept up binds libseccomp and needs no
compiler. Order:
 1. another processor's numbering (32-bit calls on a 64-bit kernel) kills the process;
 2. `mmap` and `mprotect` may not make memory executable, `clone` may only start a thread, `open`
    and `openat` may only read, `fcntl` may only tell and set flags: one argument is looked at;
 3. what is listed is allowed; `clone3`, whose arguments a filter cannot see, does not exist;
 4. everything else fails with EPERM.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct

from modelkeep.adapters.sandbox_calls import COMPUTE, READING, SOCKETS, THREADS, Processor
from modelkeep.ports.sandbox import Grants

_LOAD = 0x20  # BPF_LD | BPF_W | BPF_ABS
_EQUAL = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_AT_LEAST = 0x35  # BPF_JMP | BPF_JGE | BPF_K
_ANY_BIT = 0x45  # BPF_JMP | BPF_JSET | BPF_K
_RETURN = 0x06  # BPF_RET | BPF_K
_KILL = 0x80000000  # SECCOMP_RET_KILL_PROCESS
_ALLOW = 0x7FFF0000
_ERRNO = 0x00050000
# Offsets in struct seccomp_data: the number, the processor, the low halves of six arguments.
_NUMBER = 0
_AUDIT = 4
_ARGUMENTS = 16
_X32 = 0x40000000  # x86_64 knows a second numbering from here on
_PROT_EXEC = 0x4
_CLONE_THREAD = 0x10000
# O_WRONLY, O_RDWR, O_CREAT, O_TRUNC, O_APPEND; O_TMPFILE has bits of its own.
_O_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | 0x400000
# What sockets and files need. Others would have the kernel signal other processes (F_SETOWN).
_FLAGS = (fcntl.F_GETFD, fcntl.F_SETFD, fcntl.F_GETFL, fcntl.F_SETFL)
_SET_MODE_FILTER = 1
_TSYNC = 1  # all threads of the process

_Instruction = tuple[int, int, int, int]


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def filter_program(processor: Processor, grants: Grants) -> tuple[_Instruction, ...]:
    """The filter as (code, jump if true, jump if false, operand)."""
    numbers = processor.numbers
    denied = _ERRNO | errno.EPERM
    program: list[_Instruction] = [
        (_LOAD, 0, 0, _AUDIT),
        (_EQUAL, 1, 0, processor.audit),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
        (_AT_LEAST, 0, 1, _X32),
        (_RETURN, 0, 0, _KILL),
    ]

    def unless(name: str, argument: int, bits: int, *, wanted: bool = False) -> None:
        """Allow a call by one argument: none of these bits, or (wanted) one of them."""
        if name in numbers:
            program.extend(
                (
                    (_EQUAL, 0, 4, numbers[name]),
                    (_LOAD, 0, 0, _ARGUMENTS + 8 * argument),
                    (_ANY_BIT, 0, 1, bits),
                    (_RETURN, 0, 0, _ALLOW if wanted else denied),
                    (_RETURN, 0, 0, denied if wanted else _ALLOW),
                )
            )

    def only(name: str, argument: int, values: tuple[int, ...]) -> None:
        """Allow a call whose argument is one of these."""
        many = len(values)
        program.append((_EQUAL, 0, many + 3, numbers[name]))
        program.append((_LOAD, 0, 0, _ARGUMENTS + 8 * argument))
        program.extend((_EQUAL, many - at, 0, value) for at, value in enumerate(values))
        program.append((_RETURN, 0, 0, denied))
        program.append((_RETURN, 0, 0, _ALLOW))

    if not grants.executable:
        unless("mmap", 2, _PROT_EXEC)
        unless("mprotect", 2, _PROT_EXEC)
    if grants.threads:
        unless("clone", 0, _CLONE_THREAD, wanted=True)
        program.append((_EQUAL, 0, 1, numbers["clone3"]))
        program.append((_RETURN, 0, 0, _ERRNO | errno.ENOSYS))
    if grants.sockets or grants.readable:
        only("fcntl", 1, _FLAGS)
    if grants.readable:
        unless("open", 1, _O_WRITES)
        unless("openat", 2, _O_WRITES)
    for name in allowed_calls(grants):
        if name in numbers:
            program.append((_EQUAL, 0, 1, numbers[name]))
            program.append((_RETURN, 0, 0, _ALLOW))
    program.append((_RETURN, 0, 0, denied))
    return tuple(program)


def allowed_calls(grants: Grants) -> tuple[str, ...]:
    """The calls that are allowed whatever their arguments."""
    names = [*COMPUTE]
    names += THREADS if grants.threads else ()
    names += SOCKETS if grants.sockets else ()
    names += (each for each in READING if each not in ("open", "openat")) if grants.readable else ()
    names += ("mmap", "mprotect") if grants.executable else ()
    return tuple(dict.fromkeys(names))


def filtered(libc: ctypes.CDLL, processor: Processor, grants: Grants) -> None:
    """Put the filter in force for this process and all that comes of it.

    Raises:
        OSError: when the kernel has no seccomp, or may set no new privileges still.
    """
    program = filter_program(processor, grants)
    raw = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in program))
    whole = _Program(len(program), ctypes.cast(raw, ctypes.c_void_p))
    number = processor.numbers["seccomp"]
    if libc.syscall(number, _SET_MODE_FILTER, _TSYNC, ctypes.byref(whole)) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
