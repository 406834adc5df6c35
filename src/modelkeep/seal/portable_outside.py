"""What anybody can tell of an exported model without a key: little, and the sender's signature."""

from __future__ import annotations

import hashlib

from modelkeep.core.errors import IntegrityError
from modelkeep.core.record import Record, from_msgpack
from modelkeep.crypto.locks import PassphraseStanza, RecipientStanza, RsaStanza, is_well_formed
from modelkeep.crypto.sealed_file import FIRST_LINE as SEALED_LINE
from modelkeep.crypto.sealed_file import HEADER_BYTES_MAX, STANZAS_MAX, Header
from modelkeep.crypto.signatures import SIGNATURE_BYTES, verify
from modelkeep.crypto.stream import Read, exactly
from modelkeep.seal.portable import FIRST_LINE, FRONT_BYTES_MAX

_LENGTH_BYTES = 4
_MAC_BYTES = 32
_CONTEXT = "sealed-file"
_BLOCK_BYTES = 64 * 1024


class Outside(Record, frozen=True):
    """What stands in the clear.

    Attributes:
        sender: verifier of who signed the table; that the signature is theirs was checked.
        recipients: how many public keys of ours open it; whose, it does not say.
        rsa: how many RSA keys do.
        passphrase: whether a passphrase does.
        table_bytes: of the sealed table, from which the number of tensors can be guessed.
    """

    sender: bytes
    recipients: int
    rsa: int
    passphrase: bool
    table_bytes: int


def outside(read: Read) -> Outside:
    """Read what stands before the first segment, without opening it.

    Raises:
        IntegrityError: `portable.format`, `portable.bounds`, `portable.cut`, `sealed.*`,
            `record.msgpack`.
    """
    if exactly(read, len(FIRST_LINE)) != FIRST_LINE:
        raise IntegrityError("portable.format", "this is no exported model")
    front_bytes = int.from_bytes(exactly(read, _LENGTH_BYTES), "big")
    if front_bytes > FRONT_BYTES_MAX:
        raise IntegrityError(
            "portable.bounds", "the manifest of an exported model is out of bounds"
        )
    lead = _whole(read, len(SEALED_LINE) + _LENGTH_BYTES)
    header_bytes = int.from_bytes(lead[len(SEALED_LINE) :], "big")
    table_bytes = front_bytes - len(lead) - header_bytes - _MAC_BYTES - SIGNATURE_BYTES
    if not lead.startswith(SEALED_LINE) or header_bytes > HEADER_BYTES_MAX or table_bytes < 0:
        raise IntegrityError("sealed.header", "the header of a sealed file is out of bounds")
    raw = _whole(read, header_bytes)
    header = from_msgpack(Header, raw, what="the header of a sealed file")
    kinds = [type(each) for each in header.stanzas]
    if not 1 <= len(kinds) <= STANZAS_MAX or not all(map(is_well_formed, header.stanzas)):
        raise IntegrityError("sealed.header", "the header of a sealed file is out of bounds")
    start = hashlib.sha256(lead + raw + _whole(read, _MAC_BYTES))
    _demand_signed(read, start.digest(), table_bytes, header.signer)
    return Outside(
        sender=header.signer,
        recipients=kinds.count(RecipientStanza),
        rsa=kinds.count(RsaStanza),
        passphrase=PassphraseStanza in kinds,
        table_bytes=table_bytes,
    )


def _demand_signed(read: Read, start: bytes, table_bytes: int, sender: bytes) -> None:
    """Check the signature of the sealed table, which needs no key.

    Raises:
        IntegrityError: `sealed.signature`, `portable.cut`.
    """
    table = hashlib.sha256()
    left = table_bytes
    while left:
        block = _whole(read, min(left, _BLOCK_BYTES))
        table.update(block)
        left -= len(block)
    signature = _whole(read, SIGNATURE_BYTES)
    try:
        verify(signature, start + table.digest(), context=_CONTEXT, public=sender)
    except IntegrityError:
        raise IntegrityError(
            "sealed.signature", "the signature of a sealed file does not verify"
        ) from None


def _whole(read: Read, size_bytes: int) -> bytes:
    got = exactly(read, size_bytes)
    if len(got) < size_bytes:
        raise IntegrityError("portable.cut", "an exported model is cut short")
    return got
