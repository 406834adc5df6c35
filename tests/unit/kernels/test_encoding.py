"""Encodings of chunks: lossless, small, the same in C and Python, and hard to hurt."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.core.errors import IntegrityError
from modelkeep.kernels import encoding as encodings
from modelkeep.kernels import native
from modelkeep.kernels.encoding import Encoding, decode_into, encoded, sampled_cost

DTYPES = ["", "RAW", "UINT8", "INT16", "INT32", "INT64", "BF16", "FP16", "FP32", "FP64"]
needs_native = pytest.mark.skipif(native.LIBRARY is None, reason="the kernels in C are not built")


def in_python(function, *arguments, **named):
    """The same call, without the library."""
    library, native.LIBRARY = native.LIBRARY, None
    try:
        return function(*arguments, **named)
    finally:
        native.LIBRARY = library


def decoded(encoding, payload, length, base=None):
    target = bytearray(length)
    view = None if base is None else memoryview(base)
    decode_into(encoding, memoryview(payload), memoryview(target), base=view)
    return bytes(target)


def bf16(values):
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def weights(count, seed=1, sigma=0.02):
    return np.random.default_rng(seed).standard_normal(count) * sigma


@st.composite
def chunks(draw):
    """A chunk with some structure, and perhaps a base that it resembles."""
    dtype = draw(st.sampled_from(DTYPES))
    count = draw(st.integers(0, 3000))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    scale = draw(st.sampled_from([0, 1e-3, 1, 1e4]))
    values = rng.standard_normal(count) * scale
    kind = {"FP16": "<f2", "FP32": "<f4", "FP64": "<f8"}.get(dtype)
    with np.errstate(over="ignore"):
        if dtype == "BF16":
            plain = bf16(values).tobytes()
        elif kind:
            plain = values.astype(kind).tobytes()
        else:
            plain = values.astype(np.int64).astype("<i2").tobytes()
    plain += draw(st.binary(max_size=9))
    base = None
    if draw(st.booleans()):
        changed = bytearray(plain)
        for _ in range(draw(st.integers(0, 40)) if plain else 0):
            changed[int(rng.integers(len(plain)))] = int(rng.integers(256))
        base = bytes(changed)
    return dtype, plain, base


def forced(encoding, dtype, plain, base):
    """The payload that an encoding gives, chosen or not."""
    number = encodings._FORM_BY_DTYPE.get(dtype, 0)
    raw = np.frombuffer(plain, np.uint8)
    other = None if base is None else np.frombuffer(base, np.uint8)
    if encoding == Encoding.DIFFERENCE:
        return encodings._difference(raw, other, number)
    return encodings._planes(raw, other if encoding == Encoding.XOR else None, number)


def payloads(case):
    dtype, plain, base = case
    yield Encoding.PLANES, forced(Encoding.PLANES, dtype, plain, None)
    if base is not None:
        yield Encoding.XOR, forced(Encoding.XOR, dtype, plain, base)
        form = encodings._FORMS[encodings._FORM_BY_DTYPE.get(dtype, 0)]
        if len(plain) >= form.element_bytes:
            yield Encoding.DIFFERENCE, forced(Encoding.DIFFERENCE, dtype, plain, base)


@given(chunks())
def test_whatever_is_encoded_comes_back(case):
    dtype, plain, base = case
    view = None if base is None else memoryview(base)
    encoding, payload = encoded(memoryview(plain), dtype=dtype, base=view)
    assert len(payload) <= len(plain)
    assert decoded(encoding, payload, len(plain), base) == plain
    for each, coded in payloads(case):
        assert decoded(each, coded, len(plain), base) == plain


@needs_native
@given(chunks())
def test_c_and_python_write_the_same_and_read_each_other(case):
    _, plain, base = case
    for (encoding, coded), (_, other) in zip(
        payloads(case), in_python(lambda: list(payloads(case))), strict=True
    ):
        assert coded == other
        assert in_python(decoded, encoding, coded, len(plain), base) == plain


@needs_native
def test_c_and_python_agree_on_many_blocks():
    base = bf16(weights(2**18 + 77_777))
    plain = bf16(weights(base.size, 2, 0.0002) + weights(base.size)).tobytes()
    case = ("BF16", plain, base.tobytes())
    for (encoding, coded), (_, other) in zip(
        payloads(case), in_python(lambda: list(payloads(case))), strict=True
    ):
        assert coded == other
        assert in_python(decoded, encoding, coded, len(plain), base.tobytes()) == plain


@st.composite
def damaged(draw):
    """A payload that somebody changed: bits, pieces, its length; or never a payload at all."""
    case = draw(chunks())
    encoding, payload = draw(st.sampled_from([*payloads(case)]))
    changed = bytearray(payload)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(changed)))
        what = draw(st.sampled_from(["set", "cut", "insert", "remove"]))
        if what == "set" and at < len(changed):
            changed[at] = draw(st.integers(0, 255))
        elif what == "cut":
            del changed[at:]
        elif what == "insert":
            changed[at:at] = draw(st.binary(max_size=200))
        else:
            del changed[at : at + draw(st.integers(1, 50))]
    length = len(case[1]) + draw(st.sampled_from([0, 0, 0, 0, 1, -1, 8, 1000]))
    return encoding, bytes(changed), max(length, 0), case[2]


def outcome(encoding, payload, length, base):
    try:
        fitting = None if base is None else (base + bytes(1000))[:length]
        return decoded(encoding, payload, length, fitting)
    except IntegrityError as error:
        return error.code.partition(".")[0]


@pytest.mark.verify("codecs")
@given(damaged())
def test_a_damaged_payload_is_refused_or_decodes_alike_in_c_and_python(case):
    assert outcome(*case) == in_python(outcome, *case)


@pytest.mark.verify("codecs")
@given(st.sampled_from([*Encoding]), st.binary(max_size=400), st.integers(0, 3000))
def test_no_bytes_make_the_decoder_fail_otherwise(encoding, payload, length):
    assert outcome(encoding, payload, length, bytes(length)) == in_python(
        outcome, encoding, payload, length, bytes(length)
    )


def test_a_cut_or_longer_payload_is_refused():
    base = bf16(weights(4000)).tobytes()
    plain = bf16(weights(4000) + weights(4000, 2, 0.0002)).tobytes()
    for encoding, payload in payloads(("BF16", plain, base)):
        for other in (payload[:-1], payload + b"\0", payload[:5], b""):
            with pytest.raises(IntegrityError):
                decoded(encoding, other, len(plain), base)


def test_a_difference_without_a_fitting_base_is_refused():
    for base in (None, b"", bytes(99)):
        with pytest.raises(IntegrityError, match=r"codec\.base"):
            decoded(Encoding.XOR, b"\0\1\0", 100, base)


def test_a_compressed_chunk_that_claims_another_length_is_not_unpacked():
    encoding, payload = encoded(memoryview(b"all the same " * 99), dtype="")
    assert encoding == Encoding.ZSTD
    for length in (0, 99, 5000):
        with pytest.raises(IntegrityError, match=r"codec\.zstd"):
            decoded(encoding, payload, length)
    with pytest.raises(IntegrityError, match=r"codec\.zstd"):
        decoded(encoding, bytes(payload) + b"\0", 13 * 99)


def test_a_chunk_longer_than_any_is_refused():
    with pytest.raises(IntegrityError, match=r"codec\.length"):
        decode_into(Encoding.RAW, memoryview(b""), memoryview(bytearray(2**24 + 1)))


# ---- how small -------------------------------------------------------------------------------


def ratio(plain, dtype, base=None):
    raw = memoryview(plain.tobytes())
    other = None if base is None else memoryview(base.tobytes())
    return len(encoded(raw, dtype=dtype, base=other)[1]) / len(raw)


@needs_native
def test_weights_take_what_their_exponents_and_mantissas_tell():
    assert ratio(bf16(weights(2**20)), "BF16") < 0.665
    assert ratio(weights(2**20).astype(np.float32), "FP32") < 0.835


@needs_native
@pytest.mark.parametrize(("delta", "most"), [(0.001, 0.07), (0.005, 0.19), (0.02, 0.32)])
def test_a_fine_tune_takes_less_than_its_difference_alone_would(delta, most):
    base = bf16(weights(2**20))
    values = (base.astype(np.uint32) << 16).view(np.float32)
    tuned = bf16(values + weights(2**20, 2, 0.02 * delta))
    assert ratio(tuned, "BF16", base) < most


@needs_native
def test_a_base_that_is_none_costs_nothing():
    plain, stranger = bf16(weights(2**19)), bf16(weights(2**19, 2))
    assert ratio(plain, "BF16", stranger) == ratio(plain, "BF16")


def test_noise_stays_as_it_is_and_zeros_become_nothing():
    noise = memoryview(np.random.default_rng(1).bytes(2**16))
    assert encoded(noise, dtype="FP32") == (Encoding.RAW, noise)
    assert len(encoded(memoryview(bytes(2**16)), dtype="FP32")[1]) < 20


@needs_native
def test_the_sampled_cost_is_about_the_real_one_and_of_the_same_order():
    base = bf16(weights(2**20))
    values = (base.astype(np.uint32) << 16).view(np.float32)
    costs = []
    for delta in (0.0, 0.0005, 0.002, 0.01, 0.05):
        tuned = bf16(values + weights(2**20, 2, 0.02 * delta))
        cost = sampled_cost(
            memoryview(tuned).cast("B"), dtype="BF16", base=memoryview(base).cast("B")
        )
        assert abs(cost - ratio(tuned, "BF16", base)) < 0.02
        costs.append(cost)
    assert all(one < other for one, other in itertools.pairwise(costs))
