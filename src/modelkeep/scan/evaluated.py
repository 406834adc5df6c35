"""Texts in configuration that are expressions of Python: some loaders evaluate what they find.

YOLO's `parse_model` evaluates the names and the arguments of its layers (models/yolo.py, `m =
eval(m)`), and so do readers of training configuration. Names of classes and numbers are what such a
file needs; a text that calls what runs programs, opens files or imports is a finding. Texts are
parsed, never evaluated.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from modelkeep.core.verdict import Finding, Severity
from modelkeep.scan.cases import Case
from modelkeep.scan.evidence import printable
from modelkeep.scan.walks import Entry

_CHARS_MAX = 4_096
_TEXTS_MAX = 5_000
_DEPTH_MAX = 8
_CALL = re.compile(r"[\w\])'\"]\s?\(")
_MODULES = frozenset(
    {"os", "sys", "subprocess", "shutil", "socket", "pickle", "importlib", "builtins", "ctypes",
     "pty", "runpy", "posix", "nt", "urllib", "requests", "commands", "marshal", "code", "codecs",
     "tempfile", "pathlib", "platform", "webbrowser", "joblib", "dill", "cloudpickle", "http"}
)  # fmt: skip
_RUNNING = frozenset({"eval", "exec", "compile", "execfile", "__import__", "import_module"})
_REACHING = frozenset(
    {"open", "getattr", "setattr", "delattr", "globals", "locals", "vars", "input", "breakpoint",
     "load", "system", "popen", "type", "exit", "quit", "help", "dir"}
)  # fmt: skip
# From any value to the whole process; `__name__` and its like say nothing.
_INSIDE = frozenset(
    {"__class__", "__globals__", "__subclasses__", "__base__", "__bases__", "__mro__", "__dict__",
     "__builtins__", "__import__", "__code__", "__reduce__", "__reduce_ex__", "__getattribute__",
     "__loader__", "__init__", "__call__"}
)  # fmt: skip
# `activation: nn.SiLU()`: the one call that configurations of YOLO have.
_LAYER = re.compile(r"(?:torch\.)?nn\.(?:[a-z]+\.)?[A-Z]\w*")


def evaluated_findings(case: Case, entry: Entry) -> list[Finding]:
    """Judge the texts of one object, and those of the lists in it."""
    root = entry.root
    is_yolo = _is_yolo(root)
    is_notebook = isinstance(root, Mapping) and "nbformat" in root
    if is_notebook and entry.path.startswith("cells["):
        return []  # programs, and judged as such
    findings: list[Finding] = []
    for count, text in enumerate(_texts(entry.pairs)):
        if count >= _TEXTS_MAX:
            if is_yolo:
                what = "describes layers by more calls than are looked at"
                findings.append(case.found("scan.config.limit", Severity.MEDIUM, what))
            break
        severity = _severity(text, is_yolo=is_yolo)
        if severity is not None:
            what = f"{printable(entry.path or '(top)', 60)}: a loader that evaluates its texts runs"
            shown = f"{what} {printable(text.strip(), 80)!r}"
            findings.append(case.found("scan.config.expression", severity, shown))
            if len(findings) >= case.settings.findings_max:
                break
    return findings


def _is_yolo(root: Any) -> bool:
    """Whether a document describes the layers of a model as YOLO's do."""
    if not isinstance(root, Mapping):
        return False
    return any(isinstance(root.get(key), list) for key in ("backbone", "head")) and (
        "nc" in root or all(isinstance(root.get(key), list) for key in ("backbone", "head"))
    )


def _texts(pairs: Mapping[str, Any]) -> Iterator[str]:
    pending: list[tuple[Any, int]] = [(value, 0) for value in pairs.values()]
    while pending:
        value, depth = pending.pop()
        if isinstance(value, str):
            if len(value) <= _CHARS_MAX and _has_signs(value):
                yield value
        elif isinstance(value, list) and depth < _DEPTH_MAX:
            pending.extend((each, depth + 1) for each in value if isinstance(each, str | list))


def _has_signs(text: str) -> bool:
    is_call = "(" in text and ")" in text and _CALL.search(text) is not None
    return is_call or ".__" in text


def _severity(text: str, *, is_yolo: bool) -> Severity | None:
    """How bad it is that a loader evaluates this; None for what is no such expression."""
    tree = _parsed(text)
    if tree is None:
        return None
    worst: Severity | None = None
    for node in ast.walk(tree):
        inner = node.attr if isinstance(node, ast.Attribute) else ""
        if inner in _INSIDE or (is_yolo and inner.startswith("__")):
            return Severity.HIGH if is_yolo else Severity.MEDIUM
        if not isinstance(node, ast.Call):
            continue
        dotted = _dotted(node.func)
        has_arguments = bool(node.args or node.keywords)
        if _runs(dotted) and (has_arguments or is_yolo):
            return Severity.HIGH if is_yolo else Severity.MEDIUM
        if is_yolo and dotted.rpartition(".")[2] in _REACHING:
            return Severity.HIGH
        if is_yolo and not _LAYER.fullmatch(dotted):
            worst = Severity.MEDIUM
    return worst


def _runs(dotted: str) -> bool:
    first, last = dotted.partition(".")[0], dotted.rpartition(".")[2]
    return last in _RUNNING or (first in _MODULES and first != dotted)


def _parsed(text: str) -> ast.Expression | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Python would say of a strange literal
            return ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _dotted(node: ast.expr) -> str:
    """`os.path.join` for what is called; of what is put together, the last name."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute | ast.Call):
        if isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        else:
            node = node.func
    parts.append(node.id if isinstance(node, ast.Name) else "")
    return ".".join(reversed(parts))
