r"""Packs: encrypted segments back to back, with their table and the writer's signature.

    "mkpack0\n" || salt(32) || segment 0 || segment 1 || … || table || length of table, u32 BE
    || Ed25519(64)

Each segment is AES-256-GCM(key = HKDF(domain's pack key, salt), nonce = its number), so it
decrypts in place and alone; its id, domain and encoding are authenticated with it, so a segment
moved to another place, pack or domain does not open. The table (MessagePack, encrypted as segment
2^32) lets an index be rebuilt. The object is named by the digest of all of its bytes.
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

_MAGIC = b"mkpack0\n"
_HEAD_BYTES = len(_MAGIC) + SALT_BYTES
_TABLE_NUMBER = 1 << 32
_ENCODING = b"raw"


class Segment(Record, frozen=True, array_like=True):
    """Where one chunk lies in a pack.

    Attributes:
        chunk_id: 32-byte keyed digest of the plaintext.
        number: of the segment within its pack; it is the nonce.
        offset: of the ciphertext's first byte in the pack.
        length: of the plaintext in bytes; the ciphertext is 16 bytes longer.
    """

    chunk_id: bytes
    number: int
    offset: int
    length: int


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


@dataclass(slots=True)
class PackWriter:
    """Collects segments until the pack is full enough; holds at most one pack in memory."""

    domain: DomainKeys
    signer: Signer
    salt: bytes
    _cipher: Cipher = field(init=False)
    _parts: list[bytes] = field(default_factory=list)
    _segments: list[Segment] = field(default_factory=list)
    _ids: set[bytes] = field(default_factory=set)
    _size_bytes: int = _HEAD_BYTES

    def __post_init__(self) -> None:
        self._cipher = pack_cipher(self.domain, self.salt)

    @property
    def size_bytes(self) -> int:
        """Bytes collected so far."""
        return self._size_bytes

    @property
    def is_empty(self) -> bool:
        """Whether no segment was added."""
        return not self._segments

    def holds(self, chunk_id: bytes) -> bool:
        """Whether a chunk is in this pack already."""
        return chunk_id in self._ids

    def add(self, chunk_id: bytes, plaintext: bytes | memoryview) -> None:
        """Encrypt one chunk as the next segment."""
        number = len(self._segments)
        sealed = self._cipher.seal(number, plaintext, bound=bound_to(self.domain.name, chunk_id))
        self._segments.append(
            Segment(
                chunk_id=chunk_id, number=number, offset=self._size_bytes, length=len(plaintext)
            )
        )
        self._ids.add(chunk_id)
        self._parts.append(sealed)
        self._size_bytes += len(sealed)

    def finished(self) -> tuple[PackEntry, bytes]:
        """Close the pack: its entry for the index, and its bytes."""
        table = self._cipher.seal(
            _TABLE_NUMBER,
            to_msgpack(_Table(segments=tuple(self._segments))),
            bound=bound_to(self.domain.name, b"table"),
        )
        head = _MAGIC + self.salt
        body = b"".join([head, *self._parts, table, len(table).to_bytes(4, "big")])
        raw = body + self.signer.sign(bytes.fromhex(hex_of(body)), context="pack")
        entry = PackEntry(
            name=content_name("pack", self.domain.key_id, hex_of(raw)),
            size_bytes=len(raw),
            salt=self.salt,
            segments=tuple(self._segments),
        )
        return entry, raw


def pack_cipher(domain: DomainKeys, salt: bytes) -> Cipher:
    """The cipher of one pack."""
    return Cipher(derived_key(domain.packs, "pack", salt=salt))


def bound_to(domain: str, chunk_id: bytes) -> bytes:
    """What is authenticated with a segment: domain, encoding and id (no base in v0)."""
    return domain.encode() + b"\0" + _ENCODING + b"\0" + chunk_id


def read_pack(name: str, raw: bytes, *, domain: DomainKeys, public: bytes) -> PackEntry:
    """Check a whole pack and read its table.

    1. Its form. 2. The writer's signature. 3. The table's tag.

    Raises:
        IntegrityError: `vault.pack`, `signature.bad`, `aead.tag` or `record.msgpack`.
    """
    if not raw.startswith(_MAGIC) or len(raw) < _HEAD_BYTES + TAG_BYTES + 4 + SIGNATURE_BYTES:  # 1
        raise IntegrityError("vault.pack", f"{name} is not a pack", object=name)
    body = raw[:-SIGNATURE_BYTES]
    digest = bytes.fromhex(hex_of(body))
    verify(raw[-SIGNATURE_BYTES:], digest, context="pack", public=public)  # 2
    table_bytes = int.from_bytes(body[-4:], "big")
    if table_bytes > len(body) - _HEAD_BYTES - 4:
        raise IntegrityError("vault.pack", f"{name} has no table", object=name)
    salt = body[len(_MAGIC) : _HEAD_BYTES]
    plain = pack_cipher(domain, salt).open(
        _TABLE_NUMBER, body[-4 - table_bytes : -4], bound=bound_to(domain.name, b"table")
    )  # 3
    table = from_msgpack(_Table, plain, what=name)
    return PackEntry(name=name, size_bytes=len(raw), salt=salt, segments=table.segments)
