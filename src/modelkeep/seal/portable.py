r"""A model as one file for somebody else, format v1 (docs/design/portable-model.md).

    "modelkeep portable model v1\n"
    length u32 || sealed table: a sealed file (`crypto.sealed_file`), signed by the sender
    for each segment of the table, in its order: payload and tag of AES-256-GCM

The table is read first and says everything: the signed manifest, how files are put together, and of
each segment its lengths, its encoding and the digest of its bytes as they stand in the file. So the
sender's signature, which is over the table, covers every segment, also against a recipient who has
the file's key; and any segment can be read alone. Integers are big-endian.

Read order, numbered as in the code:

1. The first line, and the length of the sealed table within bounds.
2. The sealed table: recipient, commitment, MAC, sender, chunks, signature.
3. The table decodes strictly, and its padding is zeros.
4. The manifest is signed by the sender.
5. The segments add up to the files of the manifest.
6. A segment has the digest that the table says, before it is decrypted, and its tag verifies.
"""

from __future__ import annotations

import io
import struct
from array import array
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from modelkeep.core.artifact import Manifest
from modelkeep.core.errors import IntegrityError, LimitError
from modelkeep.core.limits import SEGMENT_BYTES_MAX
from modelkeep.core.record import Record, from_json, from_msgpack, to_msgpack
from modelkeep.crypto.aead import TAG_BYTES, Cipher
from modelkeep.crypto.kdf import KEY_BYTES, derived_key
from modelkeep.crypto.locks import Key, Lock
from modelkeep.crypto.sealed_file import opened_file, sealed_file
from modelkeep.crypto.secret import Secret
from modelkeep.crypto.signatures import SIGNATURE_BYTES, Signer
from modelkeep.crypto.stream import CHUNK_BYTES, Read, exactly
from modelkeep.kernels.digest import hex_of
from modelkeep.kernels.encoding import Encoding, decode_into
from modelkeep.seal.envelope import Envelope
from modelkeep.seal.trust import VerifiedManifest, verified

FIRST_LINE = b"modelkeep portable model v1\n"
# A million tensors, whose digests, names and shapes take some 200 bytes each, and their segments.
FRONT_BYTES_MAX = 256 * 1024 * 1024
SOLO = (Encoding.RAW, Encoding.ZSTD, Encoding.PLANES)

_TABLE_LINE = b"modelkeep model table v1\n"
_LENGTH_BYTES = 4
_LEAD_BYTES = len(_TABLE_LINE) + KEY_BYTES + _LENGTH_BYTES
_ROW = struct.Struct(">BII32s")  # encoding, length, length of the payload, digest
_BOUND = struct.Struct(">IIIB")  # number, how many there are, length, encoding


class Part(Record, frozen=True):
    """How one file of the manifest is put together.

    Attributes:
        segments: how many follow those of the file before.
        mode: its permission bits; -1 where they were not kept.
    """

    segments: int
    mode: int = -1


