"""What a pickle may ask for: the exact names that are harmless, and how each may be used.

Rules.
- A name is allowed exactly (module and name), never by the prefix of a module: numpy.load is in
  NumPy too. Everything else is at least held; what is known to be dangerous is denied
  (`modelkeep.scan.symbols_dangerous`).
- A name is allowed for a use: to stand in an argument, to be made an instance of and given data,
  to be called in a shape (`modelkeep.scan.symbols_shapes`). The list of what model libraries write
  is data, `symbols_harmless.txt`, made by `scripts/harmless_names.py` out of the libraries.
- Old spellings (Python 2's, NumPy 1's `numpy.core`, scikit-learn's modules without an underscore)
  are rewritten before looking, as the loader or the library does.
"""

from __future__ import annotations

from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from modelkeep.scan.symbols_dangerous import is_dangerous as _is_dangerous
from modelkeep.scan.symbols_shapes import (
    CALLS,
    DICTS,
    GETATTR,
    LOADS_STORAGE,
    MAKERS,
    PARTIAL,
    SCRIPT_OBJECT,
    VECTORIZE,
    asked_for,
    is_guarded,
    is_packed_state,
    is_partial_state,
    is_shared,
    is_template_state,
    is_vectorized_state,
    passed_on,
    reads_archive,
    runs_state,
)
from modelkeep.scan.symbols_values import Arguments, Made, Symbol, Value

__all__ = [
    "DICTS",
    "GETATTR",
    "LOADS_STORAGE",
    "MAKERS",
    "asked_for",
    "is_allowed",
    "is_callable",
    "is_dangerous",
    "is_guarded",
    "is_risky",
    "is_state",
    "passed_on",
    "reads_archive",
    "rewritten",
    "runs_state",
    "takes_items",
]

# Uses, as the first word of a line of the list.
_NAME, _OBJECT, _ITEMS, _CALL = "name", "object", "items", "call"
_LIST = Path(__file__).with_name("symbols_harmless.txt")
_CONTAINERS = frozenset(
    Symbol(module, name)
    for module, name in (
        ("collections", "OrderedDict"),
        ("collections", "defaultdict"),
        ("collections", "Counter"),
        ("collections", "deque"),
        ("builtins", "dict"),
        ("builtins", "list"),
        ("builtins", "set"),
        ("builtins", "bytearray"),
    )
)
_MODULE_NOW: Mapping[str, str] = {
    "cPickle": "pickle",
    "_pickle": "pickle",
    "_collections": "collections",
    "_datetime": "datetime",
    "_decimal": "decimal",
    "_functools": "functools",
    "_pydatetime": "datetime",
    "_pydecimal": "decimal",
    "numpy.dual": "scipy.linalg",
    "sklearn.externals.joblib.numpy_pickle": "joblib.numpy_pickle",
    "sklearn.externals.joblib.numpy_pickle_compat": "joblib.numpy_pickle_compat",
    "sklearn.tree.tree": "sklearn.tree._classes",
    "sklearn.svm.classes": "sklearn.svm._classes",
    "sklearn.ensemble.gradient_boosting": "sklearn.ensemble._gb",
    "sklearn.cluster.k_means_": "sklearn.cluster._kmeans",
    "sklearn.linear_model.coordinate_descent": "sklearn.linear_model._coordinate_descent",
    "sklearn.covariance.empirical_covariance_": "sklearn.covariance._empirical_covariance",
    "sklearn.neighbors.kd_tree": "sklearn.neighbors._kd_tree",
    "sklearn.neighbors.dist_metrics": "sklearn.metrics._dist_metrics",
    "sklearn.neighbors._dist_metrics": "sklearn.metrics._dist_metrics",
}


