"""Pickles that name something harmless-looking and call it: Python's library and numeric ones.

Every one is a checkpoint, whose `note` is what a call returns. In its twin the note is the very
same arguments, uncalled.
"""
# ruff: noqa: ARG005 - tables

from __future__ import annotations

from collections.abc import Callable, Iterator

from modelkeep.core.verdict import Decision
from tests.corpus.cases import Case, Family, Harm, Trap, Traps
from tests.corpus.opcodes import (
    applied,
    called,
    integer,
    listed,
    mapped,
    named,
    raw,
    state,
    text,
    tupled,
)

FAMILY = Family("pickle", "pickle", "model.pkl")
Arguments = tuple[bytes, ...]
CODE, WRITE, READ, NETWORK = Harm.CODE, Harm.WRITE, Harm.READ, Harm.NETWORK
_LOCAL = tupled(text("127.0.0.1"), b"K\x09")

# Module, name, what it is given, what it does.
CALLS: tuple[tuple[str, str, Callable[[Trap], Arguments], Harm], ...] = (
    ("os", "system", lambda t: (text(t.command),), CODE),
    ("posix", "system", lambda t: (text(t.command),), CODE),
    ("subprocess", "getoutput", lambda t: (text(t.command),), CODE),
    ("subprocess", "Popen", lambda t: (listed(text("touch"), text(t.new)),), CODE),
    ("builtins", "exec", lambda t: (text(t.code),), CODE),
    ("builtins", "eval", lambda t: (text(t.code),), CODE),
    ("timeit", "timeit", lambda t: (text("0"), text(t.code)), CODE),
    ("cProfile", "run", lambda t: (text(t.code),), CODE),
    ("profile", "run", lambda t: (text(t.code),), CODE),
    ("pydoc", "pipepager", lambda t: (text("x"), text(t.command)), CODE),
    ("imaplib", "IMAP4_stream", lambda t: (text(t.command),), CODE),
    ("uuid", "_get_command_stdout", lambda t: (text("touch"), text(t.new)), CODE),
    ("_osx_support", "_read_output", lambda t: (text(t.command),), CODE),
    ("copy", "_reconstruct",
     lambda t: (b"N", b"N", named("os", "system"), tupled(text(t.command))), CODE),
    ("functools", "reduce",
     lambda t: (named("os", "open"), listed(text(t.new), b"K\x41")), CODE),
    ("numpy.testing._private.utils", "runstring", lambda t: (text(t.code), b"}"), CODE),
    ("numpy.f2py.crackfortran", "getlincoef", lambda t: (text(t.code), b"}"), CODE),
    ("numpy.f2py.crackfortran", "param_eval", lambda t: (text(t.code), b"}", b"}"), CODE),
    ("sympy", "sympify", lambda t: (text(f"__import__('os').system({t.command!r})"),), CODE),
    ("sympy.parsing.sympy_parser", "parse_expr",
     lambda t: (text(f"().__class__.__base__ and __import__('os').system({t.command!r})"),), CODE),
    ("yaml", "unsafe_load",
     lambda t: (text(f"!!python/object/apply:os.system [{t.command!r}]"),), CODE),
    ("site", "addsitedir", lambda t: (text("."),), CODE),
    ("logging.config", "dictConfig",
     lambda t: (mapped(("version", b"K\x01"), ("formatters", mapped(("f", mapped(
         ("()", text("os.system")), ("command", text(t.command))))))),), CODE),
    ("multiprocessing.util", "spawnv_passfds",
     lambda t: (raw(b"/bin/sh"), listed(*map(text, ("sh", "-c", t.command))), tupled()), CODE),
    ("io", "FileIO", lambda t: (text(t.new), text("w")), WRITE),
    ("logging", "FileHandler", lambda t: (text(t.new),), WRITE),
    ("sqlite3", "connect", lambda t: (text(t.new),), WRITE),
    ("zipfile", "ZipFile", lambda t: (text(t.new), text("w")), WRITE),
    ("shutil", "rmtree", lambda t: (text(str(t.folder)),), WRITE),
    ("os", "remove", lambda t: (text(t.secret),), WRITE),
    ("shelve", "open", lambda t: (text(t.new),), WRITE),
    ("venv", "create", lambda t: (text(t.new),), WRITE),
    ("numpy", "savetxt", lambda t: (text(t.new), listed(b"K\x01")), WRITE),
    ("numpy", "memmap", lambda t: (text(t.new), text("u1"), text("w+"), b"K\x00", b"K\x08"), WRITE),
    ("joblib", "dump", lambda t: (listed(b"K\x01"), text(t.new)), WRITE),
    ("scipy.io", "savemat", lambda t: (text(t.new), b"}"), WRITE),
    ("linecache", "getlines", lambda t: (text(t.secret),), READ),
    ("numpy", "fromfile", lambda t: (text(t.secret), text("u1")), READ),
    ("numpy", "loadtxt", lambda t: (text(t.secret),), READ),
    ("numpy.core.records", "fromfile", lambda t: (text(t.secret), text("u1"), b"K\x03"), READ),
    ("sklearn.datasets", "load_svmlight_file", lambda t: (text(t.secret),), READ),
    ("xml.etree.ElementTree", "parse", lambda t: (text(t.secret),), READ),
    ("os", "listdir", lambda t: (text(str(t.folder)),), READ),
    ("glob", "glob", lambda t: (text(str(t.folder) + "/*"),), READ),
    ("socket", "create_connection", lambda t: (_LOCAL,), NETWORK),
    ("ssl", "get_server_certificate", lambda t: (_LOCAL,), NETWORK),
    ("urllib.request", "urlopen", lambda t: (text("http://127.0.0.1:9/"),), NETWORK),
    ("smtplib", "SMTP", lambda t: (text("127.0.0.1"), b"K\x09"), NETWORK),
)  # fmt: skip


