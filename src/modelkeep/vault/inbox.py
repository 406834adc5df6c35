r"""The inbox's bytes: parts of a submission, and the list that makes them one.

    inbox/<client id>/<submission id>/part/<64 hex>   at most 16 MiB, a sealed file
    inbox/<client id>/<submission id>/list/<64 hex>   at most 16 MiB, a sealed file, written last

Both are named by the BLAKE3 digest of their bytes, sealed to the inbox's recipient and signed by
the client (docs/design/sealed-file.md). What is inside begins with what it is, so that neither can
be taken for the other, and a part for no other part of any submission:

    part   "mkpart0\n" || submission id (8) || number u32 || its share of the files' bytes
    list   "mklist0\n" || MessagePack of `Submission`

The files' bytes stand one after the other in the order of the list, cut every `SHARE_BYTES`. So
any range is found by arithmetic, and a part is opened whole before a byte of it is used.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from modelkeep.core.artifact import is_model_name
from modelkeep.core.digest import Digest
from modelkeep.core.errors import IntegrityError, KeepError
from modelkeep.core.record import Record, Row, from_msgpack, to_msgpack
from modelkeep.crypto.recipients import Identity, Recipient
from modelkeep.crypto.sealed_file import opened_file, sealed_file
from modelkeep.crypto.signatures import Signer
from modelkeep.crypto.stream import CHUNK_BYTES, Read
from modelkeep.kernels.digest import hex_of
from modelkeep.vault.client_file import CLIENT_ID_BYTES, Signed

INBOX = "inbox"
FORMAT = "modelkeep-submission-v0"
SUBMISSION_ID_BYTES = 8
# One put; a client's memory is twice this.
OBJECT_BYTES_MAX = 16 * 1024 * 1024
# 255 chunks: with tags, header, MAC and signature 62 kB below OBJECT_BYTES_MAX.
PLAIN_BYTES_MAX = 255 * CHUNK_BYTES
# 1 TiB: beyond the largest checkpoint that one machine hands in at a time.
PARTS_MAX = 65_536
# As many as a manifest may have; with paths and digests the list stays below OBJECT_BYTES_MAX.
FILES_MAX = 100_000
PATH_BYTES_MAX = 1024
PATH_PARTS_MAX = 64
PATHS_BYTES_MAX = 4 * 1024 * 1024
DIGEST_BYTES = 32

_PART = b"mkpart0\n"
_LIST = b"mklist0\n"
_NUMBER_BYTES = 4
SHARE_BYTES = PLAIN_BYTES_MAX - len(_PART) - SUBMISSION_ID_BYTES - _NUMBER_BYTES
_ID = rf"[0-9a-f]{{{2 * CLIENT_ID_BYTES}}}"
_NAME = re.compile(rf"{INBOX}/({_ID})/({_ID})/(part|list)/([0-9a-f]{{{2 * DIGEST_BYTES}}})")
# Control characters and lone surrogates: nothing that a terminal obeys, nothing that is no UTF-8.
_UNFIT = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")


class FileClaim(Row, frozen=True):
    """One file as its client describes it: path, size, BLAKE3 digest."""

    path: str
    size_bytes: int
    digest: bytes

    @property
    def identity(self) -> Digest:
        """Its digest as text."""
        return Digest(f"blake3:{self.digest.hex()}")


class Submission(Record, frozen=True):
    """The list: what one submission is.

    Attributes:
        name: what the client would have it called.
        submitted_ns: by the client's clock; for people, nothing hangs on it.
        files: in the order in which their bytes stand.
        parts: the digests of all parts, one after the other.
    """

    format: str
    keep_id: str
    client_id: str
    submission: str
    certificate: Signed
    name: str
    submitted_ns: int
    files: tuple[FileClaim, ...]
    parts: bytes

    @property
    def size_bytes(self) -> int:
        """Of all files."""
        return sum(each.size_bytes for each in self.files)

    @property
    def part_names(self) -> tuple[str, ...]:
        """The names of its parts, in order."""
        return tuple(
            object_name(
                self.client_id, self.submission, "part", self.parts[at : at + DIGEST_BYTES].hex()
            )
            for at in range(0, len(self.parts), DIGEST_BYTES)
        )


@dataclass(frozen=True, slots=True)
class Place:
    """Whose object an object of the inbox is, and which: what its name says."""

    client_id: str
    submission: str
    is_list: bool
    digest: str


def place_of(name: str) -> Place | None:
    """What a name in the inbox says; None for a name that is not ours."""
    match = _NAME.fullmatch(name)
    return None if match is None else Place(match[1], match[2], match[3] == "list", match[4])


def is_inbox_id(text: str) -> bool:
    """Whether a text can be the id of a client or of a submission."""
    return re.fullmatch(_ID, text) is not None


def folder_of(client_id: str, submission: str) -> str:
    """The prefix of all objects of a submission."""
    return f"{INBOX}/{client_id}/{submission}/"


def object_name(client_id: str, submission: str, kind: str, digest: str) -> str:
    """The name of an object; `kind` is `part` or `list`."""
    return f"{folder_of(client_id, submission)}{kind}/{digest}"


@dataclass(frozen=True, slots=True)
class Sealer:
    """What a client seals with."""

    recipient: Recipient
    signer: Signer
    random_bytes: Callable[[int], bytes]

    def part(self, submission: str, number: int, share: bytes | memoryview) -> bytes:
        """Seal one part."""
        head = _PART + bytes.fromhex(submission) + number.to_bytes(_NUMBER_BYTES, "big")
        return self._sealed(head, share)

    def list(self, submission: Submission) -> bytes:
        """Seal the list."""
        return self._sealed(_LIST, to_msgpack(submission))

    def _sealed(self, head: bytes, body: bytes | memoryview) -> bytes:
        parts = sealed_file(
            _reading(head, body),
            locks=[self.recipient],
            signer=self.signer,
            random_bytes=self.random_bytes,
        )
        return b"".join(parts)


@dataclass(frozen=True, slots=True)
class Opener:
    """What the keep's owner opens a client's objects with.

    Attributes:
        public: the client's key, who must have signed.
    """

    identity: Identity
    public: bytes

    def part(self, name: str, raw: bytes, *, submission: str, number: int) -> memoryview:
        """Check and open a part: digest, seal, signature, that it is this part.

        Raises:
            IntegrityError: `inbox.part`.
        """
        head = _PART + bytes.fromhex(submission) + number.to_bytes(_NUMBER_BYTES, "big")
        try:
            return self._opened(name, raw, head)
        except KeepError as error:
            raise IntegrityError(
                "inbox.part",
                f"part {number} of submission {submission} is damaged: {error.message}",
                hint="have the client submit it again, and reject this one",
                object=name,
                part=number,
            ) from error

    def list(self, name: str, raw: bytes) -> Submission:
        """Check and open a list: digest, seal, signature, the record, its bounds, its place.

        Raises:
            IntegrityError: `inbox.list`.
        """
        try:
            body = self._opened(name, raw, _LIST)
            found = from_msgpack(Submission, body, what="the list")
            problem = next(_problems(found, place_of(name)), "")
        except KeepError as error:
            problem = error.message
        if problem:
            raise IntegrityError(
                "inbox.list",
                f"the list {name} does not count: {problem}",
                hint="have the client submit it again, and reject this one",
                object=name,
            )
        return found

    def _opened(self, name: str, raw: bytes, head: bytes) -> memoryview:
        if len(raw) > OBJECT_BYTES_MAX:
            raise IntegrityError("inbox.object", "it is larger than any object of the inbox")
        if hex_of(raw) != name.rpartition("/")[2]:
            raise IntegrityError("inbox.object", "its bytes do not hash to its name")
        opened = opened_file(_reading(raw), keys=[self.identity], signers=[self.public])
        plain = b"".join(opened.chunks)  # the signature is proven when this is
        if not plain.startswith(head):
            raise IntegrityError("inbox.object", "it is another object than its place says")
        return memoryview(plain)[len(head) :]


def _reading(*parts: bytes | memoryview) -> Read:
    """Reads what stands in memory, one after the other; a read ends where one of them does."""
    left = [memoryview(each) for each in parts]

    def read(size_bytes: int) -> bytes:
        while len(left) > 1 and not left[0]:
            left.pop(0)
        got, left[0] = bytes(left[0][:size_bytes]), left[0][size_bytes:]
        return got

    return read


def parts_of(size_bytes: int) -> int:
    """How many parts so many bytes make."""
    return -(-size_bytes // SHARE_BYTES)


def path_problem(paths: Sequence[str]) -> str:
    """What is wrong with the paths of a submission's files; empty if nothing is.

    They are relative, unique, in UTF-8 without control characters, and no file is another one's
    folder: whoever restores them writes below one folder and nowhere else.
    """
    return next(_path_problems(paths), "")


def _path_problems(paths: Sequence[str]) -> Iterator[str]:
    if not 1 <= len(paths) <= FILES_MAX:
        yield f"a submission has 1 to {FILES_MAX} files, not {len(paths)}"
    found = set(paths)
    if len(found) != len(paths):
        yield "two files have one path"
    size_bytes = 0
    for path in paths:
        if _UNFIT.search(path) or not 1 <= len(path.encode()) <= PATH_BYTES_MAX:
            yield f"{path[:80]!a} cannot be the path of a file"
        parts = path.split("/")
        if len(parts) > PATH_PARTS_MAX or any(part in ("", ".", "..") for part in parts):
            yield f"{path[:80]!a} is no path below a folder"
        if any(above in found for above in _folders(path)):
            yield f"{path[:80]!a} is a file, and lies in a file"
        size_bytes += len(path.encode())
    if size_bytes > PATHS_BYTES_MAX:
        yield f"the paths of all files have more than {PATHS_BYTES_MAX} bytes"


def _folders(path: str) -> Iterator[str]:
    """The folders that a path lies in."""
    end = path.rfind("/")
    while end > 0:
        yield path[:end]
        end = path.rfind("/", 0, end)


def _problems(found: Submission, place: Place | None) -> Iterator[str]:
    if found.format != FORMAT:
        yield f"its form is {found.format[:40]!a}"
    if place is None or (found.client_id, found.submission) != (place.client_id, place.submission):
        yield "it is of another client or another submission: it was moved"
    if not is_model_name(found.name):
        yield "the name that it wants is none"
    if len(found.parts) > PARTS_MAX * DIGEST_BYTES:
        yield "it has too many parts"
    yield from _path_problems([each.path for each in found.files])
    for each in found.files:
        if each.size_bytes < 0 or len(each.digest) != DIGEST_BYTES:
            yield f"size or digest of {each.path[:80]!a} is nonsense"
    if len(found.parts) != parts_of(found.size_bytes) * DIGEST_BYTES:
        yield "its parts are not as many as its files' sizes need"
