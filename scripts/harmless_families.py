"""Families of classes whose pickles hold data: what of them scripts/harmless_names.py writes down.

Rules, one of which decides on each name.

read
    `READ`: somebody read what the loader reaches in it, and the line says what that is.
reached
    A class is taken if nothing that a loader reaches in it acts. A loader reaches the methods of
    `REACHED`, on the class and on what it inherits, and what these call by name or on `self`, three
    steps deep. None of them may call what runs text, imports, opens or loads (`ACTS`).
parsed
    As `reached`, out of the sources of a package that is not imported: a class is taken if it
    descends from one whose methods were read, and has no method of `REACHED` of its own.

Left out, because each acts: `torch.ScriptObject` (any class of C++ gets its state),
`tokenizers.models.BPE` and its kin (arguments are names of files), matplotlib's makers of classes,
and `pandas.core.indexes`' `_new_…` for all but what `modelkeep.scan.symbols_shapes` has a shape for
(they call methods of what they are given).
"""
# ruff: noqa: SIM905 - lists of names

from __future__ import annotations

import ast
import builtins
import importlib
import importlib.util
import inspect
import pkgutil
import re
import sys
import textwrap
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from types import FunctionType
from typing import Any

# Methods that an unpickler calls by itself: the opcodes, then keys of sets and dictionaries.
REACHED = (
    "__new__ __init__ __setstate__ __setattr__ __getattr__ __getattribute__ __setitem__ append "
    "extend add __hash__ __eq__ __del__ __len__ __bool__ __getinitargs__"
).split()
# What is not called on the way: the name of a function or method, wherever it is found.
ACTS = frozenset(
    "eval exec compile open __import__ import_module load loads load_library dlopen CDLL system "
    "popen Popen run check_output call_function getattr_static read_text read_bytes write_text "
    "write_bytes mkdir makedirs remove unlink rmtree rename from_pretrained save_pretrained "
    "urlopen get_class_from_dynamic_module cached_file hf_hub_download torch_load unpickle "
    "from_file fromfile memmap loadtxt genfromtxt read_csv read_pickle sympify connect "
    "socket".split()
)
_DEPTH = 3
# use, module, names; the comment says what a loader reaches.
READ: tuple[tuple[str, str, str], ...] = (
    # Containers: their items lie in their __dict__, and no method of theirs is reached.
    ("object", "collections", "UserDict UserList ChainMap"),
    # __setstate__ hands numbers to the generator of C.
    ("object", "random", "Random"),
    # A call looks a member up by its number.
    ("call", "re", "RegexFlag"),
    # C: makes a type of NumPy's out of a truth value and any object, which it keeps.
    ("call", "numpy._core._internal", "_convert_to_stringdtype_kwargs"),
    # __setstate__ unpacks a tuple; the classes of older versions have none, and parse nothing.
    ("object", "packaging.version", "Version _Version"),
    ("name", "packaging._structures", "Infinity NegativeInfinity"),
    ("object", "packaging._structures", "InfinityType NegativeInfinityType"),
    # Rust: __setstate__ parses JSON into tables; __new__ takes a model and no name of a file.
    ("object", "tokenizers", "Tokenizer Encoding AddedToken"),
    ("object", "tokenizers.models", "Model"),
    # Cython: __setstate__ keeps an array of quaternions; so in each of the places it had.
    ("object", "scipy.spatial.transform._rotation", "Rotation Slerp"),
    ("object", "scipy.spatial.transform.rotation", "Rotation Slerp"),
    ("object", "scipy.spatial.transform._rigid_transform", "RigidTransform"),
    # A dictionary, whose items may be read as attributes.
    ("items", "scipy.optimize._optimize", "OptimizeResult"),
    ("items", "scipy.optimize.optimize", "OptimizeResult"),
    # Its text is judged as that of every distribution: modelkeep.scan.symbols_shapes.
    ("object", "scipy.stats._continuous_distns", "rv_histogram"),
    ("object", "scipy.stats._distn_infrastructure", "rv_sample"),
    # Keeps numbers and flags; the grouper of a time keeps its offset.
    ("object", "pandas.api.typing", "TimeGrouper Grouper"),
    ("object", "pandas.core.resample", "TimeGrouper"),
    ("object", "pandas.core.groupby.grouper", "Grouper"),
    ("object", "pandas", "Grouper"),
    ("name", "pandas", "DatetimeIndex TimedeltaIndex PeriodIndex IntervalIndex"),
    ("name", "pandas.core.indexes.datetimes", "DatetimeIndex"),
    ("name", "pandas.core.indexes.timedeltas", "TimedeltaIndex"),
    ("name", "pandas.core.indexes.period", "PeriodIndex"),
    ("name", "pandas.core.indexes.interval", "IntervalIndex"),
    # Signals of a figure: functions are kept, and called when the user changes something.
    ("object", "matplotlib.cbook", "CallbackRegistry"),
    ("name", "matplotlib.cbook", "_exception_printer"),
    # cls.__new__(cls), of a class that is on the list.
    ("call", "matplotlib.colors", "_create_empty_object_of_class"),
    # A shadow of itself: (function, arguments), called by the user's own code alone.
    ("object", "torch.ao.quantization.observer", "_PartialWrapper"),
)
_SCIPY = (
    "stats._kde stats._multivariate stats._covariance stats._stats_py stats._hypotests "
    "stats._resampling stats._qmc stats._morestats stats._entropy interpolate._rbfinterp "
    "interpolate._rgi interpolate._cubic interpolate._bsplines interpolate._interpolate "
    "interpolate._fitpack2 interpolate._polyint interpolate._ndgriddata interpolate._ndbspline "
    "interpolate._rbf interpolate._bary_rational signal._ltisys spatial._kdtree"
).split()
# Methods that compute and give a table back; `apply`, `eval`, `query`, `pipe`, `agg` and all that
# writes or plots are left out, for they call what they are given or reach the disk.
_TABLE_METHODS = (
    "abs add bfill clip cummax cummin cumprod cumsum diff div divide drop drop_duplicates dropna "
    "explode ffill fillna floordiv head idxmax idxmin infer_objects interpolate isin isna isnull "
    "join kurt kurtosis last max mean median melt merge min mod mode mul multiply nlargest notna "
    "notnull nsmallest nunique pct_change pivot pivot_table pow prod product quantile rank reindex "
    "rename replace reset_index round sample sem set_index shift skew sort_index sort_values "
    "squeeze stack std sub subtract sum swapaxes tail transpose truncate unstack var where"
).split()


