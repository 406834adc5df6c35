"""Keras configuration: which classes and functions loading it would find and call.

Theory of operation. A Keras model is a tree of `{"module", "class_name", "config",
"registered_name"}`; loading imports the module, takes the class out of it and calls its
`from_config`. `model_config` of an HDF5 file, `config.json` of a `.keras` file and the metadata of
a SavedModel all hold such trees. What is judged:

1. code: a `Lambda` with a marshalled function, or `__lambda__` anywhere (CVE-2024-3660; in HDF5
   CVE-2025-9905), and layers that bring pickles or programs of other frameworks (CVE-2025-49655);
2. a module outside of Keras (CVE-2025-1550), and inside of it everything that is no building block:
   functions that fetch or load files, or switch safe mode off (CVE-2025-8747, CVE-2025-9906);
3. files that layers open: a vocabulary given as a path or an address (CVE-2025-12058).
"""

from __future__ import annotations

import builtins
import re
from typing import Any

from modelkeep.core.verdict import Finding, Severity
from modelkeep.scan.cases import Case
from modelkeep.scan.evidence import printable
from modelkeep.scan.names import reaches_out
from modelkeep.scan.targets import target_severity
from modelkeep.scan.walks import Entry

_HOMES = ("keras", "tf_keras", "tensorflow.keras", "tensorflow.python.keras", "keras_hub",
    "keras_nlp",
          "keras_cv", "keras_core", "keras_rs", "tensorflow_addons", "tensorflow")  # fmt: skip
# Parts of Keras that a model is built of.
_BLOCKS = re.compile(
    r"(?:keras|tf_keras|tensorflow\.keras|tensorflow\.python\.keras|keras_core|keras_hub|keras_nlp"
    r"|keras_cv|keras_rs)(?:\.src|\.api|\.engine|\._tf_keras|\._legacy|\.v[12]|\.keras)*"
    r"(?:\.(?:layers|models|initializers|optimizers|losses|metrics|regularizers|constraints|activations"
    r"|mixed_precision|dtype_policies|quantizers|random|ops|engine|distribution|training|trainers"
    r"|tokenizers|samplers|schedules)(?:\.[a-z0-9_.]+)?)?"
)
_PLAIN_FUNCTIONS = re.compile(
    r".*\.(?:activations|initializers|losses|metrics|regularizers|constraints|ops)(?:\..*)?"
)
# Objects that stand for Python values, not for classes.
_VALUES = frozenset(
    {"__tensor__", "__numpy__", "__bytes__", "__ellipsis__", "__slice__", "__typespec__",
    "__tuple__",
     "__class_type__", "__complex__", "TensorShape", "TypeSpec"}
)  # fmt: skip
_FOREIGN_LAYERS = {
    "torchmodulewrapper": "unpickles a PyTorch module (CVE-2025-49655)",
    "tfsmlayer": "loads a SavedModel from a path",
    "jaxlayer": "runs functions of JAX",
    "flaxlayer": "runs a module of Flax",
}
_LOOKUPS = ("vocabulary", "idf_weights")
_PATHS = ("filepath", "file_path", "origin", "vocabulary_file", "initial_model", "saved_model_path")
_CODE_CHARS_MIN = 12
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_.>]*")


def keras_findings(case: Case, entry: Entry) -> list[Finding]:
    """Judge one object of a document, if it is one of Keras's."""
    pairs = entry.pairs
    name = pairs.get("class_name")
    if not isinstance(name, str) or not ({"config", "module", "registered_name"} & set(pairs)):
        return []
    judge = _Judge(case, entry)
    config = pairs.get("config")
    judge.code(name, config)
    judge.home(name, pairs)
    if isinstance(config, dict):
        judge.files(name, config)
    return judge.findings


