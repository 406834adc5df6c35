"""Dangerous files and their benign twins, generated on the spot.

A dangerous pickle is a recipe: given the path of a canary, it makes the bytes of a file that
creates the canary when its natural loader loads it. `LOADERS` holds these loaders as source text:
they run in a process of their own, never in the one that tests.
"""

import bz2
import gzip
import io
import lzma
import pickle
import shutil
import struct
import subprocess
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

LOADERS = """
import bz2, copyreg, gzip, io, lzma, os, pickle, pickletools, sys, zipfile, zlib
import numpy
copyreg.add_extension("builtins", "exec", 77)

class Torch(pickle.Unpickler):
    def persistent_load(self, pid):
        return pid

def twice(file):
    pickle.load(file)
    pickle.load(file)

def torch_zip(path):
    with zipfile.ZipFile(path) as archive:
        name = next(n for n in archive.namelist() if n.endswith("data.pkl"))
        Torch(io.BytesIO(archive.read(name))).load()

def npz(path):
    with numpy.load(path, allow_pickle=True) as held:
        [held[name] for name in held.files]

def joblib(path):
    import joblib
    joblib.load(path)

LOADERS = {
    "pickle": lambda path: pickle.load(open(path, "rb")),
    "twice": lambda path: twice(open(path, "rb")),
    "npy": lambda path: numpy.load(path, allow_pickle=True),
    "npz": npz,
    "torch": torch_zip,
    "gzip": lambda path: pickle.load(gzip.open(path)),
    "bz2": lambda path: pickle.load(bz2.open(path)),
    "xz": lambda path: pickle.load(lzma.open(path)),
    "zlib": lambda path: pickle.loads(zlib.decompress(open(path, "rb").read())),
    "joblib": joblib,
}
for line in sys.stdin.read().splitlines():
    loader, path = line.split(" ", 1)
    try:
        LOADERS[loader](path)
    except BaseException:
        pass
"""


@dataclass(frozen=True)
class Dangerous:
    """A file that acts when it is loaded."""

    name: str
    loader: str
    raw: bytes
    rule: str


class Call:
    """Pickles as a call."""

    def __init__(self, function, *arguments):
        self.function = function
        self.arguments = arguments

    def __reduce__(self):
        return self.function, self.arguments


def calling(module, name, *arguments, protocol=2):
    """A pickle that calls a name which this process need not import."""
    head = b"\x80\x02" if protocol else b""
    body = b"".join(map(text, arguments))
    return head + f"c{module}\n{name}\n(".encode() + body + b"tR."


def text(value):
    raw = value.encode() if isinstance(value, str) else value
    return b"X" + struct.pack("<I", len(raw)) + raw


def short(value):
    return b"\x8c" + bytes([len(value)]) + value.encode()


def touching(canary):
    """Python source, and a shell command, that create the canary."""
    return f"open({str(canary)!r}, 'w')", f"touch {canary}"


