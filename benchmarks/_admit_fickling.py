"""The samples of fickling's own tests, which its source distribution does not carry.

Written anew from what `test/test_bypasses.py`, `test_crashes.py`, `test_pickle.py`, `test_hook.py`,
`test_unpickler.py`, `test_scan_api.py` and the tests of its analyses in its repository say of each.
What they only build to be read and never to be loaded (names that do not exist) is left out.
"""

from __future__ import annotations

import io
import marshal
import pickle
import struct
import tarfile
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import numpy as np
from _admit_assembly import Call, Name, assembled, call, pickled

ECHO = "echo 'stopped by the hook'"
SYSTEM = call("posix:system", ECHO)
SERVERS = (
    ("smtplib:SMTP", 25),
    ("imaplib:IMAP4", 143),
    ("ftplib:FTP", 21),
    ("poplib:POP3", 110),
    ("telnetlib:Telnet", 23),
    ("nntplib:NNTP", 119),
)
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def malicious() -> Iterator[tuple[str, bytes]]:
    """Each dangerous sample: its name and its bytes."""
    for name, value in _calls():
        yield f"{name}.pkl", pickled(value)
    for name, port in SERVERS:
        made = Call(Name(name), ("127.0.0.1", port), {})
        yield f"network-{name.partition(':')[0]}.pkl", pickled(made)
    yield "pty-obj.pkl", assembled("mark", "global:pty:spawn", "string:id", "obj", "stop")
    code = marshal.dumps(compile('import os\nos.system("id")', "<string>", "exec"))
    function = call("types:FunctionType", call("marshal:loads", code), {})
    yield "marshal-and-types.pkl", pickled(Call(function, (), "gottem"))
    obj = ("proto:4", "mark", "text:smtplib", "text:SMTP", "stack_global", "text:127.0.0.1", "obj")
    yield "obj-pop.pkl", assembled(*obj, "pop", "none", "stop")
    yield "obj.pkl", b'(cos\nsystem\nS"whoami"\no.'
    yield "inst.pkl", assembled("mark", "unicode:whoami", "inst:os:system", "stop")
    yield "pop-mark.pkl", _pop_mark()
    yield "frame-boundary.pkl", _frame_boundary()
    yield "stack-global-joined.pkl", _joined()
    yield "payload.pkl", pickled(SYSTEM)
    nested = pickled(call("torch.storage:_load_from_bytes", pickled(SYSTEM)))
    yield "nested.pkl", pickled(call("_pickle:loads", nested))
    yield "payload.npy", pickled(SYSTEM)
    yield "payload.zip", _zipped({"model.pkl": pickled(SYSTEM)})
    yield "payload-among-text.zip", _zipped({"readme.txt": b"x", "model.pkl": pickled(SYSTEM)})
    yield "stacked.pkl", pickle.dumps([1, 2, 3]) + pickled(call("builtins:eval", "7 * 7"))
    for name, run_first in (("injected-first", True), ("injected-last", False)):
        plain, evil = pickle.dumps([1, 2, 3, 4], 2), pickled(call("builtins:eval", "[5]"), 2)[2:-1]
        body = evil + b"0" + plain[2:] if run_first else plain[2:-1] + evil + b"0."
        yield f"{name}.pkl", plain[:2] + body
    yield "laughs-dup.pkl", _laughs(pickle.DUP)
    yield "laughs-memo.pkl", _laughs(b"")