@cache
def rewritten(module: str, name: str) -> Symbol:
    """The symbol under its present name."""
    if (module, name) in NAME_MAPPING:
        module, name = NAME_MAPPING[module, name]
    elif module in IMPORT_MAPPING:
        module = IMPORT_MAPPING[module]
    module = _MODULE_NOW.get(module, module)
    if module == "_operator" and name != "or_":
        module = "operator"
    if module.startswith("numpy.core.") or module == "numpy.core":
        module = "numpy._core" + module.removeprefix("numpy.core")
    if module.startswith("sklearn.") and name not in _uses(module):
        head, _, last = module.rpartition(".")
        if not last.startswith("_") and name in _uses(f"{head}._{last}"):
            module = f"{head}._{last}"
    if module == "builtins":
        name = {"xrange": "range", "unicode": "str", "long": "int"}.get(name, name)
    return Symbol(module, name)


def is_allowed(symbol: Symbol) -> bool:
    """Whether the name itself is harmless to ask for, whoever calls it."""
    if symbol in CALLS:
        return not is_risky(symbol)
    return symbol.name in _uses(symbol.module)


def is_callable(symbol: Symbol, arguments: Arguments, effect: str) -> bool:
    """Whether calling an allowed symbol with these arguments, by this opcode, is harmless."""
    if is_guarded(symbol) and any(
        isinstance(each, Symbol) and is_guarded(each) for each in arguments or ()
    ):
        return False
    check = CALLS.get(symbol)
    if check is not None:
        if symbol in MAKERS and check(arguments):
            made = arguments[0] if arguments else None
            return isinstance(made, Symbol) and _is_class(made)
        return check(arguments) or (symbol == GETATTR and _is_listed_attribute(arguments))
    use = _uses(symbol.module).get(symbol.name)
    if use == _CALL:
        return True
    if use not in (_OBJECT, _ITEMS):
        return False
    return effect in ("new", "new_with_keywords") or arguments == ()


def _is_listed_attribute(arguments: Arguments) -> bool:
    """`(class, "method")`: what newer protocols ask for as one dotted name."""
    made, name = (*(arguments or ()), None, None)[:2]
    return (
        isinstance(made, Symbol)
        and isinstance(name, str)
        and is_allowed(Symbol(made.module, f"{made.name}.{name}"))
    )


def _is_class(symbol: Symbol) -> bool:
    """Whether an instance may be made of it without a call; what is unknown is held anyway."""
    use = _uses(symbol.module).get(symbol.name)
    return use in (_OBJECT, _ITEMS, _CALL, None) and not is_guarded(symbol)


def is_state(symbol: Symbol, state: Value) -> bool:
    """Whether what a call of the symbol returned may be given this state."""
    if symbol == PARTIAL:
        return is_partial_state(state)
    if is_shared(symbol):
        return False
    if symbol == VECTORIZE:
        return is_vectorized_state(state)
    if symbol == SCRIPT_OBJECT:
        return is_packed_state(state)
    if runs_state(symbol):
        return symbol.name.endswith("_frozen") or is_template_state(state)
    return not isinstance(state, Made) or state.by != PARTIAL


def takes_items(symbol: Symbol) -> bool:
    """Whether what a call of it returns is a container."""
    return symbol in _CONTAINERS or _uses(symbol.module).get(symbol.name) == _ITEMS


def is_dangerous(symbol: Symbol) -> bool:
    """Whether the name is known to run code, reach the system or reach other names."""
    return not is_allowed(symbol) and _is_dangerous(symbol)


def is_risky(symbol: Symbol) -> bool:
    """Whether the name is harmless in a shape and dangerous in every other."""
    return is_guarded(symbol) and _is_dangerous(symbol)


def _uses(module: str) -> Mapping[str, str]:
    """The names of one module and their uses."""
    return _harmless().get(module, {})


@cache
def _harmless() -> Mapping[str, Mapping[str, str]]:
    """The list: lines of `use module name name …`; other lines are comments."""
    found: dict[str, dict[str, str]] = {}
    for line in _LIST.read_text("utf-8").splitlines():
        use, *rest = line.split()[:2] or [""]
        if use in (_NAME, _OBJECT, _ITEMS, _CALL):
            names = found.setdefault(rest[0], {})
            names.update(dict.fromkeys(line.split()[2:], use))
    return found