def dangerous_pickles(canary):
    """Recipes by name; `canary(name)` is where each has to leave its mark."""
    made = []

    def add(name, raw, rule="scan.pickle.dangerous", loader="pickle", suffix=".pkl"):
        made.append(Dangerous(name + suffix, loader, raw, rule))

    def source(name, suffix=".pkl"):
        return touching(canary(name + suffix))[0]

    for protocol in range(6):
        name = f"reduce-{protocol}"
        add(name, pickle.dumps(Call(exec, source(name)), protocol))
    name = "shell"
    add(name, calling("os", "system", touching(canary(name + ".pkl"))[1]))
    for module, function in (
        ("builtins", "eval"),
        ("__builtin__", "eval"),
        ("cProfile", "run"),
        ("timeit", "timeit"),
        ("numpy.testing._private.utils", "runstring"),
        ("code", "InteractiveInterpreter.runsource"),
    ):
        name = f"{module}-{function}"
        code = source(name)
        if function == "runstring":
            raw = b"\x80\x02c" + f"{module}\n{function}\n(".encode() + text(code) + b"}tR."
        elif function.startswith("Interactive"):
            raw = (
                b"\x80\x04ccode\nInteractiveInterpreter\n)R0"
                + short(module)
                + short(function)
                + b"\x93(ccode\nInteractiveInterpreter\n)R"
                + text(code)
                + b"tR."
            )
        elif function == "timeit":
            raw = calling(module, function, "pass", code)
        else:
            raw = calling(module, function, code)
        add(name, raw)
    for module, function in (("io", "FileIO"), ("_io", "FileIO"), ("builtins", "open")):
        name = f"{module}-{function}"
        add(name, calling(module, function, str(canary(name + ".pkl")), "w"))
    for module, function in (("os", "mkdir"), ("posix", "mkdir"), ("os", "makedirs")):
        name = f"{module}-{function}"
        add(name, calling(module, function, str(canary(name + ".pkl"))))
    name = "logging"
    add(name, calling("logging", "FileHandler", str(canary(name + ".pkl"))))
    name = "copyfile"
    add(name, pickle.dumps(Call(shutil.copyfile, __file__, str(canary(name + ".pkl")))))
    name = "popen"
    add(name, pickle.dumps(Call(subprocess.call, ["touch", str(canary(name + ".pkl"))])))
    made.extend(_odd_opcodes(canary))
    made.extend(_several_and_cut(canary))
    made.extend(_contained(canary))
    return made


def _odd_opcodes(canary):
    """Every way but the usual one to name something and to call it; each gets `exec` its source."""
    named = "scan.pickle.dangerous"
    by_name = b"cbuiltins\nexec\n"
    builtins = b"cbuiltins\n__import__\n" + text("builtins") + b"\x85R"
    for name, rule, before, after in (
        ("inst", named, b"(", b"ibuiltins\nexec\n."),
        ("obj", named, b"(" + by_name, b"o."),
        ("stack-global", named, short("builtins") + short("exec") + b"\x93", b"\x85R."),
        (
            "memo",
            named,
            short("exec") + b"q\x00" + short("builtins") + b"q\x0100h\x01h\x00\x93",
            b"\x85R.",
        ),
        ("text-opcodes", named, b"S'builtins'\nVex\\u0065c\n\x93(", b"tR."),
        ("extension", "scan.pickle.extension", b"\x80\x02\x82\x4d(", b"tR."),
        (
            "computed",
            "scan.pickle.computed",
            b"cbuiltins\nstr\n" + short("builtins") + b"\x85R" + short("exec") + b"\x93",
            b"\x85R.",
        ),
        ("partial", named, b"cfunctools\npartial\n(" + by_name, b"tR)R."),
        (
            "methodcaller",
            named,
            b"coperator\nmethodcaller\n(" + text("exec"),
            b"tR(" + builtins + b"tR.",
        ),
        (
            "attribute-chain",
            named,
            b"\x80\x04" + short("collections") + short("__builtins__.get") + b"\x93"
            + short("exec") + b"\x85R",
            b"\x85R.",
        ),
        (
            "getattr",
            named,
            b"cbuiltins\ngetattr\n(" + builtins + text("exec") + b"tR",
            b"\x85R.",
        ),
        ("double-proto", named, b"\x80\x02\x80\x02" + by_name, b"\x85R."),
        ("no-proto", named, by_name, b"\x85R."),
        (
            "build-on-class",
            "scan.pickle.build",
            b"ccollections\nCounter\nN}" + text("pwned") + b"K\x01s\x86b0" + by_name,
            b"\x85R.",
        ),
    ):  # fmt: skip
        file_name = name + ".pkl"
        raw = before + text(touching(canary(file_name))[0]) + after
        yield Dangerous(file_name, "pickle", raw, rule)
    yield from _by_other_names(canary)