def _calls() -> Iterator[tuple[str, Call]]:
    system, getattr_ = "os:system", "builtins:getattr"
    yield "pty", Call(Name("pty:spawn"), ("id",), "gottem")
    yield "runpy", call("runpy:run_path", "/tmp/malicious.py")  # noqa: S108  # nothing is there
    yield "cprofile", call("cProfile:run", "print('run')")
    library = call("ctypes:CDLL", "libc.so.6")
    yield "ctypes", Call(call(getattr_, library, "system"), (b"id",))
    yield "pydoc", Call(call("pydoc:locate", "os.system"), ("id",))
    yield (
        "importlib",
        Call(call(getattr_, call("importlib:import_module", "os"), "system"), ("id",)),
    )
    interpreter = call("code:InteractiveInterpreter")
    yield "code", Call(call(getattr_, interpreter, "runsource"), ('import os; os.system("id")',))
    spawned = (b"/bin/sh", [b"/bin/sh", b"-c", b"id"], ())
    yield "multiprocessing", call("multiprocessing.util:spawnv_passfds", *spawned)
    imported = call("builtins:__import__", "os")
    yield "import", Call(call(getattr_, imported, "system"), ("whoami",))
    yield "getattr-of-text", call(getattr_, "os", "system")
    yield "eval", call("builtins:eval", "print('hello')")
    yield "eval-lambda", call("builtins:eval", "(lambda:1234)()")
    yield "methodcaller", Call(call("_operator:methodcaller", "system", "echo pwned"), (imported,))
    yield "distutils", call("distutils.file_util:write_file", "malicious.txt", ["content"])
    yield "fileio", call("_io:FileIO", "/etc/passwd")
    yield "getlincoef", call("numpy.f2py.crackfortran:getlincoef", "__import__('os')", {})
    started = ({}, "whoami", True, None, None, None, 0)
    yield "asyncio", call("asyncio.unix_events:_UnixSubprocessTransport._start", *started)
    yield "uuid", call("uuid:_get_command_stdout", "echo", "PROOF")
    yield "aix", call("_aix_support:_read_cmd_output", "echo PROOF")
    yield "osx", call("_osx_support:_find_build_tool", "x; echo INJECTED #")
    yield "dotted", call("pathlib:os.system")
    yield "interpreters", call("_interpreters:create")
    yield "subinterpreters", call("_xxsubinterpreters:create")
    yield "remove-hook", call("fickling.hook:remove_hook")
    yield "deactivate", call("fickling.hook:deactivate_safe_ml_environment")
    yield "system", call(system, ECHO)


def _pop_mark() -> bytes:
    found = ("proto:4", "mark", "text:numpy", "text:poly1d", "stack_global", "memoize")
    more = ("text:numpy", "text:size", "stack_global", "memoize", "text:numpy")
    last = ("text:__builtins__", "stack_global", "memoize", "binget:0", "none", "tuple1", "reduce")
    state = ("memoize", "binget:3", "memoize", "binget:2", "memoize", "binget:4", "mark")
    keys = ("text:shape", "binget:5", "text:db", "binget:1", "binget:4", "text:eval", "tuple2")
    end = ("reduce", "text:__import__('os').system('id')", "tuple1", "reduce", "pop_mark", "none")
    return assembled(*found, *more, *last, *state, *keys, *end, "stop")


def _frame_boundary() -> bytes:
    """A frame that says 2 bytes, in which a text of 263 begins: two readers see two pickles."""
    hidden = assembled("global:os:system", "unicode:echo pwned", "tuple1", "reduce", "mark")
    filler = b"a" * (8192 * 16 - 17)
    head = pickle.PROTO + b"\x05" + pickle.NONE + pickle.UNICODE + filler + b"\n" + pickle.POP
    inner = pickle.BINBYTES + struct.pack("<I", 0x107) + bytes(2) + hidden.ljust(261, pickle.NONE)
    return head + pickle.MARK + pickle.FRAME + struct.pack("<Q", 2) + inner + b"1."


def _joined() -> bytes:
    """Names that are put together from letters, and then asked for."""

    def word(text: str) -> tuple[str, ...]:
        places = [f"binint1:{LETTERS.index(each)}" for each in text]
        picked = ("binget:0", "mark", *places, "tuple", "reduce", f"text:{LETTERS}", "tuple1")
        return ("binget:1", *picked, "reduce", "tuple1", "reduce")

    start = ("proto:4", "global:operator:itemgetter", "binput:0", "pop")
    join = ("global:builtins:getattr", "text:", "text:join", "tuple2", "reduce", "binput:1", "pop")
    called = ("stack_global", "text:id", "tuple1", "reduce", "stop")
    return assembled(*start, *join, *word("os"), *word("system"), *called)


