"""Write down which names the pickles of model libraries hold, for the scanner's allow-list.

    python scripts/harmless_names.py [--check]

Run it in an environment that has the libraries (any of them: what is missing keeps its lines).
Three sources: what a library lists as its own (every estimator of scikit-learn, every module and
optimiser of torch, every ufunc), families of classes whose methods were read
(`harmless_families.py`), and what the pickles of fitted models were seen to hold. The names
are merged into `src/modelkeep/scan/symbols_harmless.txt`, whose first lines say from which versions
they came. A name that the scanner knows as dangerous is never written, but for what stands below a
package of danger and was vetted (`VETTED`).

Read the difference before it is committed: each line is a promise that the name is harmless in the
use that the line states.
"""
# ruff: noqa: PLC0415, SIM905, C901, PLR0912 - libraries that may be missing; lists of names

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import pickle
import re
import sys
import textwrap
import warnings
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests" / "support")]

from modelkeep.scan import symbols, symbols_dangerous  # noqa: E402
from modelkeep.scan.allowance import allowance_of  # noqa: E402
from modelkeep.scan.machine import Machine  # noqa: E402
from modelkeep.scan.settings import ScanSettings  # noqa: E402
from modelkeep.scan.symbols_shapes import CALLS  # noqa: E402
from modelkeep.scan.symbols_values import Symbol  # noqa: E402

TARGET = ROOT / "src" / "modelkeep" / "scan" / "symbols_harmless.txt"
LIBRARIES = (
    "scikit-learn", "joblib", "numpy", "scipy", "pandas", "xgboost", "xgboost-cpu", "lightgbm",
    "catboost", "torch", "torchvision", "transformers", "accelerate", "tokenizers", "matplotlib",
    "packaging",
)  # fmt: skip
# Names are only ever taken over from these.
PACKAGES = (
    "sklearn", "joblib", "numpy", "scipy", "pandas", "xgboost", "lightgbm", "catboost", "_catboost",
    "torch", "torchvision", "transformers", "accelerate", "collections", "datetime", "decimal",
    "uuid", "types", "argparse", "enum", "inspect", "random", "_loss", "builtins", "re",
    "tokenizers", "matplotlib", "packaging",
)  # fmt: skip
# Data classes below torch.distributed, every other name of which is dangerous.
VETTED = ("torch.distributed.checkpoint.metadata", "torch.distributed.checkpoint.filesystem")
# A stronger use stands for a weaker one.
USES = ("name", "object", "items", "call")
Names = dict[Symbol, str]

HEADER = """\
# Names that the pickles of model libraries hold, and the use in which each is harmless.
# Written by scripts/harmless_names.py; read by modelkeep.scan.symbols.
#   name    stands in an argument or an attribute, and is never called by the pickle
#   object  is made an instance of without arguments and given its state
#   items   as object; is a container and takes items too
#   call    is called with arguments that are data, results or allowed names
"""


def main() -> int:
    """Collect, merge, write; with --check say whether something would be written."""
    warnings.simplefilter("ignore")
    before = TARGET.read_text("utf-8") if TARGET.is_file() else ""
    names, versions = _read(before)
    for collect in (
        _of_numpy,
        _of_scipy,
        _of_sklearn,
        _of_torch,
        _of_torchvision,
        _of_boosters,
        _of_families,
        _of_seen,
    ):
        for symbol, use in collect():
            _take(names, symbol, use)
    for library in LIBRARIES:
        try:
            versions.setdefault(library, set()).add(version(library))
        except PackageNotFoundError:
            versions.setdefault(library, set())
    text = _written(names, versions)
    print(f"{len(names)} names; {'unchanged' if text == before else 'changed'}")
    if "--check" in sys.argv:
        return int(text != before)
    TARGET.write_text(text, "utf-8")
    return 0


# ---- what libraries list ----------------------------------------------------------------------


