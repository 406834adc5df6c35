"""Texts that loaders render: chat templates by Jinja, prompts by the formatting that they name.

Theory of operation. LangChain renders a prompt by Jinja, by `str.format` (where no format is named,
or `f-string`) or by mustache. `str.format` and mustache follow attributes too: `{x.__class__}`
leads from any value to the whole process (CVE-2025-65106), and no prompt needs more than names. A
brace stands twice in such a text to stand for itself, which to Jinja would mean an expression: so
what is no template of Jinja is only denied there for what it reaches.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from string import Formatter
from typing import Any

from modelkeep.core.verdict import Finding, Severity
from modelkeep.scan.cases import Case
from modelkeep.scan.evidence import printable
from modelkeep.scan.templates import template_findings
from modelkeep.scan.walks import Entry

# Keys under which loaders render a text.
_KEYS = frozenset(
    {"chat_template", "template", "prompt_template", "system_template", "jinja_template", "prompt",
     "default_chat_template", "tool_template", "custom_chat_template"}
)  # fmt: skip
# Those of prompts that are formatted.
_FORMATTED = ("template", "prefix", "suffix")
_PROMPTS = frozenset({"prompt", "few_shot", "prompt_with_examples", "chat", "prompt_template"})
_JINJA = re.compile(r"\{\{|\{%|\{#")
_MUSTACHE = re.compile(r"\{\{([^{}]{1,400})\}")
# A name that `str.format` follows: `{user.name}`; JSON in braces is none.
_FOLLOWED = re.compile(r"\s*\w*[.\[]")
_TEXTS_MAX = 64
_FIELDS_MAX = 1_000
_NESTED_MAX = 2


def prompt_findings(case: Case, entry: Entry) -> list[Finding]:
    """Judge the texts of one object of a document that a loader would render."""
    findings: list[Finding] = []
    language = _language(entry.pairs)
    for key in sorted((_KEYS | set(_FORMATTED)) & set(entry.pairs)):
        where = f"{entry.path}.{key}".lstrip(".")
        for path, text in _texts(where, entry.pairs[key]):
            if language is not None and key in _FORMATTED:
                findings.extend(_formatted(case, path, text, language))
            elif key in _KEYS and _JINJA.search(text):
                subject = f"{case.place.subject}!{printable(path, 80)}"
                findings.extend(template_findings(subject, text))
    return findings


def metadata_findings(subject: str, pairs: Mapping[str, str]) -> tuple[Finding, ...]:
    """Judge what a file of tensors says about itself, where runtimes take a template from it."""
    findings: list[Finding] = []
    for key in sorted(pairs):
        if key.lower().endswith("template") and _JINJA.search(pairs[key]):
            findings.extend(template_findings(f"{subject}!{printable(key, 80)}", pairs[key]))
    return tuple(findings)


def _language(pairs: Mapping[str, Any]) -> str | None:
    """How a prompt is rendered; None where that is Jinja, or nothing says that it is a prompt."""
    named = pairs.get("template_format")
    if named is None:
        kind = pairs.get("_type")
        is_prompt = isinstance(kind, str) and kind in _PROMPTS
        return "f-string" if is_prompt or "input_variables" in pairs else None
    return named if named in ("f-string", "mustache") else None


def _formatted(case: Case, path: str, text: str, language: str) -> list[Finding]:
    names = _tags(text) if language == "mustache" else _fields(text)
    findings: list[Finding] = []
    for count, name in enumerate(names):
        shown = f"{printable(path, 80)}: the prompt follows {printable(name, 80)!r}"
        if count >= _FIELDS_MAX:
            what = f"{printable(path, 80)}: the prompt has more fields than are looked at"
            findings.append(case.found("scan.config.prompt", Severity.MEDIUM, what))
            break
        if "__" in name or "._" in name or "[_" in name:
            what = f"{shown} into Python's own objects (CVE-2025-65106)"
            return [case.found("scan.config.prompt", Severity.HIGH, what)]
        if language == "f-string" and _FOLLOWED.match(name) and not findings:
            what = f"{shown}, an attribute or an item (CVE-2025-65106)"
            findings.append(case.found("scan.config.prompt", Severity.MEDIUM, what))
    if language == "f-string" and _JINJA.search(text):
        subject = f"{case.place.subject}!{printable(path, 80)}"
        findings.extend(
            each
            for each in template_findings(subject, text)
            if each.severity is Severity.HIGH and each.rule != "scan.template.broken"
        )
    return findings


def _tags(text: str) -> Iterator[str]:
    return (match[1].strip() for match in _MUSTACHE.finditer(text))


def _fields(text: str, depth: int = 0) -> Iterator[str]:
    """The names of a format text, also those in the formats of its fields."""
    try:
        for _, name, spec, _ in Formatter().parse(text):
            if name is not None:
                yield name
            if spec and depth < _NESTED_MAX:
                yield from _fields(spec, depth + 1)
    except ValueError:
        return  # `str.format` refuses the text at the same place


def _texts(path: str, value: Any) -> Iterator[tuple[str, str]]:
    """A template, or a list of named ones, or a mapping from names to them."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping) and _language(value) is None:  # else it is judged by itself
        for key, each in list(value.items())[:_TEXTS_MAX]:
            if isinstance(each, str):
                yield f"{path}.{key}", each
    elif isinstance(value, list):
        for at, each in enumerate(value[:_TEXTS_MAX]):
            inner = each.get("template") if isinstance(each, Mapping) else each
            if isinstance(inner, str):
                yield f"{path}[{at}]", inner
