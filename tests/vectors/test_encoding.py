"""Golden encodings: what one version wrote, every later one reads, and it writes the same."""

import base64
import json
import runpy
from pathlib import Path

import blake3
import pytest

from modelkeep.kernels import native
from modelkeep.kernels.encoding import Encoding, decode_into, encoded

FOLDER = Path(__file__).parent / "encoding"
VECTORS = json.loads((FOLDER / "vectors.json").read_text(encoding="utf-8"))
CASES = runpy.run_path(str(FOLDER / "generate.py"))["cases"]()


def is_said(field, raw):
    if field.startswith("blake3:"):
        return field == "blake3:" + blake3.blake3(raw).hexdigest()
    return base64.b64decode(field) == raw


@pytest.fixture(params=["native", "python"], autouse=True)
def _either_way(request, monkeypatch):
    if request.param == "python":
        monkeypatch.setattr(native, "LIBRARY", None)
    elif native.LIBRARY is None:
        pytest.skip("the kernels in C are not built")


def test_there_is_a_vector_for_every_encoding():
    assert set(VECTORS) == set(CASES)
    assert {each["encoding"] for each in VECTORS.values()} == {each.name for each in Encoding}


@pytest.mark.parametrize("name", sorted(VECTORS))
def test_what_was_written_is_read(name):
    field, (_, plain, base) = VECTORS[name], CASES[name]
    base = None if base is None else memoryview(base)
    if field["payload"].startswith("blake3:"):
        _, payload = encoded(memoryview(plain), dtype=field["dtype"], base=base)
    else:
        payload = base64.b64decode(field["payload"])
    target = bytearray(len(plain))
    decode_into(Encoding[field["encoding"]], memoryview(payload), memoryview(target), base=base)
    assert is_said(field["plain"], target)


@pytest.mark.parametrize("name", sorted(VECTORS))
def test_what_is_written_is_what_was_written(name):
    field, (dtype, plain, base) = VECTORS[name], CASES[name]
    base = None if base is None else memoryview(base)
    encoding, payload = encoded(memoryview(plain), dtype=dtype, base=base)
    assert encoding.name == field["encoding"]
    if encoding != Encoding.ZSTD:  # its bytes are the library's, and may change with it
        assert is_said(field["payload"], bytes(payload))
