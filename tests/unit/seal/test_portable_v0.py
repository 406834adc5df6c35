"""Exports of format v0: what was written is read, and no bytes cost more than their length."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.core.artifact import Manifest
from modelkeep.core.errors import IntegrityError
from modelkeep.core.record import to_msgpack
from modelkeep.crypto.secret import Secret
from modelkeep.crypto.signatures import Signer
from modelkeep.kernels.encoding import Encoding, encoded
from modelkeep.seal.envelope import sealed
from modelkeep.seal.portable_v0 import FIRST_LINE, demand_end, read_frame, read_head

ENVELOPE = sealed(
    Manifest(name="m", version=1, kind="onnx", domain="default", admitted_ns=1, files=()),
    signer=Signer(Secret(bytes(32))),
)


def head_bytes(envelope) -> bytes:
    raw = to_msgpack(envelope)
    return FIRST_LINE + len(raw).to_bytes(4, "big") + raw


def frame_head(encoding: Encoding, *, length: int, stored: int) -> bytes:
    return bytes([encoding]) + length.to_bytes(4, "big") + stored.to_bytes(4, "big")


def frame(plain: bytes, dtype: str = "") -> bytes:
    encoding, payload = encoded(memoryview(plain), dtype=dtype)
    return frame_head(encoding, length=len(plain), stored=len(payload)) + bytes(payload)


@given(st.lists(st.binary(min_size=1, max_size=300) | st.just(bytes(5000)), max_size=4))
def test_what_was_written_is_read(chunks):
    read = io.BytesIO(head_bytes(ENVELOPE) + b"".join(map(frame, chunks))).read
    assert read_head(read) == ENVELOPE
    for chunk in chunks:
        found = read_frame(read, length_max=len(chunk))
        target = bytearray(found.length)
        found.decode_into(memoryview(target))
        assert target == chunk
    demand_end(read)


@given(st.binary(max_size=200), st.integers(0, 100))
def test_no_bytes_are_anything_but_a_frame_or_an_error_of_ours(raw, length_max):
    try:
        found = read_frame(io.BytesIO(raw).read, length_max=length_max)
        found.decode_into(memoryview(bytearray(found.length)))
    except IntegrityError as error:
        code = error.code
    else:
        code = "codec." if 0 < found.length <= length_max else ""
    assert code.startswith(("portable.", "codec."))


@given(st.binary(max_size=200))
def test_no_bytes_are_anything_but_a_head_or_an_error_of_ours(raw):
    for bad in (raw, FIRST_LINE + raw):
        with pytest.raises(IntegrityError) as caught:
            read_head(io.BytesIO(bad).read)
        assert caught.value.code in (
            "portable.format",
            "portable.cut",
            "portable.bounds",
            "record.msgpack",
        )


@pytest.mark.parametrize("cut", [1, len(FIRST_LINE) + 2, -1])
def test_a_head_that_is_cut_short_is_no_head(cut):
    with pytest.raises(IntegrityError):
        read_head(io.BytesIO(head_bytes(ENVELOPE)[:cut]).read)


def test_what_needs_another_chunk_is_not_read():
    raw = frame_head(Encoding.DIFFERENCE, length=8, stored=8) + bytes(8)
    with pytest.raises(IntegrityError, match="out of bounds"):
        read_frame(io.BytesIO(raw).read, length_max=8)


def test_a_length_beyond_what_the_file_has_left_is_refused_before_it_is_read():
    raw = frame_head(Encoding.RAW, length=9, stored=9)
    with pytest.raises(IntegrityError, match="out of bounds"):
        read_frame(io.BytesIO(raw).read, length_max=8)


def test_nothing_may_follow():
    with pytest.raises(IntegrityError, match="something follows"):
        demand_end(io.BytesIO(b"x").read)
