"""The record of a call: round trips, and the networks that refusals are counted under."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.core.call_record import (
    CallRecord,
    RefusalSummary,
    address_prefix,
    decoded_record,
    encoded_record,
)
from modelkeep.core.errors import IntegrityError

RECORD = CallRecord(b"i" * 8, 1, "anna", "acme", "digits", 1, 200, "", b"a" * 32, b"b" * 32, 7, b"")


@pytest.mark.parametrize("record", [RECORD, RefusalSummary(1, "10.0.0.0/24", "auth.missing", 3)])
def test_records_round_trip(record):
    assert decoded_record(encoded_record(record)) == record


@given(st.binary(max_size=100))
def test_other_bytes_are_an_integrity_error(raw):
    code = "record.msgpack"
    try:
        decoded_record(raw)
    except IntegrityError as error:
        code = error.code
    assert code == "record.msgpack"


@pytest.mark.parametrize(
    ("address", "prefix"),
    [
        ("10.1.2.3", "10.1.2.0/24"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:10.1.2.3", "10.1.2.0/24"),
        ("nonsense", "others"),
        ("", "others"),
    ],
)
def test_addresses_are_counted_by_network(address, prefix):
    assert address_prefix(address) == prefix