def families() -> Iterator[tuple[str, str, str]]:
    """Use, module and name of each."""
    yield from _read()
    yield from _of_exceptions()
    yield from _of_pandas()
    yield from _of_scipy()
    yield from _of_torch()
    yield from _of_transformers()
    yield from _of_matplotlib()


# ---- families ---------------------------------------------------------------------------------


def _read() -> Iterator[tuple[str, str, str]]:
    for use, module, names in READ:
        for name in names.split():
            yield use, module, name


def _of_exceptions() -> Iterator[tuple[str, str, str]]:
    """Errors and warnings of Python: they keep what they are given, and nothing raises them."""
    for name, kind in vars(builtins).items():
        if inspect.isclass(kind) and issubclass(kind, Exception):
            yield "call", "builtins", name


def _of_pandas() -> Iterator[tuple[str, str, str]]:
    """Steps in time (C: numbers, a calendar of NumPy's) and methods as values."""
    offsets = _module("pandas._libs.tslibs.offsets")
    for name, kind in vars(offsets).items() if offsets else ():
        is_step = inspect.isclass(kind) and issubclass(kind, offsets.BaseOffset)
        if is_step and not name.startswith("_"):
            yield "call", "pandas._libs.tslibs.offsets", name
    for module, kind in (
        ("pandas.core.frame", "DataFrame"),
        ("pandas.core.series", "Series"),
        ("pandas.core.generic", "NDFrame"),
        ("pandas.core.base", "IndexOpsMixin"),
    ):
        made = getattr(_module(module), kind, None)
        for name in _TABLE_METHODS:
            method = vars(made).get(name) if made else None
            if callable(method):
                yield "name", module, f"{kind}.{name}"


def _of_scipy() -> Iterator[tuple[str, str, str]]:
    for module in _SCIPY:
        yield from _reached(f"scipy.{module}")
    distance = _module("scipy.spatial.distance")
    for name, thing in vars(distance).items() if distance else ():
        is_ours = isinstance(thing, FunctionType) and thing.__module__ == distance.__name__
        if is_ours and not name.startswith("_") and not _why_not_called(thing):
            yield "name", distance.__name__, name


