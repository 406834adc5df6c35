"""Names that may be called, each with the shapes of arguments and state in which that is harmless.

A shape is what some writer of models emits, no more: `_reconstruct` takes NumPy's array classes and
an empty shape, `_codecs.encode` Latin-1 and no other codec, `getattr` a constant of a class and
nothing that could be called.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from modelkeep.scan.symbols_values import Arguments, Made, Map, Opaque, Span, Symbol, Value

Shape = Callable[[Arguments], bool]

LOADS_STORAGE = Symbol("torch.storage", "_load_from_bytes")
PARTIAL = Symbol("functools", "partial")
VECTORIZE = Symbol("numpy", "vectorize")
SCRIPT_OBJECT = Symbol("torch", "ScriptObject")
GETATTR = Symbol("builtins", "getattr")
# What they return is a dictionary, which may be the state of an object.
DICTS = frozenset({
    Symbol("builtins", "dict"), Symbol("collections", "OrderedDict"),
    Symbol("collections", "defaultdict"), Symbol("collections", "Counter"),
    Symbol("_operator", "or_"),
})  # fmt: skip
# What they return is an instance of the class that is their first argument.
MAKERS = frozenset({Symbol("copyreg", "_reconstructor"), Symbol("copyreg", "__newobj__")})
_ENCODE = Symbol("_codecs", "encode")
_DISTRIBUTIONS = frozenset({
    "scipy.stats._continuous_distns", "scipy.stats._discrete_distns",
    "scipy.stats._distn_infrastructure", "scipy.stats._multivariate",
})  # fmt: skip
_METHODS = frozenset({
    "_cdf_single", "_ppf_single", "_entropy", "_mom0_sc", "_mom1_sc", "_nonzero", "_pmf", "_cdf",
})  # fmt: skip
_LAZY_METHODS = frozenset({"_infer_parameters", "_lazy_load_hook"})
# scipy.stats._distn_infrastructure.parse_arg_template, filled in.
_TEMPLATE = re.compile(
    r"\n?def _parse_args\(self, [A-Za-z0-9_, =]*\):\n"
    r"    return \([A-Za-z0-9_, ]*\), [A-Za-z0-9_, ]*\n\n"
    r"def _parse_args_rvs\(self, [A-Za-z0-9_, =]*\):\n"
    r"    return self\._argcheck_rvs\([A-Za-z0-9_, ]*, size=size\)\n\n"
    r"def _parse_args_stats\(self, [A-Za-z0-9_, =]*, moments='mv'\):\n"
    r"    return \([A-Za-z0-9_, ]*\), [A-Za-z0-9_, ]*, moments\n?"
)
_PACKED = re.compile(r"__torch__\.torch\.classes\.quantized\.\w+PackedParamsBase")
_KERAS_MODELS = ("keras.src.models.", "keras.models", "keras.src.engine.")
_RATIO = re.compile(r"-?[0-9]{1,1000}(?:/[0-9]{1,1000})?")
_CONSTANT = re.compile(r"[A-Z][A-Z0-9_]*")
_LEVEL_OF_BASES = frozenset(
    [
        "object",
        "dict",
        "list",
        "tuple",
        "set",
        "frozenset",
        "str",
        "int",
        "float",
        "bytes",
        "bytearray",
        "complex",
    ]
)
# Methods that people give to vectorisers: they take text or numbers and give some back.
_TEXT_METHODS = frozenset(
    {"capitalize", "casefold", "center", "count", "endswith", "expandtabs", "find", "index",
     "isalnum", "isalpha", "isdigit", "islower", "isspace", "isupper", "join", "ljust",
     "lower", "lstrip", "partition", "removeprefix", "removesuffix", "replace", "rfind",
     "rindex", "rjust", "rpartition", "rsplit", "rstrip", "split", "splitlines", "startswith",
     "strip", "swapcase", "title", "upper", "zfill"}
)  # fmt: skip
_PLAIN_METHODS: Mapping[str, frozenset[str]] = {
    "str": _TEXT_METHODS | {"encode"},
    "bytes": _TEXT_METHODS | {"decode", "hex"},
    "int": frozenset({"bit_length", "conjugate", "to_bytes"}),
    "float": frozenset({"hex", "is_integer", "conjugate"}),
    "tuple": frozenset({"count", "index"}),
    "frozenset": frozenset({"union", "intersection", "difference", "issubset", "issuperset"}),
}
_ARRAY_CLASSES = frozenset(
    Symbol(module, name)
    for module, name in (
        ("numpy", "ndarray"),
        ("numpy", "matrix"),
        ("numpy.matrixlib.defmatrix", "matrix"),
        ("numpy", "recarray"),
        ("numpy.rec", "recarray"),
        ("numpy._core.records", "recarray"),
        ("numpy", "memmap"),
        ("numpy._core.memmap", "memmap"),
        ("numpy", "chararray"),
        ("numpy._core.defchararray", "chararray"),
    )
)
_UFUNC_MODULES = frozenset({
    "numpy._core._multiarray_umath", "numpy.core._multiarray_umath", "numpy.core.umath",
    "numpy._core.umath", "numpy", "scipy.special._ufuncs", "scipy.special",
})  # fmt: skip


def _any(arguments: Arguments) -> bool:
    del arguments
    return True


def _never(arguments: Arguments) -> bool:
    del arguments
    return False


def _dtype(arguments: Arguments) -> bool:
    """Text and flags; of records the class of their items."""
    return arguments is not None and not any(
        isinstance(each, Made) or (isinstance(each, Symbol) and each.module != "numpy")
        for each in arguments
    )


def _nothing(arguments: Arguments) -> bool:
    return arguments == ()


def data_only(arguments: Arguments) -> bool:
    """Data only: no name and no result among the arguments."""
    return arguments is not None and not any(isinstance(each, Symbol | Made) for each in arguments)


def _bytes(arguments: Arguments) -> bool:
    """Text or bytes, also as protocol 2 writes them; a number alone is an allocation."""
    if arguments is None or len(arguments) > 2:
        return False
    first = arguments[0] if arguments else ""
    if isinstance(first, Made):
        return first.by == _ENCODE and len(arguments) == 1
    return isinstance(first, str | Span | Opaque) and data_only(arguments)


def _fraction(arguments: Arguments) -> bool:
    """`"1/3"`, or two numbers: with an exponent, a short text is a number of any length."""
    if arguments is None or not 1 <= len(arguments) <= 2:
        return False
    return all(
        isinstance(each, int) or (isinstance(each, str) and _RATIO.fullmatch(each) is not None)
        for each in arguments
    )


def _latin(arguments: Arguments) -> bool:
    """`(text, "latin1")`: how Python 3 writes bytes for protocol 2."""
    return (
        arguments is not None
        and len(arguments) == 2
        and isinstance(arguments[0], str | Span)
        and arguments[1] in ("latin1", "latin-1")
    )


def _plain_base(arguments: Arguments) -> bool:
    """`(class, base, state)`: a new instance of a class over a class that holds data."""
    if arguments is None or len(arguments) != 3:
        return False
    made, base, state = arguments
    return (
        isinstance(made, Symbol)
        and isinstance(base, Symbol)
        and base.module == "builtins"
        and base.name in _LEVEL_OF_BASES
        and not isinstance(state, Symbol | Made)
    )


def _new(arguments: Arguments) -> bool:
    """`(class, ...)`: what the opcode NEWOBJ does."""
    return (
        arguments is not None
        and isinstance(arguments[0] if arguments else None, Symbol)
        and data_only(arguments[1:])
    )


def _of_array(arguments: Arguments) -> bool:
    """`(array class, (0,), b"b")`: an empty array, filled by its state."""
    return (
        arguments is not None
        and len(arguments) == 3
        and arguments[0] in _ARRAY_CLASSES
        and arguments[1] == (0,)
    )


def _of_masked_array(arguments: Arguments) -> bool:
    """`(class, array class, (0,), "b")`: as `_reconstruct`; another shape is an allocation."""
    return arguments is not None and len(arguments) == 4 and arguments[2] == (0,)


def _of_parameter(arguments: Arguments) -> bool:
    return arguments is not None and len(arguments) >= 2


def _of_type(arguments: Arguments) -> bool:
    """`(rebuilder, class, arguments, state)`: torch's tensors of a class of their own."""
    return (
        arguments is not None
        and len(arguments) == 4
        and isinstance(arguments[0], Symbol)
        and arguments[0].module == "torch._utils"
        and arguments[0].name.startswith("_rebuild_")
        and isinstance(arguments[1], Symbol)
    )