def _of_numpy() -> Iterator[tuple[Symbol, str]]:
    import numpy as np

    for name in dir(np):
        thing = getattr(np, name)
        if isinstance(thing, np.ufunc):
            for module in ("numpy", "numpy._core._multiarray_umath"):
                yield Symbol(module, name), "name"
        elif inspect.isclass(thing) and issubclass(thing, np.generic):
            yield Symbol("numpy", name), "name"
    for name in ("ndarray matrix recarray record memmap bool str object bool8 float_ complex_ "
                 "unicode_ string_ int0 uint0 object0 str0 bytes0 void0").split():  # fmt: skip
        yield Symbol("numpy", name), "name"
    for name in (
        "mean median sum std var min max amin amax nanmean nanmedian nanstd nansum nanmin nanmax "
        "prod argmax argmin cumsum cumprod clip round around ravel reshape squeeze transpose "
        "sort abs expand_dims asarray array atleast_1d atleast_2d ones zeros empty full eye "
        "linspace arange unique diff dot matmul vstack hstack column_stack concatenate nan_to_num "
        "isclose where percentile quantile average norm identity flip tile ones_like zeros_like"
    ).split():
        yield Symbol("numpy", name), "name"
    yield Symbol("numpy._globals", "_NoValue"), "name"
    for name in getattr(np, "dtypes", ModuleType("x")).__dict__:
        if name.endswith("DType"):
            yield Symbol("numpy.dtypes", name), "call"
    yield Symbol("numpy", "poly1d"), "object"
    for kind in "Polynomial Chebyshev Legendre Laguerre Hermite HermiteE".split():
        module = {"Hermite": "hermite", "HermiteE": "hermite_e"}.get(kind, kind.lower())
        yield Symbol(f"numpy.polynomial.{module}", kind), "object"


def _of_scipy() -> Iterator[tuple[Symbol, str]]:
    special = _module("scipy.special")
    ufunc = getattr(_module("numpy"), "ufunc", ())
    for name in dir(special) if special else ():
        if isinstance(getattr(special, name), ufunc):
            for module in ("scipy.special", "scipy.special._ufuncs"):
                yield Symbol(module, name), "name"
    for part in ("_continuous_distns", "_discrete_distns"):
        found = _module(f"scipy.stats.{part}")
        for name in vars(found) if found else ():
            if name.endswith("_gen"):  # their state is looked into: modelkeep.scan.symbols_shapes
                yield Symbol(f"scipy.stats.{part}", name), "object"
    for name in ("rv_continuous_frozen", "rv_discrete_frozen", "rv_frozen"):
        yield Symbol("scipy.stats._distn_infrastructure", name), "object"
    sparse = _module("scipy.sparse")
    for kind in "csr csc coo bsr dia dok lil".split() if sparse else ():
        for name in (f"{kind}_matrix", f"{kind}_array"):
            if hasattr(sparse, name):
                use = "items" if kind == "dok" else "object"
                yield Symbol(f"scipy.sparse._{kind}", name), use
        yield Symbol(f"scipy.sparse.{kind}", f"{kind}_matrix"), "object"


def _of_sklearn() -> Iterator[tuple[Symbol, str]]:
    for module in ("joblib.numpy_pickle", "joblib.numpy_pickle_compat"):
        for name in ("NumpyArrayWrapper", "NDArrayWrapper", "ZNDArrayWrapper"):
            yield Symbol(module, name), "object"
    if not _module("sklearn"):
        return
    from sklearn.utils import all_estimators

    for _, kind in all_estimators():
        yield Symbol(kind.__module__, kind.__name__), "object"
    for module, base in (
        ("sklearn.gaussian_process.kernels", "Kernel"),
        ("sklearn._loss.loss", "BaseLoss"),
        ("sklearn._loss.link", "BaseLink"),
    ):
        found = _module(module)
        for name, kind in vars(found).items() if found else ():
            if inspect.isclass(kind) and issubclass(kind, getattr(found, base)):
                yield Symbol(module, name), "object"
    for module in ("sklearn.metrics", "sklearn.metrics.pairwise", "sklearn.feature_selection"):
        for name, thing in vars(_module(module)).items():
            is_public = inspect.isfunction(thing) and not name.startswith("_")
            if is_public and thing.__module__.startswith(("sklearn.metrics", "sklearn.feature")):
                yield Symbol(thing.__module__, thing.__name__), "name"


