"""A submission as its owner reads it: found, proven step by step, its files opened as asked for.

The steps are those of `flows.inbox`. Plaintext is in memory only, a few parts of 16 MiB at a time;
a range of a file is found by arithmetic, and proven each time its part is opened.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from modelkeep.core.digest import Digest
from modelkeep.core.entry import Fact
from modelkeep.core.errors import IntegrityError, LimitError, MissingError, RefusedError
from modelkeep.core.instant import rfc3339
from modelkeep.core.rows import InboxClient
from modelkeep.flows.keep import OpenKeep
from modelkeep.kernels.digest import Digester
from modelkeep.ports.store import ObjectStat, Store
from modelkeep.vault.client_file import opened_certificate
from modelkeep.vault.inbox import OBJECT_BYTES_MAX, SHARE_BYTES, Opener, Submission

# An honest submission has one; others may put more beside it, and are told apart by opening them.
LISTS_TRIED_MAX = 8
BLOCK_BYTES = 1024 * 1024

Progress = Callable[[int], None]
Facts = tuple[str, dict[str, Fact]]


@dataclass(frozen=True, slots=True)
class IncomingFile:
    """A file of a submission; its bytes are opened and proven each time they are asked for.

    In order is fast, since the last parts that were opened are at hand. Several threads may read.
    """

    path: str
    size_bytes: int
    digest: Digest
    start: int
    parts: Parts = field(repr=False)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill a buffer with the file's bytes from `offset` on, which must be there.

        Raises:
            IntegrityError: `inbox.part`.
            MissingError: `inbox.missing_part`.
        """
        if offset < 0 or offset + len(buffer) > self.size_bytes:
            raise AssertionError("a range lies within its file")
        done = 0
        while done < len(buffer):
            number, at = divmod(self.start + offset + done, SHARE_BYTES)
            share = self.parts.opened(number)[at : at + len(buffer) - done]
            buffer[done : done + len(share)] = share
            done += len(share)

    def blocks(self, size_bytes: int = BLOCK_BYTES) -> Iterator[memoryview]:
        """The file's bytes in order; a block is valid until the next one is asked for."""
        held = memoryview(bytearray(min(size_bytes, self.size_bytes)))
        for offset in range(0, self.size_bytes, size_bytes):
            block = held[: min(size_bytes, self.size_bytes - offset)]
            self.read_into(offset, block)
            yield block


@dataclass(frozen=True, slots=True)
class Incoming:
    """A submission that was proven and is to be stored.

    Attributes:
        note: for the manifest: where it came from.
        entry: the ledger entry of a version number, for one write with the commit. Whoever stores
            may leave it: then it is recorded after.
    """

    name: str
    files: tuple[IncomingFile, ...]
    note: str
    entry: Callable[[int], Facts]


# Stores files as the next version of a name, durably, and says which; all or nothing.
Storing = Callable[[Incoming], int]


class Parts:
    """The parts of a submission; the last two that were opened are kept: 32 MiB.

    Safe to use from several threads: what is kept changes in one assignment, and two that want one
    part at once open it twice.
    """

    def __init__(self, store: Store, listed: Submission, opener: Opener) -> None:
        self._names = listed.part_names
        self._store = store
        self._submission = listed.submission
        self._size_bytes = listed.size_bytes
        self._opener = opener
        self._kept: tuple[tuple[int, memoryview], ...] = ()

    def opened(self, number: int) -> memoryview:
        """What a part holds, proven.

        Raises:
            IntegrityError: `inbox.part`.
            MissingError: `inbox.missing_part`.
        """
        kept = self._kept
        for held, plain in kept:
            if held == number:
                return plain
        plain = self._read(number)
        self._kept = ((number, plain), *kept[:1])
        return plain

    def _read(self, number: int) -> memoryview:
        name = self._names[number]
        try:
            raw = read_object(self._store, name)
        except MissingError as error:
            raise missing_part(name, number) from error
        plain = self._opener.part(name, raw, submission=self._submission, number=number)
        wanted = min(self._size_bytes - number * SHARE_BYTES, SHARE_BYTES)
        if len(plain) != wanted:
            raise IntegrityError(
                "inbox.part",
                f"part {number} of submission {self._submission} has another size than its list "
                f"says: {len(plain)} bytes, not {wanted}",
                object=name,
                part=number,
            )
        return plain