def _constant(arguments: Arguments) -> bool:
    """`(class, "NAME")`: a member of an enumeration, as Python 3.11 writes it.

    Or `(distribution, "_cdf_single")` and its kin: what SciPy's discrete ones make faster; or a
    method by which a lazy layer of torch finds out its sizes.
    """
    made, name = arguments if arguments is not None and len(arguments) == 2 else (None, None)
    if not isinstance(name, str):
        return False
    if isinstance(made, Made):
        is_layer = made.by.module.startswith("torch.nn.modules.") and name in _LAZY_METHODS
        return is_layer or (runs_state(made.by) and name in _METHODS)
    if not isinstance(made, Symbol):
        return False
    is_method = made.module == "builtins" and name in _PLAIN_METHODS.get(made.name, ())
    return is_method or _CONSTANT.fullmatch(name) is not None or reads_archive(arguments)


def asked_for(made: Made) -> Symbol | None:
    """The dotted name that `getattr(class, "method")` stands for, which newer protocols write."""
    owner, name = (*(made.arguments or ()), None, None)[:2]
    if made.by != GETATTR or not isinstance(owner, Symbol) or not isinstance(name, str):
        return None
    return Symbol(owner.module, f"{owner.name}.{name}")


def reads_archive(arguments: Arguments) -> bool:
    """`(model class of Keras, "_unpickle_model")`: it reads the archive that it is called with."""
    made, name = arguments if arguments is not None and len(arguments) == 2 else (None, None)
    is_model = isinstance(made, Symbol) and made.module.startswith(_KERAS_MODELS)
    return is_model and name == "_unpickle_model"