def _of_torch() -> Iterator[tuple[Symbol, str]]:
    torch = _module("torch")
    if not torch:
        return
    for name in dir(torch):
        thing = getattr(torch, name)
        if isinstance(thing, torch.dtype | torch.memory_format | torch.layout | torch.qscheme):
            yield Symbol("torch", name), "name"
        elif name.endswith("Storage") and inspect.isclass(thing):
            for module in ("torch", "torch.cuda", "torch.storage"):
                yield Symbol(module, name), "name"
    for name in "ByteStorage BoolStorage UntypedStorage TypedStorage".split():
        yield Symbol("torch.storage", name), "name"
    for name in "Tensor FloatTensor LongTensor HalfTensor DoubleTensor IntTensor".split():
        yield Symbol("torch", name), "name"
    yield Symbol("torch._tensor", "Tensor"), "name"
    yield Symbol("torch.nn.parameter", "Parameter"), "name"
    yield Symbol("torch.nn.parameter", "Buffer"), "name"
    for name in ("UninitializedParameter", "UninitializedBuffer"):
        yield Symbol("torch.nn.parameter", name), "call"
    yield Symbol("torch.nn.modules.module", "_WrappedHook"), "object"
    yield Symbol("torch.utils.hooks", "RemovableHandle"), "object"
    for _, kind in _classes(torch.nn, torch.nn.Module):
        skipped = "lazy" in kind.__module__ or "parallel" in kind.__module__
        if not skipped and kind.__module__.startswith("torch.nn.modules"):
            yield Symbol(kind.__module__, kind.__name__), "object"
    yield Symbol("torch.nn.modules.module", "Module"), "object"
    for name in torch.nn.modules.linear.__dict__:
        if name == "NonDynamicallyQuantizableLinear":
            yield Symbol("torch.nn.modules.linear", name), "object"
    for _, kind in _classes(torch.optim, torch.optim.Optimizer):
        yield Symbol(kind.__module__, kind.__name__), "object"
    for _, kind in _classes(torch.optim.lr_scheduler, torch.optim.lr_scheduler.LRScheduler):
        yield Symbol(kind.__module__, kind.__name__), "object"
    for name, thing in vars(torch.nn.functional).items():
        is_plain = callable(thing) and not name.startswith("_") and not inspect.isclass(thing)
        if is_plain and getattr(thing, "__module__", "") in (
            "torch.nn.functional", "torch._C._nn", None
        ):  # fmt: skip
            for module in ("torch.nn.functional", "torch._C._nn"):
                if hasattr(_module(module), name):
                    yield Symbol(module, name), "name"
    for name in (
        "abs add cat clamp cos div einsum exp flatten log logit matmul max mean min mul neg pow "
        "relu rsqrt selu sigmoid sin softmax log_softmax sqrt square squeeze stack sub sum tanh "
        "unsqueeze"
    ).split():
        yield Symbol("torch", name), "name"
        yield Symbol("torch._C._VariableFunctions", name), "name"


def _classes(module: ModuleType, base: type) -> Iterator[tuple[str, type]]:
    for name, kind in vars(module).items():
        if inspect.isclass(kind) and issubclass(kind, base):
            yield name, kind


