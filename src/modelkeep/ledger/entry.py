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
- A frame of the write-ahead journal is one record, sealed with a random salt and bound to log
  and index: nothing of an entry is ever on a disk in the clear.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from modelkeep.core.entry import Entry
from modelkeep.core.errors import IntegrityError, UsageError
from modelkeep.core.limits import ENTRY_BODY_BYTES_MAX
from modelkeep.core.record import from_json, to_json
from modelkeep.crypto.aead import opened_blob, sealed_blob
from modelkeep.crypto.kdf import derived_key
from modelkeep.crypto.secret import Secret
from modelkeep.kernels.digest import keyed_id
from modelkeep.ledger.tiles import Place

LEAF_TAG = b"\x01"
SALT_BYTES = 32
LEAF_BYTES = len(LEAF_TAG) + 32

_LENGTH_BYTES = 4


@dataclass(frozen=True, slots=True)
class CommittedBody:
    """A body and the salt of its commitment."""

    salt: bytes
    body: bytes

    @property
    def leaf(self) -> bytes:
        """The leaf that commits to the body."""
        return LEAF_TAG + hashlib.sha256(self.salt + self.body).digest()

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
    body = to_json(entry)
    if len(body) > ENTRY_BODY_BYTES_MAX:
        raise UsageError(
            "ledger.entry_size",
            f"an entry of kind {entry.kind} is {len(body)} bytes long",
            hint=f"keep facts short: {ENTRY_BODY_BYTES_MAX} bytes at most",
        )
    return CommittedBody(salt, body)


def sealed_bodies(
    bodies: Iterable[CommittedBody], *, prefix: str, place: Place, body_key: Secret
) -> bytes:
    """The bytes of a body bundle; the same bodies in the same place give the same bytes."""
    purpose = _bundle_purpose(prefix, place)
    plaintext = b"".join(_record(each) for each in bodies)
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


def sealed_frame(
    body: CommittedBody, *, prefix: str, index: int, body_key: Secret, salt: bytes
) -> bytes:
    """One frame of the write-ahead journal; `salt` is 32 fresh random bytes."""
    purpose = _frame_purpose(prefix, index)
    return sealed_blob(body_key, body.salt + body.body, purpose=purpose, salt=salt)


def opened_frame(raw: bytes, *, prefix: str, index: int, body_key: Secret) -> CommittedBody:
    """Open a frame of the write-ahead journal.

    Raises:
        IntegrityError: `aead.tag`, `aead.short` or `ledger.body`.
    """
    plaintext = opened_blob(body_key, raw, purpose=_frame_purpose(prefix, index))
    return _parsed_record(plaintext)


def _bundle_purpose(prefix: str, place: Place) -> str:
    return f"ledger-body/{prefix}{place.index}/{place.width}"


def _frame_purpose(prefix: str, index: int) -> str:
    return f"ledger-frame/{prefix}{index}"


def _record(body: CommittedBody) -> bytes:
    length = SALT_BYTES + len(body.body)
    return length.to_bytes(_LENGTH_BYTES, "big") + body.salt + body.body


def _parsed_record(raw: bytes) -> CommittedBody:
    if not SALT_BYTES <= len(raw) <= SALT_BYTES + ENTRY_BODY_BYTES_MAX:
        raise IntegrityError("ledger.body", "a body record has an impossible size", got=len(raw))
    return CommittedBody(raw[:SALT_BYTES], raw[SALT_BYTES:])
