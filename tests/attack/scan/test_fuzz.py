"""Goal: no bytes make a parser of what comes in fail, hang, or take what memory there is.

Method: small valid files of every format are edited at random (`support/mutations.py`) and given to
the scanner as a whole, and to each reader of the kernels by itself, under a bound on address space
and on processor time. Nothing but a KeepError may come out. A failure names the number of the file:
`mutated(SEEDS[name], number)` makes it again.

A new format is one line in SEEDS; a new reader is one line in READERS. `./run verify fuzz` runs for
an hour, `./run test` for under twenty seconds in all.
"""

import bz2
import functools
import gzip
import io
import json
import lzma
import pickle
import random
import resource
import signal
import tarfile
import time
import zipfile
import zlib
from pathlib import Path

import model_files
import msgspec
import numpy as np
import pytest
import zstandard
from mutations import mutated
from packed_files import data_set, hdf5_beside, matlab, matrix, packed, ubjson, zip_member
from trees import safetensors

from modelkeep.adapters.scan_process import ProcessScanner
from modelkeep.core.errors import KeepError
from modelkeep.flows.scanning import judged_file
from modelkeep.kernels.externals import external_tensors
from modelkeep.kernels.tensors import identify, onnx_layout, tensor_places
from modelkeep.ports.scanner import Unjudged
from modelkeep.scan.settings import ScanSettings
from tests.attack.scan import models

LAYOUTS = Path(__file__).parents[2] / "vectors" / "layouts"
SETTINGS = ScanSettings()
MEMORY_BYTES_MAX = 512 * 1024 * 1024
FILE_S_MAX = 10  # of processor time
CI_S = 13.0
FULL_S = 2 * 3600.0  # two run at once


def zipped(method=zipfile.ZIP_DEFLATED, **members):
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", method) as archive:
        for name, raw in members.items():
            archive.writestr(name.replace("__", "/"), raw)
    return target.getvalue()


def tarred(**members):
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        for name, raw in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(raw)
            archive.addfile(info, io.BytesIO(raw))
    return target.getvalue()


def array(value):
    target = io.BytesIO()
    np.save(target, value, allow_pickle=True)
    return target.getvalue()


@functools.cache
def vector(name):
    return (LAYOUTS / name).read_bytes()


def pickles():
    value = {"a": [1, 2.5, "text", None, (b"x", {3, 4})], "b": np.arange(3), "c": 1 << 70}
    return [
        *(pickle.dumps(value, protocol) for protocol in range(6)),
        b"cos\nsystem\n(S'true'\ntR.",
        b"\x80\x02cbuiltins\ngetattr\n(cos\nU\x06systemtR(U\x04truetR.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.",
        b"\x80\x02\x82\x01(I1\nU\x01xtR}U\x01ksb0.",
    ]


TEMPLATE = "{% for m in messages %}{{ m['role'] + ': ' + m.content | trim }}{% endfor %}"
DOCUMENTS = (
    json.dumps({"chat_template": TEMPLATE, "auto_map": {"AutoModel": "m.Net"}, "v": [1, {"a": 2}]}),
    json.dumps({"_target_": "torch.nn.Linear", "args": {"in": 3}, "trust_remote_code": True}),
    "flavors:\n  python_function:\n    loader_module: mlflow.sklearn\n  a: !!python/name:os.x\n",
    "import os\nprint('hello')\n",
)
BYTES = bytes(range(256))

