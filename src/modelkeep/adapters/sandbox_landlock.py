"""Landlock: files, TCP and signals that a process gives up, without being root (Linux 5.13).

What a kernel can take depends on the version of its interface (ABI): 1 files, 4 TCP, 6 abstract
Unix sockets and signals to processes outside. It restricts what is opened from then on, so
descriptors that are open already stay as they are.
"""

from __future__ import annotations

import ctypes
import os
import struct

from modelkeep.adapters.sandbox_calls import Processor

_VERSION = 1  # LANDLOCK_CREATE_RULESET_VERSION
_PATH_BENEATH = 1  # LANDLOCK_RULE_PATH_BENEATH
_READ_FILE = 1 << 2
_READ_DIR = 1 << 3
# Rights on files, by the first version of the interface that knows them.
_FILES = ((1, (1 << 13) - 1), (2, 1 << 13), (3, 1 << 14), (5, 1 << 15))
_TCP = 3  # bind and connect
_SCOPES = 3  # abstract Unix sockets, signals


def landlock_abi(libc: ctypes.CDLL, processor: Processor) -> int:
    """The version of the interface that this kernel has; 0 where it has none or it is off."""
    number = processor.numbers["landlock_create_ruleset"]
    return max(0, int(libc.syscall(number, None, ctypes.c_size_t(0), _VERSION)))


def restricted(libc: ctypes.CDLL, processor: Processor, readable: tuple[str, ...]) -> int:
    """Give up all files but what may be read below some paths, and all else that can be given up.

    Returns:
        The version of the interface.

    Raises:
        OSError: when the kernel has no Landlock, or a path is not there.
    """
    abi = landlock_abi(libc, processor)
    if not abi:
        raise OSError(ctypes.get_errno(), "the kernel has no Landlock, or it is off")
    files = sum(bits for since, bits in _FILES if abi >= since)
    rules = struct.pack("QQQ", files, _TCP, _SCOPES)[: 8 if abi < 4 else 16 if abi < 6 else 24]
    ruleset = _called(
        libc, processor.numbers["landlock_create_ruleset"], rules, ctypes.c_size_t(len(rules)), 0
    )
    try:
        for path in readable:
            _allow(libc, processor, ruleset, path)
        _called(libc, processor.numbers["landlock_restrict_self"], ruleset, 0)
    finally:
        os.close(ruleset)
    return abi


def _allow(libc: ctypes.CDLL, processor: Processor, ruleset: int, path: str) -> None:
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        is_folder = os.path.isdir(path)  # noqa: PTH112 - a string from the grants
        rights = _READ_FILE | (_READ_DIR if is_folder else 0)
        rule = struct.pack("=Qi", rights, fd)
        _called(libc, processor.numbers["landlock_add_rule"], ruleset, _PATH_BENEATH, rule, 0)
    finally:
        os.close(fd)


def _called(libc: ctypes.CDLL, *words: object) -> int:
    done = int(libc.syscall(*words))
    if done < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return done
