"""skops files: objects that its loader makes by the names in `schema.json`.

Theory of operation. Each node names a class or a function and the loader that makes it
(skops/io/_audit.py, `get_tree`). Classes of the libraries that skops is made for pass; of
functions only those that count, measure or change numbers, since any function of NumPy could be
named and some of them read and write files. What `operator` makes calls methods by name
(CVE-2025-54412, CVE-2025-54413).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from modelkeep.core.verdict import Finding, Severity
from modelkeep.scan.cases import Case
from modelkeep.scan.evidence import printable
from modelkeep.scan.targets import target_severity
from modelkeep.scan.walks import Entry, walked

_PACKAGES = (
    "sklearn", "numpy", "scipy", "xgboost", "lightgbm", "catboost", "quantile_forest", "imblearn",
    "pandas", "collections", "datetime", "functools",
)  # fmt: skip
_BUILTINS = frozenset(
    {"list", "dict", "tuple", "set", "frozenset", "int", "float", "str", "bool", "bytes",
     "bytearray", "slice", "type", "NoneType", "complex", "range", "object"}
)  # fmt: skip
# NumPy's ufuncs, and what reduces or reshapes: FunctionTransformer names such functions.
_NUMBER_NAMES = """
    abs absolute acos acosh add all amax amin angle any append arange arccos arccosh arcsin
    arcsinh arctan arctan2 arctanh argmax argmin argsort argwhere around array asarray asin asinh
    astype atan atan2 atanh atleast_1d atleast_2d average bincount bitwise_and bitwise_not
    bitwise_or bitwise_xor broadcast_to cbrt ceil clip column_stack concatenate conj conjugate
    convolve copy copysign corrcoef correlate cos cosh count_nonzero cov cross cumprod cumsum
    deg2rad degrees diff digitize divide divmod dot dstack einsum equal exp exp2 expand_dims expm1
    fabs fix flip fliplr flipud float_power floor floor_divide fmax fmin fmod frexp full full_like
    gcd gradient greater greater_equal heaviside histogram hstack hypot i0 imag inner interp invert
    isclose isfinite isin isinf isnan isnat kron lcm ldexp less less_equal linspace log log10 log1p
    log2 logaddexp logaddexp2 logical_and logical_not logical_or logical_xor logspace matmul max
    maximum mean median min minimum mod modf moveaxis multiply nan_to_num nanargmax nanargmin
    nancumprod nancumsum nanmax nanmean nanmedian nanmin nanpercentile nanprod nanquantile nanstd
    nansum nanvar negative nextafter not_equal ones ones_like outer pad percentile polyfit polyval
    positive pow power prod ptp quantile rad2deg radians ravel real reciprocal remainder repeat
    reshape resize right_shift left_shift rint roll rollaxis rot90 round searchsorted sign signbit
    sin sinc sinh sort spacing split sqrt square squeeze stack std subtract sum swapaxes take tan
    tanh tensordot tile trace transpose trapezoid trapz tril triu true_divide trunc unique unwrap
    var vdot vstack where zeros zeros_like