def _by_other_names(canary):
    name = "nested-loads.pkl"
    inner = calling("builtins", "exec", touching(canary(name))[0])
    raw = b"\x80\x03cpickle\nloads\nC" + bytes([len(inner)]) + inner + b"\x85R."
    yield Dangerous(name, "pickle", raw, "scan.pickle.dangerous")
    name = "unknown-name.pkl"
    raw = (
        b"\x80\x04" + short("pathlib") + short("Path.touch") + b"\x93cpathlib\nPath\n"
        + text(str(canary(name))) + b"\x85R\x85R."
    )  # fmt: skip
    yield Dangerous(name, "pickle", raw, "scan.pickle.global")
    name = "savetxt.pkl"
    raw = b"\x80\x02cnumpy\nsavetxt\n(" + text(str(canary(name))) + b"]K\x01atR."
    yield Dangerous(name, "pickle", raw, "scan.pickle.dangerous")


def _several_and_cut(canary):
    def code(name):
        return touching(canary(name))[0]

    name = "cut-after-acting.pkl"
    yield Dangerous(
        name, "pickle", calling("builtins", "exec", code(name))[:-1], "scan.pickle.broken"
    )
    name = "broken-after-acting.pkl"
    raw = calling("builtins", "exec", code(name))[:-1] + b"\xff\xff"
    yield Dangerous(name, "pickle", raw, "scan.pickle.broken")
    name = "second-pickle.pkl"
    raw = pickle.dumps([1, 2]) + calling("builtins", "exec", code(name))
    yield Dangerous(name, "twice", raw, "scan.pickle.dangerous")
    name = "second-pickle-cut.pkl"
    raw = pickle.dumps([1, 2]) + calling("builtins", "exec", code(name))[:-1]
    yield Dangerous(name, "twice", raw, "scan.pickle.broken")
    for name in ("weights.onnx", "weights.safetensors", "notes.txt", "weights"):
        raw = calling("builtins", "exec", code(name), protocol=0)
        yield Dangerous(name, "pickle", raw, "scan.pickle.dangerous")
    name = "polyglot.safetensors"
    yield Dangerous(name, "pickle", polyglot(code(name)), "scan.format.polyglot")


def polyglot(code):
    """A whole, valid safetensors file that is a pickle as well.

    The length of the header begins with an X, which is BINUNICODE: it passes over the first 40
    bytes. It ends inside a text of the metadata, where a chain of SHORT_BINSTRING passes over the
    rest of the header, into the bytes of the tensor.
    """
    payload = b"cbuiltins\nexec\n" + text(code) + b"\x85R."
    skipped = 40
    length = ord("X") + 256 * skipped
    head = b'{"__metadata__":{"x":"'
    size = len(payload)
    tail = b'"},"a":{"dtype":"U8","shape":[%d],"data_offsets":[0,%d]}}' % (size, size)
    before = 5 + skipped - 8 - len(head)
    left = length - len(head) - before
    chain = b""
    while left > 250:
        chain += b"Ud" + b"." * 100
        left -= 102
    first = (left - 4) // 2
    second = left - 4 - first
    if 92 in (first, second):  # a backslash would escape in JSON
        first, second = first - 5, second + 5
    chain += b"U" + bytes([first]) + b"." * first + b"U" + bytes([second]) + b"." * second
    filler = b"." * before + chain
    return length.to_bytes(8, "little") + head + filler[: -len(tail)] + tail + payload


def _contained(canary):
    def payload(name):
        return calling("builtins", "exec", touching(canary(name))[0])

    for suffix, loader, pack in (
        (".gz", "gzip", gzip.compress),
        (".bz2", "bz2", bz2.compress),
        (".xz", "xz", lzma.compress),
        (".z", "zlib", zlib.compress),
        (".joblib", "joblib", zlib.compress),
    ):
        name = "packed" + suffix
        yield Dangerous(name, loader, pack(payload(name)), "scan.pickle.dangerous")
    name = "objects.npy"
    raw = io.BytesIO()
    call = Call(exec, touching(canary(name))[0])
    np.save(raw, np.array([call], dtype=object), allow_pickle=True)
    yield Dangerous(name, "npy", raw.getvalue(), "scan.pickle.dangerous")
    name = "objects.npz"
    raw = io.BytesIO()
    call = Call(exec, touching(canary(name))[0])
    np.savez_compressed(raw, a=np.arange(3), b=np.array([call], dtype=object))
    yield Dangerous(name, "npz", raw.getvalue(), "scan.pickle.dangerous")
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        name = f"torch-{method}.pt"
        raw = torch_zip(payload(name), method)
        yield Dangerous(name, "torch", raw, "scan.pickle.dangerous")


