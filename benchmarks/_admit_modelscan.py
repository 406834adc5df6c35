"""The pickles of modelscan's own tests, which its source distribution does not carry.

Written anew from what `tests/test_modelscan.py` and `tests/test_utils.py` of its repository say.
Its Keras and TensorFlow models are made by these libraries (`peers/admit/keras_models.py`).
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from _admit_assembly import Call, Name, assembled, call, pickled
from _admit_picklescan import FLAG, GET, PRINT
from _admit_picklescan import malicious as of_picklescan

SAME = (
    "malicious0.pkl", "malicious3.pkl", "malicious4.pickle", "malicious5.pickle",
    "malicious6.pkl", "malicious7.pkl", "malicious8.pkl", "malicious9.pkl", "malicious11.pkl",
    "malicious1_v0.pkl", "malicious1_v3.pkl", "malicious1_v4.pkl",
    "malicious2_v0.pkl", "malicious2_v3.pkl", "malicious2_v4.pkl", "malicious1.zip",
)  # fmt: skip


def malicious() -> Iterator[tuple[str, bytes]]:
    """Each dangerous sample: its name and its bytes."""
    others = dict(of_picklescan())
    for name in SAME:
        yield name, others[name]
    for protocol in (0, 3, 4):
        yield f"malicious1_v{protocol}.dill", others[f"malicious1_v{protocol}.pkl"]
    printed = 'string:print("Injection running")'
    yield "malicious10.pkl", assembled("mark", printed, "inst:__builtin__:exec", "stop")
    inner = assembled("proto:5", "global:os:system", "unicode:echo pwned!!!", "tuple1", "reduce")
    yield "malicious12.pkl", pickled(call("pickle:loads", inner + pickle.STOP), 3)
    evil = '__import__("os").system("echo pwned!!!")'
    yield "malicious13.pkl", pickled(Call(Name("builtins:eval.__call__"), (evil,)), 4)
    yield "malicious14.pkl", assembled(*FLAG) + b"\n\n\t\t"
    yield "malicious15.pkl", others["malicious15b.pkl"]
    injected = pickled(call("builtins:exec", 'print("Malicious code!")'))[:-1]
    yield "unsafe_numpy.npy", injected + pickle.dumps(np.array([[1, 2, 3], [4, 5, 6]]), 4)[2:]
    yield "unsafe", injected + pickle.dumps({"weights": [1.0, 2.0]}, 4)[2:]
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        system = pickled(call("posix:system", "cat ~/.aws/secrets"), 2)[:-1]
        archive.writestr("unsafe_zip_pytorch/data.pkl", system + pickle.dumps({}, 2)[2:])
        archive.writestr("unsafe_zip_pytorch/version", "3\n")
    yield "unsafe_zip_pytorch.pt", target.getvalue()
    yield "get.pkl", pickled(GET)
    yield "eval.pkl", pickled(PRINT)


def benign() -> Iterator[tuple[str, bytes]]:
    """Each harmless sample: its name and its bytes."""
    for protocol in (0, 3, 4):
        for end in ("pkl", "dill"):
            yield f"benign0_v{protocol}.{end}", pickle.dumps(["a", "b", "c"], protocol)
    target = io.BytesIO()
    np.save(target, np.array([[1, 2, 3], [4, 5, 6]]))
    yield "safe_numpy.npy", target.getvalue()
    yield "password_protected.zip", encrypted_zip()


def encrypted_zip() -> bytes:
    """An archive of one member that nobody can read: its bytes are random, and said to be so."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("test.txt", np.random.default_rng(1).bytes(24))
    raw = bytearray(target.getvalue())
    for signature, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        raw[raw.find(signature) + at] |= 1
    return bytes(raw)


def damaged() -> Iterator[tuple[str, bytes]]:
    """What is neither: no loader takes it for a model."""
    yield "bad_pytorch.pt", b"\x89PNG\r\n\x1a\n"


def write(folder: Path) -> dict[str, tuple[Path, ...]]:
    """Write all of them; the paths by what they are."""
    written = {}
    for kind, made in (("malicious", malicious), ("benign", benign), ("damaged", damaged)):
        place = folder / kind
        place.mkdir(parents=True)
        for name, raw in made():
            (place / name).write_bytes(raw)
        written[kind] = tuple(sorted(place.iterdir()))
    return written