def _of_index(arguments: Arguments) -> bool:
    """`(index class of pandas, entries)`: makers of that very class are called with the entries."""
    made = arguments[0] if arguments is not None and len(arguments) == 2 else None
    if not isinstance(made, Symbol) or not made.module.startswith("pandas"):
        return False
    return re.fullmatch(r"[A-Z]\w*Index", made.name) is not None


def _none_type(arguments: Arguments) -> bool:
    """`(None,)`: the class of None has no name to import."""
    return arguments is not None and len(arguments) == 1 and arguments[0] is None


def _keys(arguments: Arguments) -> bool:
    return bool(arguments) and all(isinstance(each, str | int) for each in arguments or ())


def _ufunc(arguments: Arguments) -> bool:
    """`(module of ufuncs, name)`."""
    return (
        arguments is not None
        and len(arguments) == 2
        and arguments[0] in _UFUNC_MODULES
        and isinstance(arguments[1], str)
        and arguments[1].isidentifier()
        and not arguments[1].startswith("_")
    )


def _generator(arguments: Arguments) -> bool:
    """`(name or generator, constructor of NumPy's)`: the second is called with the first."""
    ours = Symbol("numpy.random._pickle", "__bit_generator_ctor")
    return (
        arguments is not None
        and all(each == ours for each in arguments[1:] if not isinstance(each, str))
        and not isinstance(arguments[0] if arguments else None, Symbol)
    )


def _first_call(arguments: Arguments) -> bool:
    """`(function, ...)`: the function is judged as a name; those bound to a shape are not taken."""
    return bool(arguments) and isinstance((arguments or ("",))[0], Symbol)