class Table(Record, frozen=True):
    """What the sender says, signed and for recipients only.

    Attributes:
        parts: one for each file of the manifest, in its order.
        folders: path and permission bits, parents first; empty for a single file.
        links: path, and what it says.
        segments: rows of 41 bytes: encoding, length, length of the payload, BLAKE3 of payload and
            tag.
    """

    envelope: Envelope
    parts: tuple[Part, ...]
    folders: tuple[tuple[str, int], ...] = ()
    links: tuple[tuple[str, str], ...] = ()
    segments: bytes = b""


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of a file as it lies in the container.

    Attributes:
        start: of its plaintext in its file.
        place: of its payload in the container.
        stored: length of payload and tag.
        digest: BLAKE3 of payload and tag.
    """

    number: int
    encoding: Encoding
    start: int
    length: int
    place: int
    stored: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class SealedSegment:
    """A segment on its way out: its row of the table, and its bytes."""

    row: bytes
    raw: bytes


@dataclass(frozen=True, slots=True)
class Portable:
    """An exported model whose table is proven; its segments are proven one by one.

    Attributes:
        sender: verifier of who signed it.
        firsts: the number of each file's first segment, and how many there are.
        starts: where each segment's plaintext begins in its file.
        places: where each segment begins in the container, and where the container ends.
    """

    proof: VerifiedManifest
    sender: bytes
    table: Table
    cipher: Cipher
    firsts: array[int]
    starts: array[int]
    places: array[int]

    @property
    def size_bytes(self) -> int:
        """How long the whole container must be."""
        return self.places[-1]

    def segment(self, number: int) -> Segment:
        """One segment."""
        row = self.table.segments[number * _ROW.size : (number + 1) * _ROW.size]
        encoding, length, _, digest = _ROW.unpack(row)
        place = self.places[number]
        stored = self.places[number + 1] - place
        start = self.starts[number]
        return Segment(number, Encoding(encoding), start, length, place, stored, digest)

    def numbers(self, file: int, start: int, length: int) -> range:
        """The numbers of the segments that some bytes of a file lie in.

        Args:
            file: its place in the manifest.
        """
        first, end = self.firsts[file], self.firsts[file + 1]
        if length <= 0:
            return range(0)
        left = bisect_right(self.starts, start, first, end) - 1
        return range(left, bisect_right(self.starts, start + length - 1, first, end))

    def open_into(self, segment: Segment, sealed: memoryview, target: memoryview) -> None:
        """Prove a segment and fill a target of its length; before that nothing is released.

        Raises:
            IntegrityError: `portable.segment` or `codec.*`; the target is then zeroed.
        """
        bound = _BOUND.pack(
            segment.number, len(self.starts), segment.length, segment.encoding.value
        )
        try:
            if len(sealed) != segment.stored or _digest(sealed) != segment.digest:  # 6
                raise _altered(segment)
            if segment.encoding is Encoding.RAW:
                self.cipher.open_into(segment.number, sealed, target, bound=bound)
            else:
                payload = self.cipher.open(segment.number, sealed, bound=bound)
                decode_into(segment.encoding, memoryview(payload), target)
        except IntegrityError as error:
            target[:] = bytes(len(target))
            raise (_altered(segment) if error.code == "aead.tag" else error) from None


class Draft:
    """An export in the making: segments are sealed in any order, the table when all are there."""

    def __init__(
        self,
        table: Table,
        *,
        count: int,
        locks: Sequence[Lock],
        signer: Signer,
        random_bytes: Callable[[int], bytes],
    ) -> None:
        """Begin a file of so many segments, whose rows the table lacks.

        Raises:
            UsageError: `sealed.recipients`.
            LimitError: `portable.large`.
        """
        key = Secret(random_bytes(KEY_BYTES))
        self._lead = _TABLE_LINE + key.reveal()
        self._cipher = _cipher(key, table.envelope)
        self._table = table
        self._count = count
        self._plain = io.BytesIO()
        self._parts = sealed_file(
            self._plain.read, locks=locks, signer=signer, random_bytes=random_bytes
        )
        self._head = next(self._parts)
        plain_bytes = len(self._packed(bytes(count * _ROW.size)))
        chunks = -(-plain_bytes // CHUNK_BYTES)
        sealed_bytes = plain_bytes + chunks * TAG_BYTES + SIGNATURE_BYTES
        self._front_bytes = len(self._head) + sealed_bytes
        if self._front_bytes > FRONT_BYTES_MAX:
            raise LimitError(
                "portable.large",
                "the list of this model's files and tensors is too long for one file",
                hint="hand it over in parts, each a version of its own",
            )

    @property
    def start(self) -> int:
        """Where the first segment lies."""
        return len(FIRST_LINE) + _LENGTH_BYTES + self._front_bytes

    def sealed(
        self, number: int, encoding: Encoding, payload: bytes | memoryview, *, length: int
    ) -> SealedSegment:
        """Seal one segment; from any thread."""
        if encoding not in SOLO or not 0 < len(payload) <= length <= SEGMENT_BYTES_MAX:
            raise AssertionError("a segment that needs another one, or is out of bounds")
        bound = _BOUND.pack(number, self._count, length, encoding.value)
        raw = self._cipher.seal(number, payload, bound=bound)
        return SealedSegment(_ROW.pack(encoding, length, len(payload), _digest(raw)), raw)

    def front(self, rows: Iterable[bytes]) -> bytes:
        """What stands before the first segment; once, with the rows of all segments in order."""
        self._plain.write(self._packed(b"".join(rows)))
        self._plain.seek(0)
        front = b"".join((self._head, *self._parts))
        if len(front) != self._front_bytes:
            raise AssertionError("a table must be as long as the room that was left for it")
        return FIRST_LINE + len(front).to_bytes(_LENGTH_BYTES, "big") + front

    def _packed(self, rows: bytes) -> bytes:
        table = self._table
        raw = to_msgpack(
            Table(
                envelope=table.envelope,
                parts=table.parts,
                folders=table.folders,
                links=table.links,
                segments=rows,
            )
        )
        plain = self._lead + len(raw).to_bytes(_LENGTH_BYTES, "big") + raw
        return plain.ljust(_padded(len(plain)), b"\0")


def opened_portable(
    read: Read, *, keys: Iterable[Key], signers: Collection[bytes] | None
) -> Portable:
    """Read what stands before the first segment, and prove it; the numbers are the module's.

    Args:
        signers: verifiers, one of whom must have signed; None demands nobody in particular.

    Raises:
        IntegrityError: `portable.format`, `portable.bounds`, `portable.table`, `sealed.*`,
            `record.*`, `signature.bad`.
        RefusedError: `sealed.key`, `sealed.signer`, `seal.signer`.
    """
    if exactly(read, len(FIRST_LINE)) != FIRST_LINE:  # 1
        raise IntegrityError(
            "portable.format",
            "this is no exported model",
            hint="`modelkeep decrypt` opens other sealed files",
        )
    front_bytes = int.from_bytes(exactly(read, _LENGTH_BYTES), "big")
    if front_bytes > FRONT_BYTES_MAX:
        raise IntegrityError(
            "portable.bounds", "the manifest of an exported model is out of bounds"
        )
    opened = opened_file(_limited(read, front_bytes), keys=keys, signers=signers)  # 2
    key, table = _unpacked(b"".join(opened.chunks))  # 3
    said = from_json(Manifest, table.envelope.manifest, what="the manifest of an exported model")
    proof = verified(
        table.envelope, name=said.name, version=said.version, trusted=(opened.signer,)
    )  # 4
    start = len(FIRST_LINE) + _LENGTH_BYTES + front_bytes
    firsts, starts, places = _laid_out(table, proof.manifest, start)  # 5
    cipher = _cipher(key, table.envelope)
    return Portable(proof, opened.signer, table, cipher, firsts, starts, places)


def _limited(read: Read, size_bytes: int) -> Read:
    """The next so many bytes, as if the file ended there."""
    left = size_bytes

    def limited(wanted: int) -> bytes:
        nonlocal left
        got = read(min(wanted, left))
        left -= len(got)
        return got

    return limited


def _unpacked(plain: bytes) -> tuple[Secret, Table]:
    """The key of the segments, and the table.

    Raises:
        IntegrityError: `portable.table`, `record.msgpack`.
    """
    at = _LEAD_BYTES
    end = at + int.from_bytes(plain[at - _LENGTH_BYTES : at], "big")
    if (
        not plain.startswith(_TABLE_LINE)
        or len(plain) != _padded(end)
        or plain.count(0, end) != len(plain) - end
    ):
        raise IntegrityError("portable.table", "what a sealed file holds is no table of a model")
    key = Secret(plain[len(_TABLE_LINE) : len(_TABLE_LINE) + KEY_BYTES])
    return key, from_msgpack(Table, plain[at:end], what="the table of an exported model")


def _laid_out(
    table: Table, manifest: Manifest, start: int
) -> tuple[array[int], array[int], array[int]]:
    """Where every segment lies: `firsts`, `starts`, `places` of a Portable.

    Raises:
        IntegrityError: `portable.table`.
    """
    rows = table.segments
    counts = [each.segments for each in table.parts]
    firsts, starts, places = array("Q", (0,)), array("Q"), array("Q", (start,))
    is_sound = (
        len(counts) == len(manifest.files)
        and all(0 <= count <= len(rows) for count in counts)
        and sum(counts) * _ROW.size == len(rows)
    )
    unread = _ROW.iter_unpack(rows if is_sound else b"")
    for entry, count in zip(manifest.files, counts, strict=False):
        done = 0
        for _ in range(count if is_sound else 0):
            encoding, length, stored, _ = next(unread)
            is_sound = is_sound and (
                0 < stored <= length <= SEGMENT_BYTES_MAX
                and encoding in SOLO
                and (encoding != Encoding.RAW or stored == length)
            )
            starts.append(done)
            places.append(places[-1] + stored + TAG_BYTES)
            done += length
        is_sound = is_sound and done == entry.size_bytes
        firsts.append(len(starts))
    if not is_sound:
        raise IntegrityError("portable.table", "the segments of an exported model do not add up")
    return firsts, starts, places


def _cipher(key: Secret, envelope: Envelope) -> Cipher:
    """Salted with the manifest: segments belong to one manifest even if a key came twice."""
    salt = bytes.fromhex(hex_of(envelope.manifest))
    return Cipher(derived_key(key, "portable/segments", salt=salt))


def _digest(raw: bytes | memoryview) -> bytes:
    return bytes.fromhex(hex_of(raw))


def _padded(size_bytes: int) -> int:
    """The next size with few significant bits (PADMÉ): what it tells of the table is little."""
    exponent = size_bytes.bit_length() - 1
    unit = 1 << max(exponent - exponent.bit_length(), 0)
    return -(-size_bytes // unit) * unit


def _altered(segment: Segment) -> IntegrityError:
    return IntegrityError(
        "portable.segment",
        "a part of an exported model is not what its sender signed",
        hint="fetch the file again; what was read of it before is good",
        segment=segment.number,
    )
