"""Unit tests of scan.tensors: safetensors and NumPy files keep what their headers say."""

import io
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelkeep.core.verdict import Decision, judged
from modelkeep.scan.rules import findings_of
from modelkeep.scan.settings import ScanSettings

SETTINGS = ScanSettings()


def npy(array, **options):
    file = io.BytesIO()
    np.lib.format.write_array(file, array, **options)
    return file.getvalue()


def with_header(text, data=b""):
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode() + data


def verdict(raw, name="a.npy", settings=SETTINGS):
    return judged(findings_of(name, raw, settings))


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=">i2").reshape(2, 3),
        np.zeros((0, 3)),
        np.float32(1.5),
        np.array(["a", "bcd"]),
        np.array([b"a"], dtype="S5"),
        np.array(["2020-01-01"], dtype="M8[D]"),
        np.asfortranarray(np.ones((2, 2), complex)),
        np.zeros(2, dtype=[("x", "<f4"), ("y", "<i8", (2,))]),
        np.array([None, 1], dtype=object),
    ],
)
@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_arrays_that_numpy_writes_pass(array, version):
    found = verdict(npy(np.asanyarray(array), version=version))
    assert found.decision is Decision.ALLOW


@pytest.mark.parametrize(
    "raw",
    [
        npy(np.arange(4))[:-1],
        npy(np.arange(4)) + b"x",
        npy(np.arange(4))[:9],
        b"\x93NUMPY\x09\x00",
        with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (1 << 40,), }"),
        with_header("{'descr': '<f4', 'fortran_order': False, 'shape': __import__('os'), }"),
        with_header("{'descr': '<q7', 'fortran_order': False, 'shape': (1,), }", bytes(7)),
        with_header("not a header at all"),
        with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (" + "9," * 99 + ")}"),
    ],
)
def test_arrays_that_lie_are_denied(raw):
    assert verdict(raw).decision is Decision.DENY


def test_a_header_is_denied_one_byte_past_the_bound():
    raw = npy(np.arange(4))
    length = struct.unpack_from("<H", raw, 8)[0]
    assert verdict(raw, settings=ScanSettings(array_header_bytes_max=length)).findings == ()
    found = verdict(raw, settings=ScanSettings(array_header_bytes_max=length - 1))
    assert found.decision is Decision.DENY


def test_a_lying_safetensors_file_is_denied_by_its_own_rule():
    header = b'{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}'
    raw = len(header).to_bytes(8, "little") + header + b"12"
    assert verdict(raw, "m.safetensors").findings == ()
    (finding,) = verdict(raw + b"3", "m.safetensors").findings
    assert finding.rule == "scan.tensors.hole"
    for cut in range(len(raw)):
        assert verdict(raw[:cut], "m.safetensors").decision is Decision.DENY


@given(st.binary(max_size=80), st.integers(0, 140))
@settings(deadline=None, max_examples=200)
def test_no_bytes_make_the_judge_of_tensors_raise(noise, at):
    for base in (npy(np.array([None, 1], dtype=object)), b"\x20" + bytes(7) + b'{"a":{}}'):
        findings_of("x", base[:at] + noise + base[at + len(noise) :], SETTINGS)