def _laughs(dup: bytes) -> bytes:
    """Ten values, each ten times the one before: little to read, too much to walk."""
    made = pickle.PROTO + b"\x04" + pickle.MARK * 10 + b"\x8c\x03lol"
    for level in range(10):
        made += dup * 9 if dup else pickle.BINPUT + bytes([level]) + (b"h" + bytes([level])) * 9
        made += pickle.LIST
    return made + pickle.STOP


def benign() -> Iterator[tuple[str, bytes]]:
    """Each harmless sample: its name and its bytes."""
    yield "len.pkl", pickled(call("builtins:len", []))
    yield "dict.pkl", pickled(call("builtins:dict"))
    yield (
        "deque.pkl",
        assembled("proto:4", "text:collections", "text:deque", "stack_global", "stop"),
    )
    iterable = ("text:collections.abc", "text:Iterable", "stack_global")
    yield "iterable.pkl", assembled("proto:4", *iterable, "stop")
    yield "ordered.pkl", pickle.dumps(OrderedDict())
    encode = ("text:_codecs", "text:encode", "stack_global")
    yield "encode.pkl", assembled("proto:4", *encode, "stop")
    future = ("text:__future__", "text:annotations", "stack_global")
    yield "future.pkl", assembled("proto:4", *future, "stop")
    values: dict[str, object] = {
        "int": 1234,
        "list": [1, 2, 3, 4, 5],
        "tuple": (1, 2, 3, 4, 5),
        "dict-of-numbers": {"a": 1, "b": 2},
        "text": "abcdefg",
        "bytes": b"abcdefg",
        "mixed": [1, 2, 3, {"key": "value"}],
        "large-bytes": b"x" * 100_000,
        "interleaved": [1, b"y" * 100_000, 2],
        "frames": list(range(200_000)),
        "nested": {"a": [1, 2, {"b": (3, 4)}], "c": [5, 6]},
        "hundred": list(range(100)),
        "decimal": [Decimal(1)],
        "dtype": np.dtype(">i4"),
    }
    for name, value in values.items():
        for protocol in (2, 4, 5):
            yield f"{name}-{protocol}.pkl", pickle.dumps(value, protocol)
    yield "inst-int.pkl", assembled("mark", "unicode:1234", "inst:builtins:int", "stop")
    yield "stacked.pkl", pickle.dumps([1, 2, 3, 4]) + pickle.dumps([5, 6, 7, 8])
    cycle: list[object] = []
    cycle.append(cycle)
    yield "cycle.pkl", pickle.dumps(cycle)
    target = io.BytesIO()
    np.save(target, np.array([1, 2, 3]))
    yield "not_pickle.npy", target.getvalue()
    target = io.BytesIO()
    np.save(target, np.array({"test": [1, 2, 3]}, dtype=object), allow_pickle=True)
    yield "pickle.npy", target.getvalue()
    yield "testzip.zip", _zipped({"pickle.npy": target.getvalue()})
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        info = tarfile.TarInfo("pickle.npy")
        info.size = len(target.getvalue())
        archive.addfile(info, io.BytesIO(target.getvalue()))
    yield "testtar.tar", tar.getvalue()


def damaged() -> Iterator[tuple[str, bytes]]:
    """What is neither: no loader gets through it."""
    yield "mark-missing.pkl", b"\x80\x04t."
    yield "corrupt.pkl", b"\x00\x01\x02\x03corrupt"
    yield (
        "set-of-itself.pkl",
        assembled(*("proto:4", "empty_set", "memoize", "mark", "get:0", "additems", "stop")),
    )
    text = pickle.BINBYTES + struct.pack("<I", 20) + b"A" * 20
    frames = {"bytes": (text, 5), "name": (assembled("global:macos:system"), 4)}
    for name, (body, length) in frames.items():
        head = b"\x80\x05" + pickle.FRAME + struct.pack("<Q", length)
        yield f"straddled-{name}.pkl", head + body + pickle.STOP


def _zipped(members: dict[str, bytes]) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name, raw in members.items():
            archive.writestr(name, raw)
    return target.getvalue()


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
