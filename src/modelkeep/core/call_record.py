"""The record of a call: what a gateway's journal keeps, never content.

Both kinds are rows (arrays in MessagePack), told apart by their first element. The receipt of a
call is the journal's name and the position of its record there, so it is not in the record.
Commitments are keyed: without the key of the keep nobody can test a guess, and the nonce makes
two equal calls look different.
"""

from __future__ import annotations

import ipaddress

from modelkeep.core.record import Row, msgpack_decoder, to_msgpack

NONCE_BYTES = 16
CALL_ID_BYTES = 8
# What stands for addresses past the bound of one second's summaries.
PREFIX_OTHERS = "others"


class CallRecord(Row, frozen=True, tag="call"):
    """One authenticated call: what was asked by whom, and what came of it.

    Attributes:
        call_id: 8 random bytes; names the call in logs and traces.
        at_ns: when its head had arrived.
        version: 0 when the call named no model that is served.
        status: the HTTP status (or its equal on other protocols) that the caller gets.
        code: of the error; empty for an answer.
        input_commitment: keyed BLAKE3 of nonce and the body as received; empty without a body.
        output_commitment: keyed BLAKE3 of nonce and the body as sent; empty for a refusal.
        latency_us: from `at_ns` to the moment of recording.
    """

    call_id: bytes
    at_ns: int
    principal: str
    tenant: str
    model: str
    version: int
    status: int
    code: str
    input_commitment: bytes
    output_commitment: bytes
    latency_us: int
    nonce: bytes


class RefusalSummary(Row, frozen=True, tag="refusals"):
    """Refusals before authentication: how many, from where, why, in which second."""

    second: int
    prefix: str
    reason: str
    count: int


JournalRecord = CallRecord | RefusalSummary

_decoded = msgpack_decoder(JournalRecord, what="a call's record")


def encoded_record(record: JournalRecord) -> bytes:
    """The frame that the journal keeps."""
    return to_msgpack(record)


def decoded_record(raw: bytes) -> JournalRecord:
    """Read a frame of a call journal.

    Raises:
        IntegrityError: `record.msgpack`.
    """
    record = _decoded(raw)
    assert isinstance(record, CallRecord | RefusalSummary)
    return record


def address_prefix(address: str) -> str:
    """The network that an address is counted under: /24 of IPv4, /64 of IPv6.

    One household or machine commands a whole /64, so single IPv6 addresses count nothing.
    """
    try:
        known = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return PREFIX_OTHERS
    mapped = known.ipv4_mapped if isinstance(known, ipaddress.IPv6Address) else None
    known = mapped or known
    bits = 24 if known.version == 4 else 64
    return str(ipaddress.ip_network((known, bits), strict=False))
