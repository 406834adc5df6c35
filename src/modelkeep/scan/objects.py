"""Objects that a document asks its loader to make, and templates.

Hydra, LangChain, jsonpickle and skops read a name out of the document, import it and call it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from modelkeep.core.verdict import Finding, Severity
from modelkeep.scan.cases import Case
from modelkeep.scan.evidence import printable
from modelkeep.scan.targets import target_severity
from modelkeep.scan.templates import template_findings
from modelkeep.scan.walks import Entry

# Keys under which loaders render a text, and those that say in which language.
_TEMPLATE_KEYS = frozenset(
    {"chat_template", "template", "prompt_template", "system_template", "jinja_template", "prompt",
     "default_chat_template", "tool_template", "custom_chat_template"}
)  # fmt: skip
_JINJA = re.compile(r"\{\{|\{%|\{#")
# jsonpickle: what calls or imports, and what only names a class.
_PICKLED_CALLS = frozenset({"py/reduce", "py/function", "py/repr", "py/newargs", "py/newargsex",
                            "py/initargs", "py/newobj", "py/mod"})  # fmt: skip
_PICKLED_NAMES = frozenset({"py/object", "py/type", "py/class", "py/ref"})
# LangChain: kinds of chains and tools that run what they are given.
_ACTING_CHAINS = re.compile(
    r"(?i)(?:llm_)?(?:bash|pal|math|python_repl|terminal|shell|symbolic_math)(?:_chain)?$|repl"
)
# skops: loaders that find attributes or functions by name.
_SKOPS_PACKAGES = ("sklearn", "numpy", "scipy", "xgboost", "lightgbm", "catboost",
    "quantile_forest",
                   "imblearn", "pandas", "collections", "datetime", "functools")  # fmt: skip
_SKOPS_BUILTINS = frozenset(
    {"list", "dict", "tuple", "set", "frozenset", "int", "float", "str", "bool", "bytes",
    "bytearray",
     "slice", "type", "NoneType", "complex", "range", "object"}
)  # fmt: skip


def object_findings(case: Case, entry: Entry) -> list[Finding]:
    """Judge one object of a document by what it would make."""
    findings: list[Finding] = []
    pairs = entry.pairs
    findings.extend(_hydra(case, entry))
    if pairs.get("lc") in (1, 2, "1") and isinstance(pairs.get("id"), list):
        findings.extend(_langchain(case, entry))
    if isinstance(pairs.get("_type"), str):
        findings.extend(_chain(case, entry))
    if any(str(key).startswith("py/") for key in pairs):
        findings.extend(_jsonpickle(case, entry))
    if isinstance(pairs.get("__loader__"), str):
        findings.extend(_skops(case, entry))
    if pairs.get("id") == "pickle" and ("filters" in entry.path or "compressor" in entry.path):
        text = f"{printable(entry.path, 60)}: chunks of the array are pickles"
        findings.append(case.found("scan.config.target", Severity.MEDIUM, text))
    for key in _TEMPLATE_KEYS & set(pairs):
        findings.extend(_templates(case, f"{entry.path}.{key}".lstrip("."), pairs[key]))
    return findings


def _hydra(case: Case, entry: Entry) -> list[Finding]:
    findings = []
    finds = str(entry.pairs.get("_target_", "")).startswith("hydra.utils.")
    for key in ("_target_", "_target", "__target__", "_path_", "cls_path", "class_path", "path"):
        value = entry.pairs.get(key)
        if not isinstance(value, str) or (key == "path" and not finds):
            continue
        severity = target_severity(value)
        where = printable(entry.path or "(top)", 60)
        text = f"{where}: `{key}` makes {printable(value, 100)}"
        findings.append(case.found("scan.config.target", severity or Severity.NOTE, text))
    return findings


def _langchain(case: Case, entry: Entry) -> list[Finding]:
    pairs = entry.pairs
    dotted = ".".join(str(part) for part in pairs["id"])
    if pairs.get("type") == "secret":
        name = printable(dotted, 60)
        text = f"asks for the secret {name}, which the loader may take from its environment"
        return [case.found("scan.config.secret", Severity.NOTE, text + " (CVE-2025-68664)")]
    if pairs.get("type") == "not_implemented":
        return []
    severity = target_severity(dotted)
    if severity is None:
        return []
    text = f"{printable(entry.path or '(top)', 60)}: LangChain makes {printable(dotted, 100)}"
    return [case.found("scan.config.target", severity, text)]


def _chain(case: Case, entry: Entry) -> list[Finding]:
    kind = entry.pairs["_type"]
    findings = []
    if _ACTING_CHAINS.search(kind):
        text = f"a chain of type {printable(kind, 40)!r} runs what a model answers"
        findings.append(case.found("scan.config.target", Severity.HIGH, text))
    for key in ("template_path", "examples", "llm_path", "prompt_path"):
        value = entry.pairs.get(key)
        if isinstance(value, str) and (
            value.startswith(("/", "~")) or ".." in value or ":" in value
        ):
            text = f"`{key}` reads {printable(value, 80)!r}"
            findings.append(case.found("scan.config.path", Severity.HIGH, text))
    if entry.pairs.get("template_format") == "jinja2":
        text = "is a prompt that is rendered by Jinja (CVE-2023-36281)"
        findings.append(case.found("scan.config.template", Severity.NOTE, text))
    return findings


def _jsonpickle(case: Case, entry: Entry) -> list[Finding]:
    findings = []
    for key, value in entry.pairs.items():
        if key in _PICKLED_CALLS:
            severity: Severity | None = Severity.HIGH
        elif key in _PICKLED_NAMES and isinstance(value, str):
            severity = target_severity(value)
        else:
            continue
        if severity is not None:
            text = f"jsonpickle makes {printable(f'{key} {value}', 100)}"
            findings.append(case.found("scan.config.target", severity, text))
    return findings


def _skops(case: Case, entry: Entry) -> list[Finding]:
    pairs = entry.pairs
    module, name = str(pairs.get("__module__", "")), str(pairs.get("__class__", ""))
    loader = pairs["__loader__"]
    dotted = printable(f"{module}.{name}", 80)
    content = pairs.get("content")
    reached = _names(content) if isinstance(content, Mapping) else ()
    text = f"skops makes {dotted} by {printable(loader, 40)}"
    if loader == "OperatorFuncNode" and module != "operator":
        return [case.found("scan.config.target", Severity.HIGH, text + " (CVE-2025-54412)")]
    if loader == "MethodNode" or any(each.startswith("_") for each in reached):
        return [case.found("scan.config.target", Severity.HIGH, text + " (CVE-2025-54413)")]
    if module == "builtins" and name in _SKOPS_BUILTINS:
        return []
    package = module.partition(".")[0]
    severity = target_severity(f"{module}.{name}")
    if package in _SKOPS_PACKAGES and severity is not Severity.HIGH:
        return []
    if package in ("numpy", "operator", "scipy", "functools") and loader != "ObjectNode":
        acts = name in (
            "load",
            "fromfile",
            "memmap",
            "save",
            "system",
            "attrgetter",
            "methodcaller",
        )
        return [case.found("scan.config.target", Severity.HIGH, text)] if acts else []
    return [] if severity is None else [case.found("scan.config.target", severity, text)]


def _names(content: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(
        value
        for key, value in content.items()
        if key in ("func", "attrs") and isinstance(value, str)
    )


def _templates(case: Case, path: str, value: Any) -> list[Finding]:
    """A template, or a list of named ones, or a mapping from names to them."""
    texts: list[tuple[str, str]] = []
    if isinstance(value, str):
        texts.append((path, value))
    elif isinstance(value, Mapping):
        texts.extend(
            (f"{path}.{key}", each) for key, each in value.items() if isinstance(each, str)
        )
    elif isinstance(value, list):
        for at, each in enumerate(value):
            inner = each.get("template") if isinstance(each, Mapping) else each
            if isinstance(inner, str):
                texts.append((f"{path}[{at}]", inner))
    findings: list[Finding] = []
    for where, text in texts[:64]:
        if _JINJA.search(text):
            findings.extend(template_findings(f"{case.place.subject}!{printable(where, 80)}", text))
    return findings