_BUILTIN_DATA = (
    "len complex range slice int float bool str set frozenset list dict tuple Exception ValueError "
    "TypeError KeyError RuntimeError NotImplementedError IndexError AttributeError UserWarning"
)
_REBUILDERS = (
    "_rebuild_tensor _rebuild_tensor_v2 _rebuild_tensor_v3 _rebuild_qtensor _rebuild_sparse_tensor "
    "_rebuild_sparse_csr_tensor _rebuild_meta_tensor_no_storage _rebuild_nested_tensor "
    "_rebuild_device_tensor_from_numpy _rebuild_device_tensor_from_cpu_tensor "
    "_rebuild_wrapper_subclass"
)
_ANY_CALLS = (
    ("datetime", "date datetime time timedelta timezone"),
    ("collections", "defaultdict OrderedDict"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy._core.numeric", "_frombuffer"),
    ("numpy.random._pickle", "__bit_generator_ctor __randomstate_ctor"),
    ("_operator", "or_"),
    ("torch._utils", _REBUILDERS),
)  # fmt: skip
_DATA_CALLS = (
    ("builtins", _BUILTIN_DATA),
    ("collections", "Counter deque"),
    ("_io", "BytesIO"),
    ("http", "HTTPStatus HTTPMethod"),
    ("decimal", "Decimal"),
    ("ipaddress", "IPv4Address IPv6Address IPv4Network IPv6Network"),
    ("re", "_compile"),
    ("logging", "getLogger"),
    ("zoneinfo", "ZoneInfo._unpickle"),
    ("pytz", "_UTC _p"),
    ("dateutil.tz.tz", "tzutc tzlocal"),
    ("torch", "Size device"),
    ("torch.serialization", "_get_layout"),
    *(
        (module, "Path PosixPath WindowsPath PurePath PurePosixPath PureWindowsPath")
        for module in ("pathlib", "pathlib._local")
    ),
)
# Stand in a list or an argument, and are never called.
_NAMES_ONLY = (
    ("builtins", "NotImplemented Ellipsis"),
    ("zoneinfo", "ZoneInfo"),
    ("__future__", "annotations division print_function absolute_import unicode_literals"),
    ("__future__", "generator_stop with_statement nested_scopes generators"),
    ("collections.abc", "Awaitable Callable Collection Container Generator Hashable ItemsView"),
    ("collections.abc", "Iterable Iterator KeysView Mapping MutableMapping MutableSequence"),
    ("collections.abc", "MutableSet Reversible Sequence Set Sized ValuesView"),
)
# Only in their shape: dangerous as a name, or when somebody else calls them.
_GUARDED: Mapping[Symbol, Shape] = {
    _ENCODE: _latin,
    PARTIAL: _first_call,
    LOADS_STORAGE: lambda arguments: arguments is not None and len(arguments) == 1,
    GETATTR: _constant,
    Symbol("builtins", "type"): _none_type,
    VECTORIZE: _nothing,
    Symbol("operator", "itemgetter"): _keys,
    Symbol("copyreg", "_reconstructor"): _plain_base,
    Symbol("copyreg", "__newobj__"): _new,
    Symbol("numpy._core", "_ufunc_reconstruct"): _ufunc,
    Symbol("numpy._core.multiarray", "_reconstruct"): _of_array,
    Symbol("numpy.random._pickle", "__generator_ctor"): _generator,
    Symbol("torch._tensor", "_rebuild_from_type_v2"): _of_type,
}
CALLS: Mapping[Symbol, Shape] = {
    **{Symbol(module, each): _any for module, names in _ANY_CALLS for each in names.split()},
    **{Symbol(module, each): data_only for module, names in _DATA_CALLS for each in names.split()},
    **{Symbol("builtins", name): _bytes for name in ("bytes", "bytearray")},
    **{Symbol("types", name): _nothing for name in ("SimpleNamespace",)},
    **{Symbol("torch._utils", name): _of_parameter
       for name in ("_rebuild_parameter", "_rebuild_parameter_with_state")},
    Symbol("fractions", "Fraction"): _fraction,
    Symbol("builtins", "object"): _nothing,
    Symbol("numpy", "dtype"): _dtype,
    SCRIPT_OBJECT: _nothing,
    **{Symbol(f"pandas.core.indexes.{each.lower()}s", f"_new_{each}Index"): _of_index
       for each in ("Datetime", "Timedelta")},
    Symbol("pandas.core.indexes.interval", "_new_IntervalIndex"): _of_index,
    Symbol("numpy.ma.core", "_mareconstruct"): _of_masked_array,
    **{Symbol(module, each): _never for module, names in _NAMES_ONLY for each in names.split()},
    **_GUARDED,
}  # fmt: skip


def is_guarded(symbol: Symbol) -> bool:
    """Whether the name is harmless in its shape only, so that nobody else may call it."""
    return symbol in _GUARDED


def passed_on(symbol: Symbol) -> bool:
    """Whether what a call of it returns may be called itself."""
    return symbol in (PARTIAL, GETATTR, Symbol("operator", "itemgetter"))


def is_shared(symbol: Symbol) -> bool:
    """Whether what a call of it returns is everybody's, so that no pickle may give it a state."""
    return symbol in (GETATTR, Symbol("builtins", "type"), Symbol("logging", "getLogger"))


def runs_state(symbol: Symbol) -> bool:
    """Whether the object executes a text of its state: SciPy's distributions do."""
    return symbol.module in _DISTRIBUTIONS


def is_template_state(state: Value) -> bool:
    """A state whose text is the one that SciPy makes, with names and nothing that could call."""
    if not isinstance(state, Map) or state.is_open:
        return False
    text = (state.entries or {}).get("_parse_arg_template")
    return text is None or (isinstance(text, str) and _TEMPLATE.fullmatch(text) is not None)


def is_vectorized_state(state: Value) -> bool:
    """The state of a function that takes arrays: the function is a method of a distribution."""
    if not isinstance(state, Map) or state.is_open:
        return False
    function = (state.entries or {}).get("pyfunc")
    return isinstance(function, Made) and function.by == GETATTR


def is_packed_state(state: Value) -> bool:
    """`(tensors, class)`: packed weights of a quantised layer; any other class of C++ is not it."""
    named = state[1] if isinstance(state, tuple) and len(state) == 2 else None
    return isinstance(named, str) and _PACKED.fullmatch(named) is not None


def is_partial_state(state: Value) -> bool:
    """`(function, arguments, keywords, attributes)`."""
    return (
        isinstance(state, tuple)
        and len(state) == 4
        and isinstance(state[0], Symbol)
        and not is_guarded(state[0])
        and (state[2] is None or (isinstance(state[2], Map) and not state[2].is_open))
    )
