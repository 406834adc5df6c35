"""Hand something in, as a client: parts first, last of all the list that makes them one.

    files -> shares of 16 MiB -> sealed and signed -> put, each durable -> the list, put

What is needed is a client file and the right to put: nothing is read, listed or deleted, and no
passphrase is asked for. Cut anywhere before the list, there are parts that nobody accepts; the
same call again makes another submission. Memory: one share and its sealed form, whatever the size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from modelkeep.core.artifact import checked_model_name
from modelkeep.core.errors import LimitError, RefusedError, UsageError
from modelkeep.core.instant import rfc3339
from modelkeep.core.record import Record
from modelkeep.crypto.stream import Read, exactly
from modelkeep.kernels.digest import Digester, hex_of
from modelkeep.ports.clock import Clock
from modelkeep.ports.entropy import Entropy
from modelkeep.vault.client_file import Client
from modelkeep.vault.inbox import (
    DIGEST_BYTES,
    FORMAT,
    PARTS_MAX,
    SHARE_BYTES,
    SUBMISSION_ID_BYTES,
    FileClaim,
    Sealer,
    Submission,
    object_name,
    path_problem,
)

BLOCK_BYTES = 1024 * 1024
# All that a client does with a store.
Put = Callable[[str, bytes], None]


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One file to be handed in: its path below the folder, and how it is opened."""

    path: str
    open: Callable[[], AbstractContextManager[Read]]


class Submitted(Record, frozen=True):
    """What was handed in; it counts when the keep's owner accepts it."""

    submission: str
    client_id: str
    name: str
    files: int
    size_bytes: int
    objects: int


def submitted(
    files: Sequence[Outgoing],
    *,
    client: Client,
    name: str,
    put: Put,
    clock: Clock,
    entropy: Entropy,
    progress: Callable[[int], None] = lambda _: None,
) -> Submitted:
    """Hand files in.

    Args:
        name: what the owner is asked to call it.
        progress: called with the number of bytes read since the last call.

    Raises:
        UsageError: `model.name`, `inbox.path`.
        RefusedError: `client.expired`; LimitError: `inbox.size`.
        UnavailableError: from the store; nothing was handed in.
    """
    checked_model_name(name)
    now_ns = clock.now_ns()
    _demand_sound(client, [each.path for each in files], now_ns)
    submission = entropy.random_bytes(SUBMISSION_ID_BYTES).hex()
    sealer = Sealer(client.recipient, client.signer, entropy.random_bytes)
    limit = client.certificate.size_bytes_max
    stream = _Stream(files, min(limit, PARTS_MAX * SHARE_BYTES), progress)

    def put_object(kind: str, raw: bytes) -> str:
        digest = hex_of(raw)
        put(object_name(client.certificate.client_id, submission, kind, digest), raw)
        return digest

    digests = [
        put_object("part", sealer.part(submission, number, share))
        for number, share in enumerate(stream.shares())
    ]
    body = Submission(
        format=FORMAT,
        keep_id=client.certificate.keep_id,
        client_id=client.certificate.client_id,
        submission=submission,
        certificate=client.signed,
        name=name,
        submitted_ns=now_ns,
        files=tuple(stream.claims),
        parts=b"".join(bytes.fromhex(digest) for digest in digests),
    )
    assert len(body.parts) == len(digests) * DIGEST_BYTES
    put_object("list", sealer.list(body))
    return Submitted(
        submission=submission,
        client_id=body.client_id,
        name=name,
        files=len(body.files),
        size_bytes=body.size_bytes,
        objects=len(digests) + 1,
    )


def _demand_sound(client: Client, paths: Sequence[str], now_ns: int) -> None:
    """Go on only where an owner could accept what comes of it."""
    expires_ns = client.certificate.expires_ns
    if expires_ns and now_ns >= expires_ns:
        raise RefusedError(
            "client.expired",
            f"this client file expired at {rfc3339(expires_ns)}",
            hint="ask the keep's owner for a new one: `modelkeep clients add`",
        )
    problem = path_problem(paths)
    if problem:
        raise UsageError("inbox.path", problem, hint="rename it, or hand in fewer at a time")


class _Stream:
    """The bytes of all files, one after the other, in shares; what they were, when it has ended."""

    def __init__(
        self, files: Sequence[Outgoing], size_bytes_max: int, progress: Callable[[int], None]
    ) -> None:
        self.claims: list[FileClaim] = []
        self._files = files
        self._size_bytes_max = size_bytes_max
        self._progress = progress

    def shares(self) -> Iterator[memoryview]:
        """Each is valid until the next one is asked for."""
        share = bytearray(SHARE_BYTES)
        view, used = memoryview(share), 0
        for block in self._blocks():
            rest = memoryview(block)
            while rest:
                count = min(len(rest), SHARE_BYTES - used)
                view[used : used + count] = rest[:count]
                rest, used = rest[count:], used + count
                if used == SHARE_BYTES:
                    yield view
                    used = 0
        if used:
            yield view[:used]

    def _blocks(self) -> Iterator[bytes]:
        total = 0
        for file in self._files:
            digest, size_bytes = Digester(), 0
            with file.open() as read:
                while block := exactly(read, BLOCK_BYTES):
                    digest.update(block)
                    size_bytes += len(block)
                    if total + size_bytes > self._size_bytes_max:
                        raise LimitError(
                            "inbox.size",
                            f"a submission of this client has at most {self._size_bytes_max} bytes",
                            hint="hand in less at a time, or ask the owner for a larger allowance",
                        )
                    yield block
                    self._progress(len(block))
            total += size_bytes
            raw = bytes.fromhex(digest.digest().partition(":")[2])
            self.claims.append(FileClaim(path=file.path, size_bytes=size_bytes, digest=raw))
