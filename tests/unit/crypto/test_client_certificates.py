"""Certificates for clients: any bytes are a certificate, a request, or refused."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.core.errors import UsageError
from modelkeep.crypto.certificates import new_authority
from modelkeep.crypto.client_certificates import given_certificate, issued_certificate

AUTHORITY = new_authority(keep_id="0" * 16, now_ns=time.time_ns())


@given(raw=st.binary(max_size=200), frame=st.sampled_from([b"%b", b"-----BEGIN CERTIFICATE\n%b"]))
def test_any_bytes_are_no_certificate_by_chance(raw, frame):
    with pytest.raises(UsageError):
        given_certificate(frame % raw)
    with pytest.raises(UsageError):
        issued_certificate(
            AUTHORITY, name="x", days=1, now_ns=time.time_ns(), request=(frame % raw) or b"x"
        )


@given(flip=st.integers(min_value=0, max_value=3000))
def test_a_flipped_bit_is_another_certificate_or_none(flip):
    made = issued_certificate(AUTHORITY, name="x", days=1, now_ns=time.time_ns())
    raw = bytearray(made.pem)
    raw[flip % len(raw)] ^= 1
    try:
        found = given_certificate(bytes(raw))
    except UsageError:
        return
    assert found.fingerprint != made.fingerprint or found.pem == made.pem


def test_a_long_name_is_cut_to_what_a_certificate_holds():
    made = issued_certificate(AUTHORITY, name="n" * 200, days=1, now_ns=time.time_ns())
    assert given_certificate(made.pem).fingerprint == made.fingerprint
