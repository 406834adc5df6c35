"""What a pickle may ask for: the exact names that are harmless, and those known to be dangerous.

Rules.
- A name is allowed exactly (module and name), never by the prefix of a module: numpy.load is in
  NumPy too. Everything else is at least held.
- A name is allowed for a use. Most are allowed as a *name* only (a type that stands in an
  argument); those that may be *called* say with which arguments, where that matters.
- Old spellings (Python 2's `__builtin__`, NumPy 1's `numpy.core`) are rewritten before looking, as
  the loader does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Symbol:
    """A global that a pickle asks its loader to import."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(frozen=True, slots=True)
class Made:
    """What a call returned."""

    by: Symbol


@dataclass(frozen=True, slots=True)
class Opaque:
    """A value that is data (a list, bytes, long text; or a number) and cannot be called."""

    is_number: bool = False


DATA = Opaque()
NUMBER = Opaque(is_number=True)
Value = Symbol | Made | Opaque | str | tuple["Value", ...]
Arguments = tuple[Value, ...] | None  # None: too many to keep, or not a tuple


def rewritten(module: str, name: str) -> Symbol:
    """The symbol under its present name."""
    module = _MODULE_NOW.get(module, module)
    if module.startswith("numpy.core.") or module == "numpy.core":
        module = "numpy._core" + module.removeprefix("numpy.core")
    if module == "builtins":
        name = {"xrange": "range", "unicode": "str", "long": "int"}.get(name, name)
    return Symbol(module, name)


def is_allowed(symbol: Symbol) -> bool:
    """Whether the name itself is harmless to ask for."""
    return symbol in _CALLABLE or symbol.name in _NAMES.get(symbol.module, ())


def is_callable(symbol: Symbol, arguments: Arguments) -> bool:
    """Whether calling an allowed symbol with these arguments is harmless."""
    check = _CALLABLE.get(symbol)
    return check is not None and check(arguments)


def is_dangerous(symbol: Symbol) -> bool:
    """Whether the name is known to run code, reach the system or reach other names."""
    parts = symbol.name.split(".")
    if any(part.startswith("__") and part.endswith("__") for part in parts) and (
        len(parts) > 1 or symbol.module != "builtins"
    ):
        return True
    names = _DANGEROUS_NAMES.get(symbol.module, ())
    if "*" in names or parts[0] in names or parts[-1] in _DANGEROUS_ANYWHERE:
        return True
    head, _, _ = symbol.module.partition(".")
    return head in _DANGEROUS_PACKAGES


def _any(arguments: Arguments) -> bool:
    del arguments
    return True


def _data(arguments: Arguments) -> bool:
    """Data only: no name and no result among the arguments."""
    return arguments is not None and not any(isinstance(each, Symbol | Made) for each in arguments)


def _bytes(arguments: Arguments) -> bool:
    """Text or bytes, also as protocol 2 writes them; a number alone is an allocation."""
    encoded = Made(Symbol("_codecs", "encode"))
    return arguments in ((encoded,), (DATA,)) or (_data(arguments) and arguments != (NUMBER,))


def _latin(arguments: Arguments) -> bool:
    """`(text, "latin1")`: how Python 3 writes bytes for protocol 2."""
    return arguments is not None and len(arguments) == 2 and arguments[1] in ("latin1", "latin-1")


def _plain_base(arguments: Arguments) -> bool:
    """`(class, object, None)`: a new instance without state."""
    return (
        arguments is not None
        and len(arguments) == 3
        and arguments[1] == Symbol("builtins", "object")
    )


def _of_array(arguments: Arguments) -> bool:
    return arguments is not None and arguments[:1] == (Symbol("numpy", "ndarray"),)


def _of_parameter(arguments: Arguments) -> bool:
    return arguments is not None and len(arguments) >= 2


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_CALLABLE: Mapping[Symbol, Callable[[Arguments], bool]] = {
    **{
        Symbol("builtins", name): _data
        for name in ("complex", "range", "slice", "int", "float", "bool", "str")
    },
    **{Symbol("builtins", name): _data for name in ("set", "frozenset", "list", "dict", "tuple")},
    **{Symbol("builtins", name): _bytes for name in ("bytes", "bytearray")},
    Symbol("builtins", "object"): _any,
    Symbol("collections", "OrderedDict"): _data,
    Symbol("collections", "Counter"): _data,
    Symbol("collections", "deque"): _data,
    Symbol("collections", "defaultdict"): _any,
    Symbol("_codecs", "encode"): _latin,
    Symbol("copyreg", "_reconstructor"): _plain_base,
    **{
        Symbol("datetime", name): _any
        for name in ("date", "datetime", "time", "timedelta", "timezone")
    },
    Symbol("decimal", "Decimal"): _data,
    Symbol("fractions", "Fraction"): _data,
    Symbol("numpy", "dtype"): _data,
    Symbol("numpy._core.multiarray", "_reconstruct"): _of_array,
    Symbol("numpy._core.multiarray", "scalar"): _any,
    Symbol("numpy._core.numeric", "_frombuffer"): _any,
    Symbol("torch", "Size"): _data,
    Symbol("torch", "device"): _data,
    Symbol("torch._utils", "_rebuild_tensor"): _any,
    Symbol("torch._utils", "_rebuild_tensor_v2"): _any,
    Symbol("torch._utils", "_rebuild_parameter"): _of_parameter,
    Symbol("torch._utils", "_rebuild_qtensor"): _any,
    Symbol("torch._utils", "_rebuild_sparse_tensor"): _any,
    Symbol("torch._utils", "_rebuild_meta_tensor_no_storage"): _any,
    Symbol("torch.serialization", "_get_layout"): _data,
}