@dataclass(slots=True)
class Found:
    """The objects of one submission in one store."""

    store: Store
    client_id: str
    submission: str
    parts: dict[str, int] = field(default_factory=dict)
    lists: dict[str, int] = field(default_factory=dict)

    def take(self, stat: ObjectStat, *, is_list: bool) -> None:
        """Note one object."""
        (self.lists if is_list else self.parts)[stat.name] = stat.size_bytes

    @property
    def objects(self) -> int:
        """How many there are."""
        return len(self.parts) + len(self.lists)

    @property
    def stored_bytes(self) -> int:
        """Of all of them."""
        return sum(self.parts.values()) + sum(self.lists.values())


def demand_allowed(client: InboxClient, now_ns: int) -> None:
    """Step 2."""
    if client.revoked:
        raise RefusedError(
            "inbox.revoked",
            f"the client {client.name} ({client.client_id}) was revoked",
            hint="`modelkeep inbox reject --client` removes what it put into the inbox",
        )
    if client.expires_ns and now_ns >= client.expires_ns:
        raise RefusedError(
            "inbox.expired",
            f"the client {client.name} expired at {rfc3339(client.expires_ns)}",
            hint="make a new one with `modelkeep clients add`, and have it submit again",
        )


def listed_in(found: Found, client: InboxClient, opener: Opener, *, keep: OpenKeep) -> Submission:
    """Step 4.

    Raises:
        MissingError: `inbox.incomplete`.
        LimitError: `inbox.crowded`.
        IntegrityError: `inbox.list`, `inbox.certificate`.
    """
    if not found.lists:
        raise MissingError(
            "inbox.incomplete",
            f"submission {found.submission} has no list yet: its client is not done, or was cut",
            hint=f"wait, or `modelkeep inbox reject {found.submission}`",
        )
    if len(found.lists) > LISTS_TRIED_MAX:
        raise LimitError(
            "inbox.crowded",
            f"submission {found.submission} has {len(found.lists)} lists",
            hint="others can write into this inbox: reject it, and have it submitted again",
        )
    opened: list[Submission] = []
    failure: IntegrityError | None = None
    for name in found.lists:
        try:
            opened.append(opener.list(name, read_object(found.store, name)))
        except IntegrityError as error:
            failure = failure or error
    if failure is not None and not opened:
        raise failure
    if len(opened) != 1:
        raise IntegrityError(
            "inbox.list",
            f"submission {found.submission} has {len(opened)} lists by its own client",
            hint="have the client submit it again, and reject this one",
        )
    _demand_certificate(keep, opened[0], client)
    return opened[0]


def _demand_certificate(keep: OpenKeep, listed: Submission, client: InboxClient) -> None:
    """The second half of step 4."""
    certificate = opened_certificate(listed.certificate, public=keep.public)
    is_same = (
        certificate.keep_id == listed.keep_id == keep.keep_id
        and certificate.client_id == client.client_id
        and certificate.public.hex() == client.public
        and certificate.expires_ns == client.expires_ns
    )
    if not is_same:
        raise IntegrityError(
            "inbox.certificate", "a submission comes with the certificate of another client"
        )


def demand_there(found: Found, listed: Submission, client: InboxClient) -> None:
    """Step 5."""
    if listed.size_bytes > client.size_bytes_max:
        raise LimitError(
            "inbox.size",
            f"submission {listed.submission} has {listed.size_bytes} bytes, "
            f"{client.name} may hand in {client.size_bytes_max} at a time",
            hint="make a client with a larger allowance",
        )
    for number, name in enumerate(listed.part_names):
        if name not in found.parts:
            raise missing_part(name, number)


def files_of(listed: Submission, parts: Parts) -> Iterator[IncomingFile]:
    """The files of a submission, in order."""
    start = 0
    for each in listed.files:
        yield IncomingFile(
            path=each.path,
            size_bytes=each.size_bytes,
            digest=each.identity,
            start=start,
            parts=parts,
        )
        start += each.size_bytes


def demand_digest(file: IncomingFile, progress: Progress) -> None:
    """Read a file to its end; go on only with the one that its client listed.

    Raises:
        IntegrityError: `inbox.part`, `inbox.file`.
        MissingError: `inbox.missing_part`.
    """
    digest = Digester()
    for block in file.blocks():
        digest.update(block)
        progress(len(block))
    if digest.digest() != file.digest:
        raise IntegrityError(
            "inbox.file",
            f"{file.path!a} is not the file that its client listed",
            hint="the client is wrong about its own file; reject the submission",
            path=file.path,
        )


def read_object(store: Store, name: str) -> bytes:
    """An object of the inbox, and not much of one that is too long."""
    return store.get(name, length=OBJECT_BYTES_MAX + 1)


def missing_part(name: str, number: int) -> MissingError:
    """That a part is not there."""
    return MissingError(
        "inbox.missing_part",
        f"part {number} of a submission is not in the inbox",
        hint="have the client submit it again, and reject this one",
        object=name,
        part=number,
    )