def _of_torchvision() -> Iterator[tuple[Symbol, str]]:
    """Its modules and transforms, read from the sources: importing it takes a matching torch."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return
    folder = Path(spec.origin).parent
    files = [
        each for part in ("models", "ops", "transforms") for each in folder.rglob(f"{part}/**/*.py")
    ]
    found: dict[str, tuple[str, set[str]]] = {}
    for file in files:
        module = ".".join(("torchvision", *file.relative_to(folder).with_suffix("").parts))
        for node in ast.parse(file.read_text("utf-8")).body:
            if isinstance(node, ast.ClassDef) and "v2" not in module:
                bases = {ast.unparse(base).rpartition(".")[2] for base in node.bases}
                found[node.name] = (module, bases)
    known = {"Module", "Sequential", "ModuleList", "ModuleDict"}
    for _ in range(8):
        known |= {name for name, (_, bases) in found.items() if bases & known}
    for name in sorted(known & found.keys()):
        yield Symbol(found[name][0], name), "object"
    for name in "Compose ToTensor ToPILImage RandomChoice RandomApply RandomOrder".split():
        yield Symbol("torchvision.transforms.transforms", name), "object"
    yield Symbol("torchvision.transforms.functional", "InterpolationMode"), "call"


def _of_boosters() -> Iterator[tuple[Symbol, str]]:
    for module, pattern in (
        ("xgboost.sklearn", r"XGB\w+"),
        ("lightgbm.sklearn", r"LGBM(?!NotFitted)\w+"),
        ("catboost.core", r"CatBoost(?!Error)\w*"),
    ):
        for name, kind in vars(_module(module) or ModuleType("x")).items():
            if inspect.isclass(kind) and re.fullmatch(pattern, name):
                yield Symbol(kind.__module__, kind.__name__), "object"


def _of_families() -> Iterator[tuple[Symbol, str]]:
    for use, module, name in importlib.import_module("harmless_families").families():
        yield Symbol(module, name), use


# ---- what pickles were seen to hold -----------------------------------------------------------


def _of_seen() -> Iterator[tuple[Symbol, str]]:
    model_zoo = importlib.import_module("model_zoo")

    makers = {**model_zoo.MODELS, **(model_zoo.estimators() if _module("sklearn") else {})}
    for name, make in makers.items():
        try:
            made = make()
        except Exception as error:  # noqa: BLE001 - a library is missing, or too old for a model
            print(f"  {name}: {type(error).__name__}: {error!s:.60}", file=sys.stderr)
            continue
        for each in made if isinstance(made, list) else [made]:
            for protocol in (0, 2, 4):
                try:
                    raw = pickle.dumps(each, protocol)
                except Exception as error:  # noqa: BLE001 - some know newer protocols only
                    print(f"  {name}/{protocol}: {error!s:.60}", file=sys.stderr)
                    continue
                yield from _seen_in(raw)


def _seen_in(raw: bytes) -> Iterator[tuple[Symbol, str]]:
    """Names of a pickle that the list lacks, with the use that they were put to."""
    settings = ScanSettings()
    machine = Machine(memoryview(raw), 0, settings, persistent=True)
    machine.run(allowance_of(settings))
    for symbol, use in machine.stream.uses.items():
        if use.holds_items:
            yield symbol, "items"
        elif use.way == "new" and not use.called:  # through copyreg's maker
            yield symbol, "object"
        elif symbols.is_allowed(symbol) and not use.odd:
            continue
        elif use.called:
            yield symbol, "call" if use.way == "reduce" else "object"
        else:
            yield symbol, "name"


# ---- the list ---------------------------------------------------------------------------------


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def _take(names: Names, symbol: Symbol, use: str) -> None:
    symbol = symbols.rewritten(symbol.module, symbol.name)
    if symbol.module.partition(".")[0] not in PACKAGES or symbol in CALLS:
        return
    if symbols_dangerous.is_dangerous(symbol) and symbol.module not in VETTED:
        print(f"  dangerous, not taken: {symbol}", file=sys.stderr)
        return
    names[symbol] = max(names.get(symbol, "name"), use, key=USES.index)


def _read(text: str) -> tuple[Names, dict[str, set[str]]]:
    names: Names = {}
    versions: dict[str, set[str]] = {}
    for line in text.splitlines():
        words = line.split()
        if line.startswith("# from "):
            versions[words[2]] = {word.strip(",") for word in words[3:]}
        elif words and words[0] in USES:
            names.update({Symbol(words[1], name): words[0] for name in words[2:]})
    return names, versions


def _written(names: Names, versions: dict[str, set[str]]) -> str:
    lines = [HEADER.rstrip()]
    lines += [
        f"# from {name} {', '.join(sorted(found))}" for name, found in versions.items() if found
    ]
    groups: dict[tuple[str, str], list[str]] = {}
    for symbol, use in names.items():
        groups.setdefault((symbol.module, use), []).append(symbol.name)
    for (module, use), members in sorted(groups.items()):
        head = f"{use} {module} "
        lines += textwrap.wrap(
            " ".join(sorted(members)), 100, initial_indent=head, subsequent_indent=head,
            break_on_hyphens=False, break_long_words=False,
        )  # fmt: skip
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    raise SystemExit(main())
