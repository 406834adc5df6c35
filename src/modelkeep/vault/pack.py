r"""Packs: encrypted segments back to back, with their table and the writer's signature.

    "mkpack1\n" || salt(32) || segment 0 || segment 1 || … || padding || table
    || length of table, encrypted (20) || Ed25519(64)

Each segment is AES-256-GCM(key = HKDF(domain's pack key, salt), nonce = its number), so it
decrypts in place and alone; its id, domain, encoding and base are authenticated with it, so a
segment moved to another place, pack or domain does not open. The table (MessagePack, encrypted as
segment 2^32) lets an index be rebuilt. Padding (encrypted zeros) brings the object to a size that
many packs share (Padmé: Nikitin et al., PURBs, 2019, section 4), so that a store learns no chunk's
length. The object is named by the digest of all of its bytes. Packs of the first form ("mkpack0")
have no padding and show the table's length; they stay readable.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from modelkeep.core.errors import IntegrityError
from modelkeep.core.names import content_name
from modelkeep.core.record import Record, from_msgpack, to_msgpack
from modelkeep.crypto.aead import TAG_BYTES, Cipher
from modelkeep.crypto.hierarchy import DomainKeys
from modelkeep.crypto.kdf import SALT_BYTES, derived_key
from modelkeep.crypto.signatures import SIGNATURE_BYTES, Signer, verify
from modelkeep.kernels.digest import hex_of
from modelkeep.kernels.encoding import Encoding

_MAGIC = b"mkpack1\n"
_MAGIC_V0 = b"mkpack0\n"
HEAD_BYTES = len(_MAGIC) + SALT_BYTES
_TABLE_NUMBER = 1 << 32
_LENGTH_NUMBER = _TABLE_NUMBER + 1
_PADDING_NUMBER = _TABLE_NUMBER + 2
_LENGTH_BYTES = 4 + TAG_BYTES


class Segment(Record, frozen=True, array_like=True):
    """Where one chunk lies in a pack.

    Attributes:
        chunk_id: 32-byte keyed digest of the plaintext.
        number: of the segment within its pack; it is the nonce.
        offset: of the ciphertext's first byte in the pack.
        length: of the plaintext in bytes.
        encoding: how the plaintext became the payload (`kernels.encoding`).
        stored: length of the payload in bytes, -1 for that of the plaintext; the ciphertext is 16
            bytes longer.
        base: id of the chunk that this one is a delta to; empty for none.
    """

    chunk_id: bytes
    number: int
    offset: int
    length: int
    encoding: int = 0
    stored: int = -1
    base: bytes = b""

    @property
    def payload_bytes(self) -> int:
        """Length of the encoded payload."""
        return self.length if self.stored < 0 else self.stored


class PackEntry(Record, frozen=True, array_like=True):
    """One pack in an index.

    Attributes:
        salt: of the pack, so that a segment can be read without reading the pack's head.
    """

    name: str
    size_bytes: int
    salt: bytes
    segments: tuple[Segment, ...]


class _Table(Record, frozen=True):
    segments: tuple[Segment, ...]


@dataclass(frozen=True, slots=True)
class Encoded:
    """A chunk as it goes into a pack; without a payload where the store holds it already."""

    chunk_id: bytes
    length: int
    encoding: Encoding = Encoding.RAW
    payload: bytes | memoryview | None = None
    base: bytes = b""


@dataclass(slots=True)
class PackWriter:
    """Collects segments until the pack is full enough; holds at most one pack in memory."""

    domain: DomainKeys
    signer: Signer
    salt: bytes
    _cipher: Cipher = field(init=False)
    _raw: bytearray = field(default_factory=bytearray)
    _segments: list[Segment] = field(default_factory=list)
    _ids: set[bytes] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._cipher = pack_cipher(self.domain, self.salt)
        self._raw += _MAGIC + self.salt

    @property
    def size_bytes(self) -> int:
        """Bytes collected so far."""
        return len(self._raw)

    @property
    def is_empty(self) -> bool:
        """Whether no segment was added."""
        return not self._segments

    @property
    def count(self) -> int:
        """How many segments were added."""
        return len(self._segments)

    def holds(self, chunk_id: bytes) -> bool:
        """Whether a chunk is in this pack already."""
        return chunk_id in self._ids

    def add(self, chunk: Encoded) -> None:
        """Encrypt one chunk as the next segment."""
        if chunk.payload is None:
            raise AssertionError("a chunk without a payload cannot be packed")
        segment = Segment(
            chunk_id=chunk.chunk_id,
            number=len(self._segments),
            offset=len(self._raw),
            length=chunk.length,
            encoding=int(chunk.encoding),
            stored=len(chunk.payload),
            base=chunk.base,
        )
        self._raw += self._cipher.seal(
            segment.number, chunk.payload, bound=bound_to(self.domain.name, segment)
        )
        self._segments.append(segment)
        self._ids.add(chunk.chunk_id)

    def finished(self) -> tuple[PackEntry, bytearray]:
        """Close the pack: its entry for the index, and its bytes."""
        body = to_msgpack(_Table(segments=tuple(self._segments)))
        own = self.domain.name
        table = self._cipher.seal(_TABLE_NUMBER, body, bound=_part(own, b"table"))
        length = len(table).to_bytes(4, "big")
        tail = table + self._cipher.seal(_LENGTH_NUMBER, length, bound=_part(own, b"length"))
        size_bytes = len(self._raw) + len(tail) + SIGNATURE_BYTES
        missing = padded_bytes(size_bytes + TAG_BYTES) - size_bytes - TAG_BYTES
        zeros = bytes(missing)
        self._raw += self._cipher.seal(_PADDING_NUMBER, zeros, bound=_part(own, b"padding"))
        self._raw += tail
        digest = hex_of(memoryview(self._raw))
        self._raw += self.signer.sign(bytes.fromhex(digest), context="pack")
        entry = PackEntry(
            name=content_name("pack", self.domain.key_id, hex_of(memoryview(self._raw))),
            size_bytes=len(self._raw),
            salt=self.salt,
            segments=tuple(self._segments),
        )
        return entry, self._raw


def padded_bytes(size_bytes: int) -> int:
    """The size that an object of this size is padded to, at most 12 % more (Padmé)."""
    if size_bytes < 2:
        return size_bytes
    exponent = size_bytes.bit_length() - 1
    step = 1 << max(0, exponent - exponent.bit_length())
    return -(-size_bytes // step) * step


def pack_cipher(domain: DomainKeys, salt: bytes) -> Cipher:
    """The cipher of one pack."""
    return Cipher(derived_key(domain.packs, "pack", salt=salt))


def bound_to(domain: str, segment: Segment) -> bytes:
    """What is authenticated with a segment: domain, encoding, id, and base where there is one.

    Raises:
        IntegrityError: `vault.encoding`, for an encoding that this reader does not know.
    """
    try:
        encoding = Encoding(segment.encoding).name.lower()
    except ValueError:
        raise IntegrityError(
            "vault.encoding", f"a chunk has the unknown encoding {segment.encoding}"
        ) from None
    parts = [domain.encode(), encoding.encode(), segment.chunk_id]
    return b"\0".join([*parts, segment.base] if segment.base else parts)


def read_pack(
    name: str, raw: bytes | memoryview, *, domain: DomainKeys, public: bytes
) -> PackEntry:
    """Check a whole pack and read its table.

    1. Its form. 2. The writer's signature. 3. The table's tag.

    Raises:
        IntegrityError: `vault.pack`, `signature.bad`, `aead.tag` or `record.msgpack`.
    """
    view = memoryview(raw)
    magic = bytes(view[: len(_MAGIC)])
    if magic not in (_MAGIC, _MAGIC_V0) or len(view) < HEAD_BYTES + 64 + SIGNATURE_BYTES:  # 1
        raise IntegrityError("vault.pack", f"{name} is not a pack", object=name)
    body = view[:-SIGNATURE_BYTES]
    digest = bytes.fromhex(hex_of(body))
    verify(bytes(view[-SIGNATURE_BYTES:]), digest, context="pack", public=public)  # 2
    salt = bytes(view[len(_MAGIC) : HEAD_BYTES])
    cipher, own = pack_cipher(domain, salt), domain.name
    if magic == _MAGIC:
        length = cipher.open(_LENGTH_NUMBER, body[-_LENGTH_BYTES:], bound=_part(own, b"length"))
        end = len(body) - _LENGTH_BYTES
        bound = _part(own, b"table")
    else:
        length, end = bytes(body[-4:]), len(body) - 4
        bound = b"\0".join([own.encode(), b"raw", b"table"])
    table_bytes = int.from_bytes(length, "big")
    if table_bytes > end - HEAD_BYTES:
        raise IntegrityError("vault.pack", f"{name} has no table", object=name)
    plain = cipher.open(_TABLE_NUMBER, body[end - table_bytes : end], bound=bound)  # 3
    table = from_msgpack(_Table, plain, what=name)
    return PackEntry(name=name, size_bytes=len(view), salt=salt, segments=table.segments)


def _part(domain: str, what: bytes) -> bytes:
    return b"\0".join([domain.encode(), b"pack", what])