def cases(traps: Traps) -> Iterator[Case]:
    """One case for each name; then names that take two steps."""
    for module, name, arguments, harm in CALLS:
        title = f"{module}.{name}"
        trap = traps(f"pickle-{title}")
        given = arguments(trap)
        twin = {"model.pkl": state(tupled(*map(_unnamed, given)))}
        evil = {"model.pkl": state(called(module, name, *given))}
        if name == "addsitedir":  # the file beside it acts only where somebody adds the folder
            path_file = {"x.pth": f"import sys; {trap.code}\n".encode()}
            evil |= path_file
        yield FAMILY.case(title, evil, twin, harm=harm)
    for title, make in _STEPS.items():
        trap = traps(f"pickle-{title}")
        evil_note, twin_note = make(trap)
        yield FAMILY.case(title, state(evil_note), state(twin_note))
    trap = traps("pickle-fetches-a-file")
    url = f"file://{trap.secret}"
    call = called("urllib.request", "urlretrieve", text(url), text("copy"))
    yield FAMILY.case("fetches-a-file", state(call), state(text(url)), harm=READ)
    evil = state(called("numpy", "zeros", tupled(integer(1 << 40))))
    bounded = state(called("builtins", "bytearray", raw(b"abc")))
    bomb = state(called("builtins", "bytearray", integer(1 << 40)))
    yield FAMILY.case("bytearray-of-a-terabyte", bomb, bounded, harm=Harm.MEMORY,
                      wanted=Decision.HOLD)  # fmt: skip
    yield FAMILY.case("numpy-zeros-bomb", evil, state(tupled(integer(1 << 20))), harm=Harm.MEMORY,
                      wanted=Decision.HOLD)  # fmt: skip


def _unnamed(argument: bytes) -> bytes:
    """The same argument with names as text."""
    for module, name in (("os", "system"), ("os", "open")):
        argument = argument.replace(named(module, name), text(f"{module}.{name}"))
    return argument