_STORAGES = _words(
    "DoubleStorage FloatStorage HalfStorage BFloat16Storage LongStorage IntStorage ShortStorage "
    "CharStorage ByteStorage BoolStorage ComplexDoubleStorage ComplexFloatStorage QUInt8Storage "
    "QInt8Storage QInt32Storage UntypedStorage TypedStorage"
)
_TORCH_TYPES = _words(
    "float16 float32 float64 bfloat16 half float double int8 int16 int32 int64 uint8 uint16 "
    "uint32 uint64 short int long bool complex32 complex64 complex128 float8_e4m3fn "
    "float8_e5m2 qint8 quint8 qint32 per_tensor_affine per_channel_affine strided sparse_coo"
)
_NUMPY_TYPES = _words(
    "ndarray bool bool_ int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 "
    "float64 complex64 complex128 str_ bytes_ datetime64 timedelta64"
)
_NAMES: Mapping[str, frozenset[str]] = {
    "builtins": frozenset({"NotImplemented", "Ellipsis"}),
    "numpy": _NUMPY_TYPES,
    "torch": _STORAGES | _TORCH_TYPES,
    "torch.storage": frozenset({"UntypedStorage", "TypedStorage"}),
    "torch.cuda": _STORAGES,
    "torch.nn.parameter": frozenset({"Parameter"}),
}

_MODULE_NOW: Mapping[str, str] = {
    "__builtin__": "builtins",
    "exceptions": "builtins",
    "copy_reg": "copyreg",
    "cPickle": "pickle",
    "_pickle": "pickle",
    "commands": "subprocess",
    "UserDict": "collections",
    "_collections": "collections",
    "_datetime": "datetime",
    "_operator": "operator",
    "_functools": "functools",
    "_decimal": "decimal",
}

# Every name of these packages and their submodules.
_DANGEROUS_PACKAGES = _words(
    "os posix nt posixpath ntpath subprocess _posixsubprocess sys shutil socket _socket "
    "socketserver ssl ctypes _ctypes cffi importlib _frozen_importlib imp runpy pty tty "
    "pickle pickletools marshal dill cloudpickle shelve dbm zipimport pkgutil pip ensurepip "
    "venv distutils setuptools pkg_resources code codeop pdb bdb cmd timeit trace cProfile "
    "profile pstats asyncio multiprocessing concurrent threading _thread signal webbrowser "
    "urllib urllib2 urllib3 http httplib ftplib smtplib poplib imaplib telnetlib xmlrpc "
    "requests aiohttp httpx paramiko fabric io _io tempfile fileinput linecache mmap fcntl "
    "resource gc inspect atexit types _testcapi ast dis sqlite3 tarfile zipfile zipapp "
    "doctest unittest test idlelib lib2to3 pydoc antigravity this rlcompleter readline "
    "platform getpass site sysconfig nturl2path winreg _winreg msvcrt _winapi logging "
    "platform weakref jinja2 IPython ipykernel"
)
# These names of these modules.
_DANGEROUS_NAMES: Mapping[str, frozenset[str]] = {
    "builtins": _words(
        "eval exec execfile compile open file getattr setattr delattr hasattr __import__ input "
        "raw_input breakpoint globals locals vars dir help reload apply exit quit map filter "
        "type super memoryview property classmethod staticmethod reduce print license credits"
    ),
    "operator": frozenset({"attrgetter", "methodcaller", "itemgetter", "call", "setitem"}),
    "functools": frozenset({"partial", "partialmethod", "reduce", "singledispatch", "wraps"}),
    "itertools": frozenset({"starmap", "accumulate", "filterfalse", "takewhile", "dropwhile"}),
    "copyreg": frozenset({"add_extension", "pickle", "constructor", "__newobj__"}),
    "_codecs": frozenset({"register", "lookup", "decode", "register_error"}),
    "codecs": frozenset({"open", "register", "lookup", "decode", "encode", "getreader"}),
    "numpy": frozenset({"load", "loadtxt", "genfromtxt", "fromfile", "save", "savez", "memmap"}),
    "numpy.testing._private.utils": frozenset({"*"}),
    "numpy.f2py": frozenset({"*"}),
    "numpy.f2py.capi_maps": frozenset({"*"}),
    "numpy.f2py.crackfortran": frozenset({"*"}),
    "torch": frozenset({"load", "save", "compile"}),
    "torch.hub": frozenset({"*"}),
    "torch.jit": frozenset({"*"}),
    "torch.package": frozenset({"*"}),
    "torch.serialization": frozenset({"load"}),
    "torch.utils.cpp_extension": frozenset({"*"}),
    "torch.utils._config_module": frozenset({"*"}),
    "torch.utils.bottleneck.__main__": frozenset({"*"}),
    "torch.utils.collect_env": frozenset({"*"}),
    "torch.fx.experimental.symbolic_shapes": frozenset({"*"}),
    "joblib": frozenset({"load", "dump"}),
    "joblib.numpy_pickle": frozenset({"load"}),
    "pandas": frozenset({"eval", "read_pickle"}),
}
# Functions that run what they are given, wherever they are re-exported.
_DANGEROUS_ANYWHERE = _words(
    "system popen spawnl spawnv execv execve execl execvp check_output check_call Popen "
    "import_module run_module run_path run_code exec_command read_pickle attrgetter "
    "methodcaller runstring runsource runcode eval_expr"
)
