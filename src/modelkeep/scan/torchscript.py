"""TorchScript: the code inside a torch archive, parsed by Python's parser and never run.

Theory of operation. `code/**.py` is a program in a small part of Python: classes of modules, whose
methods call operators (`torch.add`, `ops.aten.add`) and each other. Its interpreter has no imports
and no attributes of Python; what it can reach are registered operators. So all calls are walked:
those that touch files are denied, those of a library that must be loaded first hold, and whatever
is no TorchScript at all (an import, a dunder) is denied, because something else is meant to run it.
Graphs that `torch.export` writes name their functions as text, which its loader resolves attribute
by attribute from `torch`: there only operators pass.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from math import prod
from typing import Any

from modelkeep.core.verdict import Finding, Severity
from modelkeep.scan.cases import Case
from modelkeep.scan.evidence import listed, printable
from modelkeep.scan.walks import Entry

_SOURCE_BYTES_MAX = 4 << 20
_NODES_MAX = 2_000_000
# A shape of more is no tensor; lists of numbers that are no shape stay below.
_ELEMENTS_MAX = 1 << 36
_RANK_MAX = 8
# Operators that read or write files, or reach other processes.
_ACTING = frozenset(
    {"save", "from_file", "_save", "load", "_load_for_executorch", "open", "exec", "eval", "system",
     "_from_file", "import_ir_module", "load_library", "manual_seed_file", "getenv", "fork_process",
     "rpc_sync", "rpc_async", "rpc_remote", "_initialize_rpc", "shm_open", "_share_filename_"}
)  # fmt: skip
# Families of operators that come with torch.
_FAMILIES = frozenset(
    {"aten", "prim", "prims", "quantized", "quantized_decomposed", "_quantized", "mkldnn",
    "mkldnn_prepacked",
     "prepacked", "xnnpack", "onednn", "sparse", "static_runtime", "_caffe2", "profiler",
     "torch_sparse",
     "inductor", "c10d_functional", "_c10d_functional", "higher_order", "_test", "cuda", "vulkan",
     "vulkan_prepack", "metal", "metal_prepack", "nested", "debugprims", "symm_mem", "streams"}
)  # fmt: skip
# Families of libraries that many models need.
_KNOWN_FAMILIES = frozenset({"torchvision", "torchaudio", "torchtext", "torchao", "fbgemm",
    "torch_scatter",
                             "torch_cluster", "torch_spline_conv", "detectron2",
                             "image"})  # fmt: skip
_TARGET = re.compile(
    r"torch\.ops\.(?P<family>\w+)(?:\.\w+){1,2}|_operator\.\w+|operator\.\w+|math\.\w+"
    r"|torch\.(?:sym_\w+|_sym_\w+|_check\w*|_assert\w*)|torch\._higher_order_ops\.[\w.]+|builtins\.\w+"
    r"|torch\.utils\._sympy\.functions\.\w+|torch\.ops\.higher_order\.\w+|getitem|#\w+.*"
)
_OPERATOR_FUNCTIONS = frozenset({"attrgetter", "methodcaller", "itemgetter", "setitem", "call"})
_BUILTINS = frozenset(
    {"abs", "max", "min", "round", "pow", "sum", "len", "float", "int", "bool", "getattr_"}
)


def script_findings(case: Case) -> tuple[Finding, ...]:
    """Judge one file of TorchScript code."""
    if len(case.view) > _SOURCE_BYTES_MAX:
        text = "is more code than is looked at"
        return (case.found("scan.torchscript.limit", Severity.MEDIUM, text),)
    try:
        tree = ast.parse(str(case.view, "utf-8"))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        text = f"does not parse as TorchScript: {error!s:.100}"
        return (case.found("scan.torchscript.broken", Severity.HIGH, text),)
    findings: dict[str, Finding] = {}
    for node in _nodes(tree):
        for rule, severity, text in _said(node):
            where = f"line {getattr(node, 'lineno', 0)}: {text}"
            findings.setdefault(text, case.found("scan.torchscript." + rule, severity, where))
        if len(findings) > case.settings.findings_max:
            break
    return tuple(findings.values())


def _nodes(tree: ast.AST) -> Iterator[ast.AST]:
    pending: list[ast.AST] = [tree]
    for _ in range(_NODES_MAX):
        if not pending:
            return
        node = pending.pop()
        yield node
        pending.extend(ast.iter_child_nodes(node))


def _said(node: ast.AST) -> Iterator[tuple[str, Severity, str]]:
    if isinstance(node, ast.Import | ast.ImportFrom):
        names = [each.name for each in node.names]
        if isinstance(node, ast.ImportFrom) or names != ["torch"]:
            yield "import", Severity.HIGH, f"imports {listed(names)}, which TorchScript cannot"
    elif isinstance(node, ast.Attribute) and node.attr in _FOREIGN_ATTRIBUTES:
        yield "reach", Severity.HIGH, f"reaches {printable(node.attr, 40)!r}"
    elif isinstance(node, ast.Name) and node.id in _FOREIGN_NAMES:
        yield "reach", Severity.HIGH, f"names {printable(node.id, 40)!r}, which is Python's"
    elif isinstance(node, ast.Call):
        yield from _call(_dotted(node.func))
    elif isinstance(node, ast.List) and _elements(node) > _ELEMENTS_MAX:
        yield "bomb", Severity.HIGH, f"makes a tensor of {_elements(node):.3g} elements"
    elif isinstance(node, ast.Lambda | ast.AsyncFunctionDef | ast.Await):
        yield "reach", Severity.HIGH, "is Python, not TorchScript"


def _elements(node: ast.List) -> float:
    """How many elements a shape of written numbers has; 0 for every other list."""
    sizes = [each.value if isinstance(each, ast.Constant) else None for each in node.elts]
    known = [float(each) for each in sizes if isinstance(each, int)]
    return prod(known) if 0 < len(known) == len(sizes) <= _RANK_MAX else 0.0


_FOREIGN_NAMES = frozenset({"__import__", "eval", "exec", "compile", "open", "globals", "os", "sys",
                            "subprocess", "__builtins__", "builtins", "importlib"})  # fmt: skip
_FOREIGN_ATTRIBUTES = frozenset({"__globals__", "__builtins__", "__subclasses__", "__mro__",
    "__import__",
                                 "__code__", "__reduce__", "__base__", "__bases__"})  # fmt: skip


def _call(parts: tuple[str, ...]) -> Iterator[tuple[str, Severity, str]]:
    if len(parts) < 2:
        return
    shown = printable(".".join(parts), 80)
    root = parts[0]
    if root == "torch" and parts[1] == "ops":
        root, parts = "ops", parts[1:]
    if root in ("torch", "ops", "aten") and parts[-1].rstrip("_") in _ACTING:
        yield "operator", Severity.HIGH, f"calls {shown}, which touches files or processes"
    elif root == "ops" and parts[1] not in _FAMILIES:
        severity = Severity.NOTE if parts[1] in _KNOWN_FAMILIES else Severity.MEDIUM
        yield "custom", severity, f"calls {shown}, an operator of a library that must be loaded"
    elif root == "torch" and len(parts) > 2 and parts[1] in _TORCH_PACKAGES:
        yield "operator", Severity.HIGH, f"calls {shown}, which is no operator"


_TORCH_PACKAGES = frozenset({"hub", "serialization", "utils", "jit", "package", "storage",
    "multiprocessing",
                             "distributed", "cpp_extension", "onnx", "os", "sys"})  # fmt: skip


def _dotted(node: ast.AST) -> tuple[str, ...]:
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return ()
    return (node.id, *reversed(parts))


def export_findings(case: Case, entry: Entry) -> list[Finding]:
    """Judge one object of a document, if it is a node of a graph that `torch.export` wrote."""
    target = entry.pairs.get("target")
    keys: Mapping[str, Any] = entry.pairs
    if not isinstance(target, str) or not {"inputs", "outputs", "metadata"} <= set(keys):
        return []
    match = _TARGET.fullmatch(target)
    shown = printable(target, 100)
    last = target.rpartition(".")[2]
    is_call = target.startswith(("operator.", "_operator.")) and last in _OPERATOR_FUNCTIONS
    acts = any(part.rstrip("_") in _ACTING for part in target.split("."))
    is_builtin = target.startswith("builtins.") and last not in _BUILTINS
    if match is None or "__" in target or is_call or is_builtin or acts:
        text = f"a node of the graph calls {shown}, which is no operator"
        return [case.found("scan.torchscript.target", Severity.HIGH, text)]
    family = match["family"]
    if family and family not in _FAMILIES:
        severity = Severity.NOTE if family in _KNOWN_FAMILIES else Severity.MEDIUM
        text = f"a node of the graph calls {shown}, an operator of a library that must be loaded"
        return [case.found("scan.torchscript.custom", severity, text)]
    return []