def torch_zip(data_pickle, method=zipfile.ZIP_STORED, storage=bytes(64)):
    return zipped(
        {"m/data.pkl": data_pickle, "m/byteorder": b"little", "m/data/0": storage,
         "m/version": b"3\n"},
        method,
    )  # fmt: skip


def zipped(members, method=zipfile.ZIP_STORED):
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return raw.getvalue()


def state_dict_pickle():
    """What torch writes for `{"w": tensor of 4 x 4}` (protocol 2), without torch."""
    return (
        b"\x80\x02ccollections\nOrderedDict\nq\x00)Rq\x01X\x01\x00\x00\x00wq\x02"
        b"ctorch._utils\n_rebuild_tensor_v2\nq\x03((X\x07\x00\x00\x00storageq\x04"
        b"ctorch\nFloatStorage\nq\x05X\x01\x00\x00\x000q\x06X\x03\x00\x00\x00cpuq\x07K\x10tq\x08Q"
        b"K\x00K\x04K\x04\x86q\tK\x04K\x01\x86q\n\x89h\x00)Rq\x0btq\x0cRq\rs}q\x0eX\t\x00\x00\x00"
        b"_metadataq\x0fh\x00)Rq\x10sb."
    )


def benign_twins():
    """Files of the same shapes that do nothing; every one must be allowed."""
    from collections import OrderedDict  # noqa: PLC0415

    values = {
        "plain": {"a": [1, 2.5, None, True], "b": b"bytes", "c": {"x"}, "d": 1j, "e": (1, (2, 3))},
        "ordered": OrderedDict(a=1),
        "array": np.arange(12, dtype=np.float32).reshape(3, 4),
        "scalar": np.float64(3.0),
        "objects": np.array(["text", None, 3], dtype=object),
        "buffer": bytearray(b"bytes"),
    }
    for name, value in values.items():
        for protocol in range(6):
            raw = pickle.dumps(value, protocol)
            yield f"{name}-{protocol}.pkl", raw
            yield f"{name}-{protocol}", raw
    raw = pickle.dumps(values, 4)
    yield "packed.gz", gzip.compress(raw)
    yield "packed.bz2", bz2.compress(raw)
    yield "packed.xz", lzma.compress(raw)
    yield "packed.joblib", zlib.compress(raw)
    yield "state.pt", torch_zip(state_dict_pickle())
    yield "state-deflated.pt", torch_zip(state_dict_pickle(), zipfile.ZIP_DEFLATED)
    yield (
        "storage-like-a-pickle.pt",
        torch_zip(state_dict_pickle(), storage=b"\x80\x02]" + bytes(61)),
    )
    yield (
        "nested.zip",
        zipped({"inner/m.pt": torch_zip(state_dict_pickle()), "README.md": b"hello"}),
    )
    for name, array in (("a", np.arange(4)), ("b", np.ones(()) > 0), ("c", np.array(["x", "yy"]))):
        file = io.BytesIO()
        np.save(file, array)
        yield f"{name}.npy", file.getvalue()
    file = io.BytesIO()
    np.savez_compressed(file, a=np.zeros(1000), b=np.arange(3))
    yield "arrays.npz", file.getvalue()
    yield "notes.txt", b"cos(x) is a function\nsystem of equations\n"
    yield "config.yaml", b"class: classifier\nlayers: 3\n"
    yield "README.md", b"# A model\n\nIt does things.\n"
    yield "source.md", Path(__file__).read_bytes()