def _of_torch() -> Iterator[tuple[str, str, str]]:
    if not _module("torch"):
        return
    for package in ("torch.distributions", "torch.ao.nn.quantized", "torch.ao.nn.quantizable",
                    "torch.ao.nn.intrinsic", "torch.ao.nn.qat"):  # fmt: skip
        for module in _modules_in(package):
            if module.rpartition(".")[2] not in ("kl", "constraint_registry", "utils"):
                yield from _reached(module)
    for module in (
        "torch.ao.quantization.observer", "torch.ao.quantization.fake_quantize",
        "torch.ao.quantization.qconfig", "torch.ao.quantization.qconfig_mapping",
        "torch.ao.quantization.stubs", "torch.ao.quantization.quant_type",
        "torch.optim.swa_utils", "torch.nn.utils.weight_norm", "torch.nn.utils.spectral_norm",
        "torch.nn.utils.prune", "torch.nn.utils.parametrize", "torch.nn.utils.parametrizations",
        "torch.distributed.checkpoint.metadata",
    ):  # fmt: skip
        yield from _reached(module)
    yield from (
        each for each in _reached("torch.distributed.checkpoint.filesystem")
        if each[2] in ("_StorageInfo", "_StoragePrefix")
    )  # fmt: skip


def _of_matplotlib() -> Iterator[tuple[str, str, str]]:
    for module, base in (
        ("matplotlib.colors", "Colormap"), ("matplotlib.colors", "Normalize"),
        ("matplotlib.scale", "ScaleBase"), ("matplotlib.scale", "Transform"),
    ):  # fmt: skip
        wanted = getattr(_module(module), base, None)
        for use, place, name in _reached(module):
            kind = getattr(_module(module), name)
            is_open = "Func" in name  # keeps functions of the user's own
            if wanted and issubclass(kind, wanted) and not is_open:
                yield use, place, name


# ---- reached ----------------------------------------------------------------------------------


def _reached(name: str) -> Iterator[tuple[str, str, str]]:
    """The classes that a module defines, as far as nothing in them acts."""
    module = _module(name)
    for each, kind in vars(module).items() if module else ():
        if not inspect.isclass(kind) or kind.__module__ != name or kind.__qualname__ != each:
            continue
        why = why_not(kind)
        if why:
            print(f"  not taken: {name}.{each}: {why}", file=sys.stderr)
            continue
        yield ("call" if issubclass(kind, Enum) else "object"), name, each


def why_not(kind: type) -> str:
    """What a loader would reach in a class that acts; empty for nothing."""
    if issubclass(kind, type):
        return "makes classes"
    for name in REACHED:
        for base in kind.__mro__:
            method = vars(base).get(name)
            method = getattr(method, "__func__", method)  # of staticmethod and classmethod
            if not isinstance(method, FunctionType) or base.__module__ in _BASES:
                continue
            why = _why_not_called(method, kind)
            if why:
                return f"{name}: {why}"
            if name not in ("__new__", "__init__", "__setstate__"):
                break  # the others are not chained
    return ""


_BASES = frozenset({"builtins", "enum", "collections", "collections.abc", "abc", "typing"})


