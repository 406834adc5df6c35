"""Sizes that `torch.export` writes as text: its loader evaluates them as Python.

`expr_str` is handed to sympy, which evaluates it; `guards_code` becomes a function. What torch
writes there is arithmetic over symbols and sizes; so the text is parsed, never evaluated, and what
is more than arithmetic is a finding (torch/_export/serde/serialize.py, `torch.export.load`).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from itertools import islice
from typing import Any

from modelkeep.core.verdict import Finding, Severity
from modelkeep.scan.cases import Case
from modelkeep.scan.evidence import printable
from modelkeep.scan.walks import Entry

_CHARS_MAX = 20_000
_TEXTS_MAX = 10_000
# Symbols are numbered: `s77` is a size, `u0` comes from data, `zf1` is a float.
_SYMBOL = re.compile(r"(?:s|u|f|zf|zuf|z|c|i|x)[0-9]*")
# What sympy and torch.utils._sympy.functions print (its classes, and values of sympy).
_FUNCTIONS = frozenset(
    {"Symbol", "Integer", "Float", "Rational", "Mul", "Add", "Pow", "Max", "Min", "Mod", "Eq", "Ne",
     "Lt", "Le", "Gt", "Ge", "And", "Or", "Not", "Xor", "Abs", "ceiling", "floor", "sqrt", "exp",
     "log", "FloorDiv", "CeilDiv", "CleanDiv", "PythonMod", "ModularIndexing", "Where", "Piecewise",
     "ExprCondPair", "TruncToInt", "TruncToFloat", "RoundToInt", "RoundDecimal", "CeilToInt",
     "FloorToInt", "IntTrueDiv", "FloatTrueDiv", "FloatPow", "PowByNatural", "ToFloat", "Identity",
     "LShift", "RShift", "IsNonOverlappingAndDenseIndicator", "StrictLessThan", "LessThan",
     "StrictGreaterThan", "GreaterThan", "Equality", "Unequality", "Relational", "max", "min",
     "abs", "int", "float", "bool", "BitwiseFn_bitwise_and", "BitwiseFn_bitwise_or"}
)  # fmt: skip
_OPAQUE = re.compile(r"OpaqueUnaryFn_[a-z0-9]+")
_VALUES = frozenset(
    {"oo", "int_oo", "nan", "zoo", "true", "false", "True", "False", "None", "L", "math", "torch"}
)  # fmt: skip
# Of a tensor, of `math`, and of torch's symbolic numbers: what is called on them.
_CALLED = frozenset(
    {"size", "stride", "storage_offset", "dim", "numel", "ceil", "floor", "trunc", "sqrt", "pow",
     "log", "log2", "fmod", "sym_max", "sym_min", "sym_float", "sym_int", "sym_ite", "sym_not",
     "sym_sqrt", "sym_sum", "sym_fresh_size"}
)  # fmt: skip
_PLAIN = (
    ast.Expression, ast.BinOp, ast.UnaryOp, ast.Compare, ast.BoolOp, ast.operator, ast.unaryop,
    ast.cmpop, ast.boolop, ast.expr_context, ast.Tuple, ast.List, ast.keyword, ast.Subscript,
    ast.IfExp,
)  # fmt: skip


def expression_findings(case: Case, entry: Entry) -> list[Finding]:
    """Judge the texts of one object that torch's loader would evaluate."""
    texts = [entry.pairs.get("expr_str")]
    for key in ("guards_code", "range_constraints"):  # a list of texts; a map, by symbols
        more = entry.pairs.get(key)
        if isinstance(more, list | Mapping):
            texts.extend(islice(more, _TEXTS_MAX))
    findings = []
    for text in texts:
        severity = None if text is None else _severity(text)
        if severity is not None:
            shown = f"the loader evaluates {printable(str(text), 100)!r}, which is no size"
            findings.append(case.found("scan.torchscript.expression", severity, shown))
    return findings


def _severity(text: Any) -> Severity | None:
    """How bad it is that a text is evaluated; None where it is arithmetic."""
    if not isinstance(text, str) or len(text) > _CHARS_MAX:
        return Severity.MEDIUM
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return Severity.HIGH
    worst: Severity | None = None
    named = {id(each.func) for each in ast.walk(tree) if isinstance(each, ast.Call)}
    for node in ast.walk(tree):
        found = _node_severity(node, is_called=id(node) in named)
        if found is Severity.HIGH:
            return found
        worst = found or worst
    return worst


def _node_severity(node: ast.AST, *, is_called: bool) -> Severity | None:
    match node:
        case ast.Name(id=name):
            if is_called:
                is_known = name in _FUNCTIONS or _OPAQUE.fullmatch(name) is not None
            else:
                is_known = name in _VALUES or _SYMBOL.fullmatch(name) is not None
            unknown = Severity.MEDIUM if name[:1].isupper() else Severity.HIGH
            return None if is_known else unknown
        case ast.Attribute(attr=name):
            return None if name in _CALLED or (name == "shape" and not is_called) else Severity.HIGH
        case ast.Constant(value=value):
            is_name = isinstance(value, str) and value.replace("_", "").replace(".", "").isalnum()
            is_plain = is_name or isinstance(value, int | float | bool) or value is None
            return None if is_plain and "__" not in str(value) else Severity.HIGH
        case ast.Call():
            return None if isinstance(node.func, ast.Name | ast.Attribute) else Severity.HIGH
    return None if isinstance(node, _PLAIN) else Severity.HIGH
