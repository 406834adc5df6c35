"""Files held against a statement of OMS: which are looked at, how they are digested, whether so.

The sixth point of `modelkeep.seal.oms`: files and list must be the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from modelkeep.core.errors import IntegrityError, UsageError
from modelkeep.kernels.digest import Digester
from modelkeep.seal.oms import BLAKE3, SHA256, Statement

_SHOWN_MAX = 5
_FETCH = "get the files anew from who signed them, or the signature that belongs to these"


class FileDigest:
    """The digests, in hex, of a file whose bytes come in order: one, or one for each shard."""

    __slots__ = ("_algorithm", "_at", "_done", "_hash", "_shard_bytes")

    def __init__(self, algorithm: str, shard_bytes: int = 0) -> None:
        self._algorithm = algorithm
        self._shard_bytes = shard_bytes
        self._hash = _new(algorithm)
        self._at = 0
        self._done: list[str] = []

    def update(self, block: memoryview) -> None:
        """Add the next bytes."""
        while self._shard_bytes and self._at + len(block) >= self._shard_bytes:
            part = self._shard_bytes - self._at
            self._hash.update(block[:part])
            self._done.append(self._hash.hexdigest())
            self._hash, self._at, block = _new(self._algorithm), 0, block[part:]
        self._hash.update(block)
        self._at += len(block)

    def digests(self) -> tuple[str, ...]:
        """Of all bytes; an empty file has no shards."""
        is_over = self._shard_bytes and not self._at
        return (*self._done, *(() if is_over else (self._hash.hexdigest(),)))


def looked_at(paths: Iterable[str], ignored: Sequence[str]) -> tuple[list[str], list[str]]:
    """Part paths into those that count, and those that are ignored or lie below what is."""
    counted: list[str] = []
    passed: list[str] = []
    below = tuple(f"{each}/" for each in ignored)
    for path in paths:
        (passed if f"{path}/".startswith(below) else counted).append(path)
    return counted, passed


def checked_ignored(paths: Iterable[str]) -> tuple[str, ...]:
    """Accept paths that a person wants ignored.

    Raises:
        UsageError: `oms.ignore`.
    """
    cleaned = [path.removeprefix("./").rstrip("/") for path in paths]
    for path in cleaned:
        if any(part in ("", ".", "..") for part in path.split("/")) or "\0" in path:
            raise UsageError(
                "oms.ignore",
                f"{path[:200]!r} is no path below the folder",
                hint="write it as it stands in the folder, such as logs or docs/notes.md",
            )
    return tuple(dict.fromkeys(cleaned))


def demand_listed(
    statement: Statement, sizes: Mapping[str, int], ignored: Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Check that files and list name the same, before a byte is read.

    Args:
        sizes: of every file that is there, in bytes.
        ignored: by the verifier, besides what the signer ignored.

    Returns:
        The paths that are to be digested, and those that nothing is said of.

    Raises:
        IntegrityError: `oms.files`.
    """
    counted, passed = looked_at(sizes, (*statement.ignored, *ignored))
    if statement.shard_bytes:  # which cannot name them
        passed += [path for path in counted if not sizes[path]]
        counted = [path for path in counted if sizes[path]]
    missing, unlisted = set(statement.files) - set(counted), set(counted) - set(statement.files)
    for word, paths in (("missing or ignored", missing), ("not in the list", unlisted)):
        if paths:
            raise IntegrityError(
                "oms.files",
                f"{len(paths)} files are {word}: {_shown(paths)}",
                hint="what need not be signed is left out with --ignore" if unlisted else "",
            )
    for path in counted:
        _demand_places(statement, path, sizes[path])
    return tuple(counted), tuple(sorted(passed))


def demand_digests(statement: Statement, path: str, digests: Sequence[str]) -> None:
    """Check that a file is the one that was signed.

    Raises:
        IntegrityError: `oms.digest`.
    """
    if [piece.digest for piece in statement.files[path]] != list(digests):
        raise IntegrityError(
            "oms.digest",
            f"{path[:200]!r} is not the file that was signed",
            hint=_FETCH,
        )


def _demand_places(statement: Statement, path: str, size_bytes: int) -> None:
    """Check that the pieces of a file are all of it."""
    pieces, step = statement.files[path], statement.shard_bytes
    if not step:
        return
    is_all = len(pieces) == -(-size_bytes // step) and all(
        (piece.start, piece.end) == (at * step, min((at + 1) * step, size_bytes))
        for at, piece in enumerate(pieces)
    )
    if not is_all:
        raise IntegrityError(
            "oms.digest",
            f"{path[:200]!r} has {size_bytes} bytes, and others were signed",
            hint=_FETCH,
        )


def _shown(paths: Iterable[str]) -> str:
    first = sorted(paths)
    text = ", ".join(repr(path[:100]) for path in first[:_SHOWN_MAX])
    return text + (", …" if len(first) > _SHOWN_MAX else "")


class _Hash(Protocol):
    """What digests bytes that come in pieces."""

    def update(self, raw: memoryview, /) -> None: ...

    def hexdigest(self) -> str: ...


class _Blake3(Digester):
    """BLAKE3 with the method's name of the standard library."""

    def hexdigest(self) -> str:
        return self.digest().partition(":")[2]


def _new(algorithm: str) -> _Hash:
    if algorithm == BLAKE3:
        return _Blake3()
    return hashlib.sha256() if algorithm == SHA256 else hashlib.blake2b()