def _builtin(name: str) -> bytes:
    return named("builtins", name)


# Two steps: what is made first is then called, or calls. (dangerous, twin)
_STEPS: dict[str, Callable[[Trap], tuple[bytes, bytes]]] = {
    # contextvars computes nothing itself; `Context.run` calls its argument
    "contextvars-run": lambda t: (
        called("contextvars", "Context.run", called("contextvars", "Context"),
               named("os", "system"), text(t.command)),
        tupled(text("os"), text("system"), text(t.command)),
    ),
    "partial": lambda t: (
        applied(called("functools", "partial", named("os", "system"), text(t.command))),
        called("functools", "partial", named("numpy", "log1p"), b"K\x01"),
    ),
    # the function arrives in the state, after a harmless constructor
    "partial-by-state": lambda t: (
        applied(called("functools", "partial", named("numpy", "log1p")) + tupled(
            named("os", "system"), tupled(text(t.command)), b"}", b"N") + b"b"),
        called("functools", "partial", named("numpy", "log1p")) + tupled(
            named("numpy", "log1p"), tupled(b"K\x01"), b"}", b"N") + b"b",
    ),
    "methodcaller": lambda t: (
        applied(called("operator", "methodcaller", text("system"), text(t.command)),
                called("importlib", "import_module", text("os"))),
        tupled(text("system"), text(t.command)),
    ),
    "attrgetter": lambda t: (
        applied(applied(called("operator", "attrgetter", text("system")),
                        called("builtins", "__import__", text("os"))), text(t.command)),
        tupled(text("system"), text(t.command)),
    ),
    "getattr-chain": lambda t: (
        applied(called("builtins", "getattr", called("builtins", "__import__", text("os")),
                       text("system")), text(t.command)),
        tupled(text("os"), text("system"), text(t.command)),
    ),
    "dotted-out-of-random": lambda t: (
        called("random", "_os.system", text(t.command)),
        tupled(text("random"), text("_os.system"), text(t.command)),
    ),
    "globals-of-a-class": lambda t: (
        applied(called("operator", "getitem", named("collections", "namedtuple.__builtins__"),
                       text("exec")), text(t.code)),
        tupled(text("namedtuple.__builtins__"), text("exec"), text(t.code)),
    ),
    "starmap-in-a-list": lambda t: (
        applied(_builtin("list"), called("itertools", "starmap", named("os", "system"),
                                         listed(tupled(text(t.command))))),
        applied(_builtin("list"), listed(tupled(text(t.command)))),
    ),
    "map-in-a-set": lambda t: (
        applied(_builtin("set"), called("builtins", "map", _builtin("exec"), listed(text(t.code)))),
        applied(_builtin("set"), listed(text(t.code))),
    ),
    "groupby-in-a-deque": lambda t: (
        called("collections", "deque",
               called("itertools", "groupby", listed(text(t.code)), _builtin("exec"))),
        called("collections", "deque", listed(text(t.code))),
    ),
    "defaultdict-factory": lambda t: (
        called("operator", "getitem", called(
            "collections", "defaultdict",
            called("functools", "partial", named("os", "system"), text(t.command))), text("k")),
        called("collections", "defaultdict", _builtin("list")),
    ),
    "at-exit": lambda t: (
        called("atexit", "register", named("os", "system"), text(t.command)),
        tupled(text("atexit"), text(t.command)),
    ),
    "finalizer": lambda t: (
        called("weakref", "finalize", named("collections", "Counter"), named("os", "system"),
               text(t.command)),
        tupled(named("collections", "Counter"), text(t.command)),
    ),
    "timer": lambda t: (
        called("threading", "Timer.start",
               called("threading", "Timer", b"K\x00", named("os", "system"),
                      listed(text(t.command)))),
        tupled(b"K\x00", listed(text(t.command))),
    ),
    "marshalled-code": lambda t: (
        applied(called("types", "FunctionType", called("marshal", "loads", raw(_compiled(t))),
                       mapped(("__builtins__", called("builtins", "__import__",
                                                      text("builtins")))))),
        tupled(raw(_compiled(t))),
    ),
    "method-of-a-c-library": lambda t: (
        applied(called("builtins", "getattr", called("ctypes", "CDLL", b"N"), text("system")),
                raw(t.command.encode())),
        tupled(text("system"), raw(t.command.encode())),
    ),
    "resolved-name": lambda t: (
        applied(called("pkgutil", "resolve_name", text("os:system")), text(t.command)),
        tupled(text("os:system"), text(t.command)),
    ),
    "located-name": lambda t: (
        applied(called("pydoc", "locate", text("os.system")), text(t.command)),
        tupled(text("os.system"), text(t.command)),
    ),
    "nested-pickle": lambda t: (
        called("_pickle", "loads", raw(state(called("os", "system", text(t.command))))),
        tupled(raw(state(called("os", "system", text(t.command))))),
    ),
    "numpy-vectorize": lambda t: (
        applied(called("numpy", "vectorize", named("os", "system")), text(t.command)),
        tupled(text(t.command)),
    ),
    "numpy-frompyfunc": lambda t: (
        applied(called("numpy", "frompyfunc", named("os", "system"), b"K\x01", b"K\x01"),
                text(t.command)),
        tupled(text(t.command)),
    ),
    "numpy-generator": lambda t: (
        called("numpy.random._pickle", "__generator_ctor", text(t.command), named("os", "system")),
        called("numpy.random._pickle", "__generator_ctor", text("MT19937"),
               named("numpy.random._pickle", "__bit_generator_ctor")),
    ),
    "scipy-distribution": lambda t: (
        named("scipy.stats._continuous_distns", "norm_gen") + b")\x81"
        + mapped(("_parse_arg_template", text(t.code))) + b"b",
        named("scipy.stats._continuous_distns", "norm_gen") + b")\x81"
        + mapped(("name", text(t.code)), ("numargs", b"K\x00"), ("moment_type", b"K\x01"),
                 ("shapes", b"N"),
                 ("_parse_arg_template", text(_TEMPLATE))) + b"b",
    ),
    "joblib-call": lambda t: (
        applied(called("joblib.parallel", "BatchedCalls", listed(tupled(
            named("os", "system"), tupled(text(t.command)), b"}")), tupled(
            called("joblib._parallel_backends", "SequentialBackend"), b"K\x01"))),
        listed(tupled(text(t.command))),
    ),
    "numpy-iterator": lambda t: (
        called("numpy", "fromiter", called("builtins", "map", named("os", "system"),
                                           listed(text(t.command))), text("i8")),
        tupled(listed(text(t.command)), text("i8")),
    ),
    "jinja-template": lambda t: (
        called("jinja2", "Template.render", called("jinja2", "Template", text(
            "{{ lipsum.__globals__['os'].system(" + repr(t.command) + ") }}"))),
        text("{{ bos_token }}" + t.command),
    ),
    "sklearn-parallel": lambda t: (
        applied(called("sklearn.utils.parallel", "_FuncWrapper", named("os", "system"))
                + mapped(("config", b"}"), ("warning_filters", b"]"),
                         ("function", named("os", "system"))) + b"b", text(t.command)),
        tupled(b"}", text(t.command)),
    ),
}  # fmt: skip
_TEMPLATE = """
def _parse_args(self, loc=0, scale=1):
    return (), loc, scale

def _parse_args_rvs(self, loc=0, scale=1, size=None):
    return self._argcheck_rvs( loc, scale, size=size)

def _parse_args_stats(self, loc=0, scale=1, moments='mv'):
    return (), loc, scale, moments
"""


def _compiled(trap: Trap) -> bytes:
    import marshal  # noqa: PLC0415 - writes only

    return marshal.dumps(compile(trap.code, "model", "exec"))