"""
_NUMBERS = frozenset(_NUMBER_NAMES.split())
_SPECIAL = re.compile(r"scipy\.special(?:\._(?:ufuncs|basic))?\.[a-z][a-z0-9_]*")
_STATISTICS = re.compile(
    r"scipy\.(?:stats(?:\._\w+)?\.(?:zscore|gmean|hmean|iqr|skew|kurtosis|rankdata|mode|boxcox\w*|"
    r"yeojohnson\w*|pearsonr|spearmanr|kendalltau|f_oneway|chi2_contingency|uniform|norm|randint|"
    r"loguniform|expon|entropy|trim_mean|sem|median_abs_deviation)|ndimage(?:\._\w+)?\.\w+|signal"
    r"(?:\._\w+)*\.[a-z]\w*|spatial\.distance\.[a-z]\w*|sparse(?:\._\w+)?\.(?:hstack|vstack|csr_\w+|"
    r"csc_\w+|coo_\w+|issparse)|fft(?:\._\w+)*\.[a-z]\w*)"
)
# What reads and writes files, or fetches them, in libraries of numbers.
_FILES = re.compile(
    r"(?i)(?:text|file|csv|excel|pickle|parquet|json|feather|hdf|sql|html|xml|table|clipboard|orc"
    r"|sas|spss|stata|memmap|wav|mat|npz|arff|mmwrite|mmread|harwell_boeing)$"
    r"|^(?:load|save|open|fetch|read|write|dump|from_?file|from_?regex|genfrom|to_?file|exec|eval"
    r"|run|system|compile|import|get_data_home|clear_data_home|datasource)"
)
# Parts of scikit-learn that are no part of a model, and run programs or fetch files.
_TOOLS = re.compile(r"\.(?:_?testing|_?tests|conftest|datasets|externals|_build_utils|_mocking)\b")
_CALLERS = ("attrgetter", "methodcaller")
_CALLS_MAX = 1_000


def skops_findings(case: Case, entry: Entry) -> list[Finding]:
    """Judge one object of a document, if it is a node of skops."""
    pairs = entry.pairs
    loader = pairs.get("__loader__")
    if not isinstance(loader, str):
        return []
    named = [f"{pairs.get('__module__', '')}.{pairs.get('__class__', '')}"]
    content = pairs.get("content")
    if loader == "FunctionNode" and isinstance(content, Mapping):  # as skops wrote it before 0.11
        named.append(f"{content.get('module_path', '')}.{content.get('function', '')}")
    findings = []
    for dotted in dict.fromkeys(each for each in named if each != "."):
        severity, why = _severity(loader, dotted, pairs)
        if severity is not None:
            text = f"skops makes {printable(dotted, 80)} by {printable(loader, 40)}{why}"
            findings.append(case.found("scan.config.target", severity, text))
    return findings


def _severity(loader: str, dotted: str, pairs: Mapping[str, Any]) -> tuple[Severity | None, str]:
    module, _, name = dotted.rpartition(".")
    if loader == "OperatorFuncNode":
        return _operator_severity(module, name, pairs), " (CVE-2025-54412)"
    if loader == "MethodNode" or any(each.startswith("_") for each in _reached(pairs)):
        return Severity.HIGH, " (CVE-2025-54413)"
    known = target_severity(dotted)
    package = module.partition(".")[0]
    if loader == "FunctionNode" and package in _PACKAGES:
        return _function_severity(dotted, known), ""
    if module == "operator" and known is not Severity.HIGH:
        known = Severity.MEDIUM
    if name[:1].islower() and _FILES.search(name):
        known = Severity.HIGH
    is_own = package in _PACKAGES and known is not Severity.HIGH
    return None if is_own or (module == "builtins" and name in _BUILTINS) else known, ""


def _function_severity(dotted: str, known: Severity | None) -> Severity | None:
    """A function of a library of numbers."""
    package, last = dotted.partition(".")[0], dotted.rpartition(".")[2]
    if package in ("numpy", "scipy", "pandas") and (
        last in _NUMBERS or _SPECIAL.fullmatch(dotted) or _STATISTICS.fullmatch(dotted)
    ):
        return None
    if known is Severity.HIGH or _FILES.search(last):
        return Severity.HIGH
    is_usual = package == "sklearn" and not _TOOLS.search(dotted)
    return None if is_usual or last[:1].isupper() else Severity.MEDIUM


def _operator_severity(module: str, name: str, pairs: Mapping[str, Any]) -> Severity | None:
    """`operator.attrgetter("shape")` and its like: what is reached for, or called."""
    if module != "operator" or name not in (*_CALLERS, "itemgetter"):
        return Severity.HIGH
    if name == "itemgetter":
        return None
    named = tuple(_texts(pairs.get("attrs")))
    grave = any(each.startswith("_") or "__" in each or _FILES.search(each) for each in named)
    return Severity.HIGH if grave or not named else Severity.MEDIUM


def _texts(attrs: Any) -> Iterator[str]:
    """What the nodes of arguments hold: JSON of a text is the text in quotes."""
    for entry in walked(attrs, _CALLS_MAX):
        value = entry.pairs.get("content")
        if isinstance(value, str):
            yield value.strip().strip('"')


def _reached(pairs: Mapping[str, Any]) -> Iterator[str]:
    content = pairs.get("content")
    if isinstance(content, Mapping):
        yield from (
            value
            for key, value in content.items()
            if key in ("func", "attrs") and isinstance(value, str)
        )
