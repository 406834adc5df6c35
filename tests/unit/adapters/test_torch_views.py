"""Torch views: PyTorch reads the mapped file itself. Needs PyTorch, which is optional."""

import math
import os
import signal
import subprocess
import sys

import pytest
from mapped_files import mapped, safetensors_file

from modelkeep.adapters.memory_file import sealed_bytes
from modelkeep.adapters.torch_views import torch_tensors
from modelkeep.core.errors import UnavailableError
from modelkeep.kernels.tensors import tensor_entries

TYPES = {
    "BOOL": ("bool", 1),
    "U8": ("uint8", 1),
    "I8": ("int8", 1),
    "U16": ("uint16", 2),
    "I16": ("int16", 2),
    "U32": ("uint32", 4),
    "I32": ("int32", 4),
    "U64": ("uint64", 8),
    "I64": ("int64", 8),
    "F16": ("float16", 2),
    "BF16": ("bfloat16", 2),
    "F32": ("float32", 4),
    "F64": ("float64", 8),
    "F8_E4M3": ("float8_e4m3fn", 1),
    "F8_E5M2": ("float8_e5m2", 1),
    "F8_E8M0": ("float8_e8m0fnu", 1),
    "C64": ("complex64", 8),
}


def loaded(tensors):
    raw = mapped(safetensors_file(tensors))
    entries = tensor_entries("m.safetensors", raw, "safetensors")
    return entries, torch_tensors(raw, entries)


def torch():
    return pytest.importorskip("torch", reason="PyTorch is not installed")


@pytest.mark.parametrize("shape", [(4, 2), (), (8,)])
def test_every_type_is_a_view_of_the_file(shape):
    library = torch()
    count = math.prod(shape)
    made = {name: (name, shape, bytes(count * size)) for name, (_, size) in TYPES.items()}
    # Widest first, so that all are aligned.
    entries, found = loaded(dict(sorted(made.items(), key=lambda each: -TYPES[each[0]][1])))
    first = entries[0]
    start = found[first.name].data_ptr() - first.offset
    for each in entries:
        tensor = found[each.name]
        assert tensor.dtype == getattr(library, TYPES[each.name][0])
        assert tuple(tensor.shape) == shape
        assert tensor.data_ptr() - start == each.offset


def test_values_are_those_of_the_file():
    library = torch()
    wanted = library.arange(6, dtype=library.bfloat16).reshape(2, 3)
    raw = bytes(wanted.view(library.uint8).numpy().tobytes())
    _, found = loaded({"w": ("BF16", (2, 3), raw)})
    assert library.equal(found["w"], wanted)


def test_only_what_is_not_aligned_is_copied():
    torch()
    entries, found = loaded({"a": ("U8", (1,), b"a"), "odd": ("F32", (1,), b"\0\0\x80\x3f")})
    places = {each.name: each.offset for each in entries}
    assert found["odd"].tolist() == [1.0]
    assert found["odd"].data_ptr() % 4 == 0
    assert found["odd"].data_ptr() - found["a"].data_ptr() != places["odd"] - places["a"]


def test_what_has_no_elements_or_no_type_comes_too():
    library = torch()
    _, found = loaded({"none": ("F64", (0, 7), b""), "four": ("F4", (8,), b"abcd")})
    assert tuple(found["none"].shape) == (0, 7)
    assert (found["four"].dtype, bytes(found["four"].tolist())) == (library.uint8, b"abcd")


WRITER = """
import mmap, sys
from modelkeep.adapters.torch_views import torch_tensors
from modelkeep.kernels.tensors import tensor_entries
raw = memoryview(mmap.mmap(int(sys.argv[1]), 0, prot=mmap.PROT_READ))
found = torch_tensors(raw, tensor_entries("m.safetensors", raw, "safetensors"))
print(float(found["w"].sum()), flush=True)
found["w"][0] = 1
print("written", flush=True)
"""


@pytest.mark.slow
def test_a_write_ends_the_process_and_changes_nothing():
    torch()
    raw = safetensors_file({"w": ("F32", (2,), bytes(8))})
    fd = sealed_bytes("test", raw)
    done = subprocess.run(
        [sys.executable, "-c", WRITER, str(fd)],
        pass_fds=[fd],
        stdout=subprocess.PIPE,
        check=False,
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert (done.returncode, done.stdout) == (-signal.SIGSEGV, b"0.0\n")
    assert os.pread(fd, len(raw) + 1, 0) == raw
    os.close(fd)


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UnavailableError) as error:
        torch_tensors(memoryview(b""), ())
    assert error.value.code == "torch.missing"