# One line a format: the name that its files have, and how small valid ones are made.
SEEDS = {
    "model.pkl": pickles,
    "model.joblib": lambda: [zlib.compress(pickles()[2]), gzip.compress(pickles()[3])],
    "model.gz": lambda: [gzip.compress(pickles()[2]), bz2.compress(BYTES), lzma.compress(BYTES)],
    "model.pt": lambda: [vector("checkpoint.pt"), vector("state-2.pt"), vector("script.pt")],
    "model.zip": lambda: [
        zipped(a=BYTES, b__c=pickles()[4]),
        zipped(d=zipped(e=b"x")),
        *(zipped(method, a=pickles()[2]) for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)),
        zip_member("a", zstandard.compress(BYTES), method=93, plain=BYTES),
    ],
    "model.tar": lambda: [tarred(a=BYTES, b=pickles()[2]), tarred(pickle=pickles()[1])],
    "model.npz": lambda: [vector("packed.npz"), vector("stored.npz")],
    "model.npy": lambda: [array(np.arange(6.0)), array(np.array([{"a": 1}, "b"], dtype=object))],
    "model.onnx": lambda: [models.model().SerializeToString(), vector("inline.onnx")],
    "model.safetensors": lambda: [safetensors({"a": np.arange(6.0), "b": np.zeros((2, 3))})],
    "model.gguf": lambda: [
        vector("small.gguf"),
        model_files.gguf((("tokenizer.chat_template", TEMPLATE), ("n", (4, bytes(4))))),
    ],
    "saved_model.pb": lambda: [model_files.saved_model(model_files.node("a", "ReadFile", "b"))],
    "model.h5": lambda: [
        model_files.hdf5(model_files.attribute("model_config", DOCUMENTS[0].encode())),
        model_files.hdf5(*data_set((1 << 10, 1 << 10), 4)),
        hdf5_beside("model_config", DOCUMENTS[0].encode()),
    ],
    "model.ubj": lambda: [ubjson({"learner": {"a": [1, 2.5, None, BYTES], "b": {"c": "text"}}})],
    "model.msgpack": lambda: [
        msgspec.msgpack.encode(
            {"nd": True, "kind": "O", "data": pickles()[2], "v": [1.5, [2, {"a": BYTES}]] * 3}
        ),
        msgspec.msgpack.encode([msgspec.msgpack.Ext(1, pickles()[1]), list(range(300))]),
    ],
    "model.mat": lambda: [matlab(matrix(6), packed(matrix(1, matrix(2, matrix(16)))))],
    "model.xml": lambda: [
        b'<net name="m"><data element_type="f32" shape="4,2" offset="0" size="32"/></net>'
    ],
    "model.keras": lambda: [
        zipped(**{"config.json": DOCUMENTS[0].encode(), "metadata.json": b"{}", "model.h5": b""})
    ],
    "model.tflite": lambda: [model_files.tflite("MyOp")],
    "config.json": lambda: [each.encode() for each in DOCUMENTS],
    "MLmodel": lambda: [each.encode() for each in DOCUMENTS],
    "chat_template.jinja": lambda: [TEMPLATE.encode()],
}


def whole(name, raw):
    """The scanner as an admission asks it."""
    return judged_file(name, memoryview(raw), {name: len(raw), "w.bin": 100}, SETTINGS)


def graph(name, raw):
    """An ONNX graph's layout, and what it keeps outside."""
    external_tensors(name, onnx_layout(memoryview(raw)))


def places(name, raw):
    """Where the tensors of a file lie, as the vault asks."""
    tensor_places(name, memoryview(raw), identify(memoryview(raw)))


# One line a reader: what is called, and the formats whose files it gets.
READERS = {
    "scan": (whole, tuple(SEEDS)),
    "graph": (graph, ("model.onnx",)),
    "places": (
        places,
        ("model.pt", "model.npz", "model.npy", "model.onnx", "model.safetensors", "model.gguf"),
    ),
}
TARGETS = [(reader, name) for reader, (_, names) in READERS.items() for name in names]


class Hangs(BaseException):
    """It took too long: no parser can catch this by accident."""


@pytest.fixture
def bounded():
    """A bound on address space, and one on the processor time of each file."""

    def over(_number, _frame):
        raise Hangs(f"over {FILE_S_MAX} s")

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(
        resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY_BYTES_MAX, hard)
    )
    before = signal.signal(signal.SIGVTALRM, over)
    yield lambda: signal.setitimer(signal.ITIMER_VIRTUAL, FILE_S_MAX)
    signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    signal.signal(signal.SIGVTALRM, before)
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@pytest.mark.verify("fuzz")
@pytest.mark.parametrize(("reader", "name"), TARGETS, ids=str)
def test_no_bytes_make_a_reader_fail_hang_or_fill_memory(reader, name, count, bounded):
    read, _ = READERS[reader]
    seeds = SEEDS[name]()
    ends_s = time.process_time() + count(CI_S, full=FULL_S) / len(TARGETS)
    for seed in seeds:
        read(name, seed) if reader == "scan" else None  # what is whole is read
    number = random.SystemRandom().randrange(1 << 48)
    while time.process_time() < ends_s:
        number += 1
        raw = mutated(seeds, number)
        bounded()
        try:
            read(name, raw)
        except KeepError:
            assert reader != "scan", f"the scanner says findings, no errors: file {number}"
        except BaseException as error:
            raise AssertionError(f"file {number} of {name}: {error!r}") from error


def test_the_locked_in_process_says_of_every_format_what_the_scanner_says_here():
    """What a parser needs was imported and read before: nothing can be opened there."""
    scanner = ProcessScanner()
    files = [Unjudged(name, memoryview(raw)) for name in SEEDS for raw in SEEDS[name]()]
    sizes = {"w.bin": 100, "x.bin": 1}
    there = list(scanner.judge(files, sizes=sizes, settings=SETTINGS))
    scanner.close()
    for file, found in zip(files, there, strict=True):
        assert found == judged_file(file.name, file.raw, sizes, SETTINGS), file.name


def test_a_mutation_is_made_again_by_its_number():
    seeds = SEEDS["model.pkl"]()
    assert [mutated(seeds, n) for n in range(50)] == [mutated(seeds, n) for n in range(50)]
    assert len({mutated(seeds, number) for number in range(200)}) > 150