def _why_not_called(method: FunctionType, kind: type | None = None, depth: int = _DEPTH) -> str:
    """What a function calls that acts, as far as its calls can be followed by their names."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(method)))
    except (OSError, TypeError, SyntaxError):
        is_made = method.__code__.co_filename.startswith("<")  # dataclasses, named tuples
        return "" if is_made else "has no source"
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom) and depth == _DEPTH:
            continue
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        name = node.func.id if isinstance(node.func, ast.Name) else name
        if name in ACTS:
            return f"{method.__qualname__} calls {name}"
        target: Any = None
        if isinstance(node.func, ast.Name):
            target = method.__globals__.get(name)
        elif _is_own(node.func):
            target = inspect.getattr_static(kind, name, None) if kind else None
        if isinstance(target, FunctionType) and target is not method and depth:
            is_ours = target.__module__.partition(".")[0] == method.__module__.partition(".")[0]
            why = _why_not_called(target, kind, depth - 1) if is_ours else ""
            if why:
                return why
    return ""


def _is_own(called: ast.expr) -> bool:
    """Whether it is a method of the same object."""
    held = called.value if isinstance(called, ast.Attribute) else None
    return isinstance(held, ast.Name) and held.id in ("self", "cls")


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except Exception:  # noqa: BLE001 - missing, or broken in this environment
        return None


def _modules_in(package: str) -> Iterator[str]:
    found = _module(package)
    if found is None:
        return
    yield package
    for each in pkgutil.walk_packages(found.__path__, f"{package}.", onerror=lambda _: None):
        yield each.name


# ---- parsed -----------------------------------------------------------------------------------


def _of_transformers() -> Iterator[tuple[str, str, str]]:
    """Configurations (data) and the layers and models of torch that are made of them.

    Read: `PreTrainedConfig` and `PreTrainedModel` keep their state as any object and as any module
    do; `BatchEncoding` and `GenerationConfig` keep a dictionary.
    """
    spec = importlib.util.find_spec("transformers")
    if spec is None or spec.origin is None:
        return
    yield "object", "transformers.tokenization_utils_base", "BatchEncoding"
    yield "object", "transformers.generation.configuration_utils", "GenerationConfig"
    yield from _reached("transformers.utils.quantization_config")
    folder = Path(spec.origin).parent
    files = [
        *folder.glob("*.py"), *folder.glob("models/*/*.py"), *folder.glob("generation/*.py"),
        *folder.glob("utils/*.py"),
    ]  # fmt: skip
    parsed = [_Parsed(folder, file) for file in sorted(files)]
    quiet = {(each.module, name) for each in parsed for name in each.classes}
    known: set[tuple[str, str]] = set()
    size = -1
    while size != len(known):  # until nobody else descends from one that is taken
        size = len(known)
        for each in parsed:
            known |= {(each.module, name) for name in each.descending(known, quiet)}
    for module, name in sorted(known):
        if _PLACES.fullmatch(module):
            yield "object", module, name


class _Parsed:
    """One source of transformers: the classes it defines, and where it has other ones from."""

    def __init__(self, folder: Path, file: Path) -> None:
        parts = file.relative_to(folder).with_suffix("").parts
        self.module = ".".join(("transformers", *parts))
        tree = ast.parse(file.read_text("utf-8"))
        self.classes = {
            node.name: node for node in tree.body
            if isinstance(node, ast.ClassDef) and _is_quiet(node)
        }  # fmt: skip
        self._from: dict[str, tuple[str, str]] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                up = self.module.split(".")[: -node.level] if node.level else []
                source = ".".join([*up, *([node.module] if node.module else [])])
                for name in node.names:
                    self._from[name.asname or name.name] = (source, name.name)

    def descending(self, known: set[tuple[str, str]], quiet: set[tuple[str, str]]) -> Iterator[str]:
        """Classes with a base that is known or a root, if all others are quiet too."""
        for name, node in self.classes.items():
            bases = [self._place(ast.unparse(each).partition("[")[0]) for each in node.bases]
            are_taken = [each in known or each[1] in _ROOTS for each in bases]
            if any(are_taken) and all(
                is_taken or each in quiet or each[1] in ("ABC", "Generic", "GenerationMixin")
                for is_taken, each in zip(are_taken, bases, strict=True)
            ):
                yield name

    def _place(self, base: str) -> tuple[str, str]:
        """Where a base is defined; all modules of torch.nn are one root."""
        if re.fullmatch(r"(torch\.)?nn\.[A-Z]\w*", base):
            return "torch.nn", "Module"
        place = self._from.get(base, (self.module, base))
        return ("torch.nn", "Module") if place[0].startswith("torch.nn") else place


_PLACES = re.compile(
    r"transformers\.(?:models\.\w+\.(?:configuration|modeling)_\w+"
    r"|activations|pytorch_utils|modeling_\w+)"
)
_ROOTS = frozenset({"PreTrainedConfig", "PretrainedConfig", "PreTrainedModel", "Module"})


def _is_quiet(node: ast.ClassDef) -> bool:
    """Whether a class has no method of its own that a loader reaches and that was not read."""
    for each in ast.walk(node):
        if isinstance(each, ast.FunctionDef) and each.name in REACHED:
            called = {
                ast.unparse(call.func).rpartition(".")[2]
                for call in ast.walk(each) if isinstance(call, ast.Call)
            }  # fmt: skip
            if each.name != "__init__" or called & ACTS:
                return False
    return True
