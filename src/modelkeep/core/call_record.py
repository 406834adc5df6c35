"""The record of a call: what a gateway's journal keeps, never content.

All kinds are rows (arrays in MessagePack), told apart by their first element. The receipt of a
call is the journal's name and the position of its record there, so it is not in the record. A
stream has two: an `IntentRecord` before its first byte, a `CallRecord` of the same `call_id` after
its last; an intent without a call means that the gateway was killed in between.
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
        trace: id of the trace that the caller named (W3C Trace Context), 16 bytes; empty for none.
        tokens_in: of a language model's prompts; 0 for other models.
        tokens_out: of its answers.
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
    trace: bytes = b""
    tokens_in: int = 0
    tokens_out: int = 0


class IntentRecord(Row, frozen=True, tag="intent"):
    """A stream that is about to begin; its fields mean what those of `CallRecord` mean."""

    call_id: bytes
    at_ns: int
    principal: str
    tenant: str
    model: str
    version: int
    input_commitment: bytes
    nonce: bytes
    trace: bytes = b""


class RefusalSummary(Row, frozen=True, tag="refusals"):
    """Refusals before authentication: how many, from where, why, in which second."""

    second: int
    prefix: str
    reason: str
    count: int


JournalRecord = CallRecord | IntentRecord | RefusalSummary

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
    assert isinstance(record, JournalRecord)
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
