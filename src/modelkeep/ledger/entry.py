"""Leaves that commit to entries, and the encrypted bodies beside them.

- A body is the JSON of one `core.entry.Entry`. Its leaf is `0x01 || SHA-256(salt || body)` with
  a fresh random 32-byte salt, so a published leaf tells nothing about its body, not even to
  someone who guesses it.
- A body bundle is the records `uint32 length || salt || body` of the same entries as the entry
  bundle of the same name, sealed under the body key and bound to log, index and width: it opens
  only in its own place.
- The seal's salt is derived from the plaintext under the body key. The plaintext holds 256-bit
  random salts, so this neither repeats for different content nor tells anything; and the same
  bundle always becomes the same bytes, so a publication that was cut off can be repeated over
  immutable objects.
- A frame of the write-ahead journal is one record, `salt || body`. All frames of one append are
  sealed under one key, derived from the body key, the log and a fresh random salt, with the
  entry's index as nonce: a frame opens at its own index of its own log only, nothing of an entry
  is ever on a disk in the clear, and a repeated append never repeats key and nonce. (A key for
  each frame cost more than everything else that recording does.)
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from modelkeep.core.entry import Entry
from modelkeep.core.errors import IntegrityError, UsageError
from modelkeep.core.limits import ENTRY_BODY_BYTES_MAX
from modelkeep.core.record import from_json, to_json
from modelkeep.crypto.aead import TAG_BYTES, Cipher, opened_blob, sealed_blob
from modelkeep.crypto.kdf import derived_key
from modelkeep.crypto.secret import Secret
from modelkeep.kernels.digest import keyed_id
from modelkeep.ledger.tiles import Place

LEAF_TAG = b"\x01"
SALT_BYTES = 32

_LENGTH_BYTES = 4
_FRAME_BOUND = b"ledger-frame"


@dataclass(frozen=True, slots=True)
class CommittedBody:
    """A body and the salt of its commitment."""

    salt: bytes
    body: bytes

    @property
    def leaf(self) -> bytes:
        """The leaf that commits to the body."""
        return leaf_of(self.record)

    @property
    def record(self) -> bytes:
        """What journals and bundles hold of it."""
        return self.salt + self.body

    def entry(self) -> Entry:
        """Decode the body.

        Raises:
            IntegrityError: `record.json`.
        """
        return from_json(Entry, self.body, what="a ledger entry")


def committed(entry: Entry, *, salt: bytes) -> CommittedBody:
    """Encode an entry and commit to it; `salt` is 32 fresh random bytes.

    Raises:
        UsageError: `ledger.entry_size`, when the body is beyond ENTRY_BODY_BYTES_MAX.
    """
    if len(salt) != SALT_BYTES:
        raise AssertionError("a commitment's salt is 32 bytes")
    return CommittedBody(salt, encoded_body(entry))


def encoded_body(entry: Entry) -> bytes:
    """The body of an entry.

    Raises:
        UsageError: `ledger.entry_size`, when it is beyond ENTRY_BODY_BYTES_MAX.
    """
    body = to_json(entry)
    if len(body) > ENTRY_BODY_BYTES_MAX:
        raise UsageError(
            "ledger.entry_size",
            f"an entry of kind {entry.kind} is {len(body)} bytes long",
            hint=f"keep facts short: {ENTRY_BODY_BYTES_MAX} bytes at most",
        )
    return body


def leaf_of(record: bytes) -> bytes:
    """The leaf that commits to a record, `salt || body`."""
    return LEAF_TAG + hashlib.sha256(record).digest()


def sealed_bodies(
    records: Iterable[bytes], *, prefix: str, place: Place, body_key: Secret
) -> bytes:
    """The bytes of a body bundle; the same records in the same place give the same bytes."""
    purpose = _bundle_purpose(prefix, place)
    plaintext = b"".join(
        [part for each in records for part in (len(each).to_bytes(_LENGTH_BYTES, "big"), each)]
    )
    salt_key = derived_key(body_key, "ledger-body-salt").reveal()
    salt = keyed_id(salt_key, purpose.encode() + b"\0" + plaintext)
    return sealed_blob(body_key, plaintext, purpose=purpose, salt=salt)


def opened_bodies(
    raw: bytes, *, prefix: str, place: Place, body_key: Secret
) -> tuple[CommittedBody, ...]:
    """Open a body bundle.

    Raises:
        IntegrityError: `aead.tag`, `aead.short`, or `ledger.body` when it does not hold exactly
            `place.width` records.
    """
    plaintext = opened_blob(body_key, raw, purpose=_bundle_purpose(prefix, place))
    bodies: list[CommittedBody] = []
    at = 0
    while at < len(plaintext) and len(bodies) <= place.width:
        start = at + _LENGTH_BYTES
        at = start + int.from_bytes(plaintext[at:start], "big")
        bodies.append(_parsed_record(plaintext[start:at]))
    if at != len(plaintext) or len(bodies) != place.width:
        raise IntegrityError(
            "ledger.body",
            f"a body bundle does not hold exactly {place.width} records",
            expected=place.width,
            got=len(bodies),
        )
    return tuple(bodies)


def sealed_frames(
    records: Sequence[bytes], *, prefix: str, first: int, body_key: Secret, salt: bytes
) -> list[bytes]:
    """The frames of one append to the write-ahead journal; `salt` is 32 fresh random bytes."""
    seal = _frame_cipher(body_key, prefix, salt).seal
    return [
        salt + seal(index, record, bound=_FRAME_BOUND)
        for index, record in enumerate(records, start=first)
    ]


class FrameReader:
    """Opens frames of the write-ahead journal; those of one append share a key, kept meanwhile."""

    __slots__ = ("_body_key", "_cipher", "_prefix", "_salt")

    def __init__(self, body_key: Secret, *, prefix: str) -> None:
        self._body_key = body_key
        self._prefix = prefix
        self._salt = b""
        self._cipher: Cipher | None = None

    def record(self, raw: bytes, *, index: int) -> bytes:
        """The record in a frame.

        Raises:
            IntegrityError: `aead.tag`, `aead.short` or `ledger.body`.
        """
        if len(raw) < SALT_BYTES + TAG_BYTES:
            raise IntegrityError("aead.short", "a journal frame is cut short", got_bytes=len(raw))
        salt = raw[:SALT_BYTES]
        if self._cipher is None or salt != self._salt:
            self._salt, self._cipher = salt, _frame_cipher(self._body_key, self._prefix, salt)
        record = self._cipher.open(index, raw[SALT_BYTES:], bound=_FRAME_BOUND)
        _demand_record_size(record)
        return record

    def body(self, raw: bytes, *, index: int) -> CommittedBody:
        """The same, parted into salt and body."""
        return _parsed_record(self.record(raw, index=index))


def _frame_cipher(body_key: Secret, prefix: str, salt: bytes) -> Cipher:
    if len(salt) != SALT_BYTES:
        raise AssertionError("the salt of an append is 32 bytes")
    return Cipher(derived_key(body_key, f"ledger-frames/{prefix}", salt=salt))


def _bundle_purpose(prefix: str, place: Place) -> str:
    return f"ledger-body/{prefix}{place.index}/{place.width}"


def _parsed_record(raw: bytes) -> CommittedBody:
    _demand_record_size(raw)
    return CommittedBody(raw[:SALT_BYTES], raw[SALT_BYTES:])


def _demand_record_size(raw: bytes) -> None:
    if not SALT_BYTES <= len(raw) <= SALT_BYTES + ENTRY_BODY_BYTES_MAX:
        raise IntegrityError("ledger.body", "a body record has an impossible size", got=len(raw))
