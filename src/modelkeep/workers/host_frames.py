"""What a service and a host of its replicas say to each other, before replicas speak and beside.

A connection begins with an opening of the service's:

    opening   "MKH0" | kind, 1 byte | length, u32 big-endian | body
    "B"       begin: a `Begin` in JSON; then the bytes of each of its files, one after the other
    "R"       reach: the name of a replica that was begun

After `reach`, both ways, come the frames of the replica. After `begin` both sides say `Note`s
(length, u32 big-endian | JSON), the service once its files are there: a sign of life each second,
and from the host what became of the replica. This file does not know which side it is on.
"""

from __future__ import annotations

from collections.abc import Iterator

from modelkeep.core.errors import IntegrityError
from modelkeep.core.record import Record, from_json, to_json
from modelkeep.workers.plan import ReplicaPlan, TextReplicaPlan

MAGIC = b"MKH0"
BEGIN, REACH = b"B", b"R"
LENGTH_BYTES = 4
_HEAD_BYTES = len(MAGIC) + 1 + LENGTH_BYTES
# A schema with some thousand ports, or the names of as many files.
BEGIN_BYTES_MAX = 1024 * 1024
NAME_BYTES_MAX = 64
_BODY_BYTES_MAX = {BEGIN: BEGIN_BYTES_MAX, REACH: NAME_BYTES_MAX}
NOTE_BYTES_MAX = 4096
FILES_MAX = 4096
# What a host says in its notes.
ALIVE, TAKEN, REFUSED, ENDED = "alive", "taken", "refused", "ended"


class HostedFile(Record, frozen=True):
    """One file of a model.

    Attributes:
        path: in the model's folder.
        sha256: of its bytes, in hex.
    """

    path: str
    size_bytes: int
    sha256: str


class Begin(Record, frozen=True):
    """A replica that a host is to run; of its plan no descriptor counts.

    Attributes:
        release: of the service, which must be the host's: plans are read by one release only.
        replica: its name from now on, for `reach`.
        tensor: the plan of a tensor model's replica; None for a language model's.
    """

    release: str
    replica: str
    files: tuple[HostedFile, ...]
    tensor: ReplicaPlan | None = None
    text: TextReplicaPlan | None = None

    @property
    def plan(self) -> ReplicaPlan | TextReplicaPlan:
        """The one plan that there is."""
        plan = self.tensor if self.tensor is not None else self.text
        assert plan is not None
        return plan


class Note(Record, frozen=True):
    """What one side tells the other.

    Attributes:
        said: `alive`, `taken` (the files are there and right), `refused` or `ended` (its process).
        text: why, for people.
    """

    said: str
    text: str = ""


class OpeningReader:
    """Cuts one opening from the beginning of a stream; holds no more than a body may have.

    Attributes:
        rest: what came behind it.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self.rest = b""

    def fed(self, data: bytes) -> Begin | str | None:
        """What the opening says once it is whole: what to begin, or whom to reach; else None.

        Raises:
            IntegrityError: `host.opening`.
        """
        buffer = self._buffer
        buffer += data
        if not buffer.startswith(MAGIC[: len(buffer)]):
            raise _no_opening("it begins otherwise")
        if len(buffer) < _HEAD_BYTES:
            return None
        kind = bytes(buffer[len(MAGIC) : len(MAGIC) + 1])
        length = int.from_bytes(buffer[_HEAD_BYTES - LENGTH_BYTES : _HEAD_BYTES], "big")
        if length > _BODY_BYTES_MAX.get(kind, -1):
            raise _no_opening("its kind is unknown, or it is too long")
        end = _HEAD_BYTES + length
        if len(buffer) < end:
            return None
        body, self.rest = bytes(buffer[_HEAD_BYTES:end]), bytes(buffer[end:])
        buffer.clear()
        return _named(body) if kind == REACH else _begun(body)


class NoteReader:
    """Cuts a stream into notes; holds no more than one note may have."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def fed(self, data: bytes) -> Iterator[Note]:
        """The notes that these bytes complete.

        Raises:
            IntegrityError: `host.note`.
        """
        self._buffer += data
        while len(self._buffer) >= LENGTH_BYTES:
            length = int.from_bytes(self._buffer[:LENGTH_BYTES], "big")
            if length > NOTE_BYTES_MAX:
                raise IntegrityError("host.note", "a note is too long")
            end = LENGTH_BYTES + length
            if len(self._buffer) < end:
                return
            raw = bytes(self._buffer[LENGTH_BYTES:end])
            del self._buffer[:end]
            yield from_json(Note, raw, what="a note between a service and a host")


def opening(begin: Begin | str) -> bytes:
    """Encode an opening: what to begin, or the name of whom to reach."""
    kind, body = (REACH, begin.encode()) if isinstance(begin, str) else (BEGIN, to_json(begin))
    assert len(body) <= _BODY_BYTES_MAX[kind]
    return MAGIC + kind + len(body).to_bytes(LENGTH_BYTES, "big") + body


def note(said: str, text: str = "") -> bytes:
    """Encode a note."""
    body = to_json(Note(said=said, text=text[: NOTE_BYTES_MAX // 8]))
    return len(body).to_bytes(LENGTH_BYTES, "big") + body


def _named(body: bytes) -> str:
    if not (body.isascii() and body.isalnum()):
        raise _no_opening("it names no replica")
    return body.decode("ascii")


def _begun(body: bytes) -> Begin:
    begin = from_json(Begin, body, what="a replica to begin")
    _named(begin.replica.encode())
    sizes = [each.size_bytes for each in begin.files]
    if (begin.tensor is None) == (begin.text is None):
        raise _no_opening("a replica has one plan")
    if not 1 <= len(sizes) <= FILES_MAX or min(sizes) < 0:
        raise _no_opening("its files are none, too many, or of no size")
    if begin.tensor is not None and len(sizes) != 1:
        raise _no_opening("a tensor model is one file")
    return begin


def _no_opening(why: str) -> IntegrityError:
    return IntegrityError("host.opening", f"what opens a connection to a host is wrong: {why}")