class _Judge:
    """The findings about one object."""

    __slots__ = ("_case", "_where", "findings")

    def __init__(self, case: Case, entry: Entry) -> None:
        self._case = case
        self._where = entry.path or "(top)"
        self.findings: list[Finding] = []

    def note(self, rule: str, severity: Severity, text: str) -> None:
        where = f"{printable(self._where, 80)}: {text}"
        self.findings.append(self._case.found("scan.keras." + rule, severity, where))

    # ---- 1: code ----

    def code(self, name: str, config: Any) -> None:
        last = name.rpartition(">")[2].strip()
        if last == "__lambda__":
            self.note("lambda", Severity.HIGH, "holds marshalled code (`__lambda__`)")
            return
        if last.lower() in _FOREIGN_LAYERS:
            why = _FOREIGN_LAYERS[last.lower()]
            self.note("foreign", Severity.HIGH, f"{printable(last, 40)} {why}")
        if last != "Lambda" or not isinstance(config, dict):
            return
        function = config.get("function")
        if isinstance(function, list) and function and isinstance(function[0], str):
            text = "a Lambda layer holds marshalled code"
            self.note("lambda", Severity.HIGH, text)
        elif isinstance(function, dict):
            text = "a Lambda layer calls a function that the file names"
            self.note("lambda", Severity.MEDIUM, text)
        else:
            shown = printable(str(function), 60)
            is_code = len(shown) >= _CODE_CHARS_MIN and config.get("function_type") == "lambda"
            is_code = is_code or not _WORD.fullmatch(shown)
            severity = Severity.HIGH if is_code else Severity.MEDIUM
            self.note("lambda", severity, f"a Lambda layer calls {shown!r}")
        module = config.get("module")
        if isinstance(module, str) and not _BLOCKS.fullmatch(module) and module != "__main__":
            text = f"a Lambda layer takes its function from {printable(module, 60)}"
            self.note("module", target_severity(f"{module}.f") or Severity.MEDIUM, text)

    # ---- 2: where it comes from ----

    def home(self, name: str, pairs: Any) -> None:
        module, registered = pairs.get("module"), pairs.get("registered_name")
        config = pairs.get("config")
        if not isinstance(module, str):
            if isinstance(registered, str) and ">" in registered:
                self._registered(registered)
            return
        is_function = name == "function"
        called = config if is_function and isinstance(config, str) else name
        dotted = f"{module}.{called}"
        if name in _VALUES and not module:
            return
        if _BLOCKS.fullmatch(module):
            if is_function and not _PLAIN_FUNCTIONS.fullmatch(module):
                text = f"names the function {printable(dotted, 100)}"
                self.note("function", Severity.HIGH, text)
            elif not _is_word(called):
                self.note("module", Severity.HIGH, f"names {printable(dotted, 100)}")
            return
        if module == "builtins":
            own = called if is_function else registered
            if isinstance(own, str) and ">" in own:
                self._registered(own)
                return
            if is_function and not hasattr(builtins, called):
                return  # Keras looks such a name up among its own functions
        self._outside(dotted, module, registered)

    def _outside(self, dotted: str, module: str, registered: Any) -> None:
        inside = module.split(".", maxsplit=1)[0] in _HOMES
        text = f"names {printable(dotted, 100)}, which is no building block of Keras"
        if inside:
            self.note("module", Severity.HIGH, text)
            return
        severity = target_severity(dotted) or Severity.MEDIUM
        if isinstance(registered, str) and ">" in registered and severity is Severity.MEDIUM:
            self._registered(registered)
            return
        self.note("module", severity, text + " (CVE-2025-1550)")

    def _registered(self, registered: str) -> None:
        package = registered.partition(">")[0]
        if package in ("keras", "keras_nlp", "keras_hub", "keras_cv", "Addons"):
            return
        text = f"needs the class {printable(registered, 80)!r}, which whoever loads it must bring"
        self.note("custom", Severity.NOTE, text)

    # ---- 3: files ----

    def files(self, name: str, config: dict[Any, Any]) -> None:
        for key in _LOOKUPS:
            value = config.get(key)
            if isinstance(value, str) and value:
                text = f"{printable(name, 40)} reads its {key} from {printable(value, 80)!r}"
                self.note("file", Severity.HIGH, text + " (CVE-2025-12058)")
        for key in _PATHS:
            value = config.get(key)
            if isinstance(value, str) and reaches_out(value):
                text = f"{printable(name, 40)} opens {printable(value, 80)!r}"
                self.note("file", Severity.HIGH, text)


def _is_word(name: str) -> bool:
    return all(part.isidentifier() and not part.startswith("__") for part in name.split(">")[-1:])
