"""Text of no known format: which of the readers of text would take it, and what they would do.

A name (extension) is only believed where the bytes claim nothing themselves; what begins as a
document is read as one under every name.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from modelkeep.core.verdict import Finding, Severity
from modelkeep.scan.cases import Case
from modelkeep.scan.documents import json_findings
from modelkeep.scan.embedded import base64_findings
from modelkeep.scan.evidence import printable
from modelkeep.scan.graph_prose import graph_prose_findings, is_graph_prose
from modelkeep.scan.inis import ini_findings, is_ini
from modelkeep.scan.installs import is_requirements, requirements_findings
from modelkeep.scan.modelfiles import is_modelfile, modelfile_findings
from modelkeep.scan.templates import template_findings
from modelkeep.scan.tensorflow import text_graph_findings
from modelkeep.scan.yamls import yaml_findings

_SOURCES = frozenset(
    {"py", "pyw", "pyx", "sh", "bash", "zsh", "bat", "cmd", "ps1", "psm1", "vbs", "js", "mjs",
    "wsf",
     "hta", "rb", "pl", "php", "lua", "r", "jl", "cu", "scpt", "desktop", "command"}
)  # fmt: skip
_JSON = ("json", "ipynb", "geojson", "webmanifest")
_YAML = ("yaml", "yml")
_JINJA = ("jinja", "jinja2", "j2", "jinja-template")
# Rendered by one engine or another: only what reaches Python's inside says something.
_OTHER_TEMPLATES = ("template", "tmpl", "tpl", "prompt")
# Protobuf as text: TensorFlow reads it where the binary form is missing.
_TEXT_GRAPHS = ("pbtxt", "prototxt")
# Text that no name calls YAML is read as YAML up to this size, and only where it has a sign of it.
_UNNAMED_BYTES_MAX = 1 << 20
_YAML_NAMES = ("mlmodel", "conda.yaml", "python_env.yaml")
# What a loader of YAML would act on, in a file that is not named as YAML.
_YAML_SIGNS = re.compile(
    rb"!![a-z]+[./]|tag:yaml|%TAG|_target_|loader_module|!<|!(?:new|apply|name|module):"
    rb"|\bcls_path\b|class_path"
)
_XML = re.compile(r"\s*<(?:\?xml|!DOCTYPE|!ENTITY|PMML|net\b)", re.IGNORECASE)
_ENTITIES = re.compile(r"<!\s*ENTITY", re.IGNORECASE)
_DTD = re.compile(r"<!DOCTYPE\s[^<>\[]*?\b(?:SYSTEM|PUBLIC)\b([^<>\[]*)", re.IGNORECASE)
_SCRIPT = re.compile(r"<(?:script|Extension)[^<>]*>([^<]*)")
# Whose document types readers have at hand.
_KNOWN_DTD = re.compile(
    r"https?://(?:www\.)?(?:w3\.org|dmg\.org|oasis-open\.org|apple\.com|docbook\.org)/",
    re.IGNORECASE,
)
_XINCLUDE = re.compile(r"http://www\.w3\.org/2001/XInclude|<\?xml-stylesheet", re.IGNORECASE)
_HTML = re.compile(r"\s*(?:<\?xml[^>]*>\s*)?<(?:!DOCTYPE\s+html|html)", re.IGNORECASE)
_BINARY_LOOKED_AT = 4096
# Text whose form tells what reads it, with the name or without.
_FORMS: tuple[tuple[Callable[[Case, str], bool], Callable[[Case, str], tuple[Finding, ...]]], ...]
_FORMS = (
    (lambda case, _: is_requirements(case), requirements_findings),
    (is_modelfile, modelfile_findings),
    (is_ini, ini_findings),
    (lambda _, text: is_graph_prose(text), graph_prose_findings),
)


def text_findings(case: Case) -> tuple[Finding, ...] | None:
    """Judge bytes that match no known format, if they are text; None if they are not."""
    name = case.place.name.lower()
    extension = name.rpartition(".")[2] if "." in name else ""
    if extension in _SOURCES:
        text = f"is source code (.{extension}), which no model needs to bring along"
        return (case.found("scan.format.executable", Severity.MEDIUM, text),)
    head = _text(case.view[:_BINARY_LOOKED_AT], cut=True)
    if head is None:
        if extension not in (*_JSON, *_YAML, *_JINJA):
            return None
        text = f"is named as {extension} and is no text: it is damaged or another thing"
        return (case.found("scan.config.broken", Severity.HIGH, text),)
    if _XML.match(head) and not _HTML.match(head):
        return _xml(case)
    findings = None
    if extension in _JSON or head.lstrip()[:1] in ("{", "["):
        findings = json_findings(case, claimed=extension in _JSON)
    return _by_name(case, name, extension) if findings is None else findings


def _by_name(case: Case, name: str, extension: str) -> tuple[Finding, ...] | None:
    """Text that does not show what reads it."""
    if extension in _JINJA:
        return _template(case)
    if extension in _OTHER_TEMPLATES:
        grave = (each for each in _template(case) if each.severity is Severity.HIGH)
        return tuple(each for each in grave if each.rule != "scan.template.broken") or None
    claimed = extension in _YAML or name in _YAML_NAMES
    text = _text(case.view, cut=False) or ""
    packed = base64_findings(case, "", text)
    if packed:
        return packed
    formed = None if claimed else _formed(case, text)
    if formed is not None:
        return formed
    if extension in _TEXT_GRAPHS:
        return text_graph_findings(case)
    signs = len(case.view) <= _UNNAMED_BYTES_MAX and _YAML_SIGNS.search(case.view)
    return _yaml(case, claimed=claimed) if claimed or signs else None


def _formed(case: Case, text: str) -> tuple[Finding, ...] | None:
    """Judge text by its form; a form that is larger than what is looked at holds."""
    head = text[: case.settings.text_bytes_max]
    judge = next((judge for is_form, judge in _FORMS if is_form(case, head)), None)
    if judge is not None and len(head) < len(text):
        what = "is text that a loader acts on, and larger than what is looked at"
        return (case.found("scan.config.limit", Severity.MEDIUM, what),)
    return None if judge is None else judge(case, text)


def _xml(case: Case) -> tuple[Finding, ...]:
    """PMML and others: readers of XML open what entities name."""
    text = _text(case.view[: case.settings.text_bytes_max], cut=True) or ""
    match = _ENTITIES.search(text) or _XINCLUDE.search(text)
    dtd = _DTD.search(text)
    if match is None and dtd is not None and not _KNOWN_DTD.search(dtd[1]):
        match = dtd
    if match:
        what = f"its XML declares entities at {match.start()}: {printable(match[0], 60)!r} (XXE)"
        return (case.found("scan.xml.entity", Severity.HIGH, what),)
    if any(re.search(r"eval|exec|Runtime", each[1]) for each in _SCRIPT.finditer(text)):
        what = "its XML holds a script"
        return (case.found("scan.xml.script", Severity.MEDIUM, what),)
    return (case.found("scan.xml.plain", Severity.NOTE, "is XML without entities"),)


def _template(case: Case) -> tuple[Finding, ...]:
    text = _text(case.view[: 4 * case.settings.text_bytes_max], cut=False)
    if text is None:
        what = "is named as a template and is no text"
        return (case.found("scan.template.broken", Severity.HIGH, what),)
    return template_findings(case.place.subject, text)


def _yaml(case: Case, *, claimed: bool) -> tuple[Finding, ...] | None:
    if len(case.view) > case.settings.text_bytes_max:
        what = "is YAML, and larger than what is looked at"
        return (case.found("scan.yaml.limit", Severity.MEDIUM, what),)
    text = _text(case.view, cut=False)
    if text is None:
        what = "is named as YAML and is no text"
        return (case.found("scan.yaml.broken", Severity.HIGH, what),) if claimed else None
    findings = yaml_findings(case, text, claimed=claimed)
    return findings or (None if not claimed else ())


def _text(view: memoryview, *, cut: bool) -> str | None:
    """The bytes as text, if they are; `cut` allows the last character to be a part of one."""
    raw = bytes(view)
    encoding = "utf-8-sig"
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        encoding = "utf-16"
    elif raw[:4].count(0) > 1 or (len(raw) > 1 and raw[:2].count(0) == 1 and raw[:1] in b"<{[\0"):
        encoding = "utf-16-le" if raw[1:2] == b"\0" else "utf-16-be"
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as error:
        if not (cut and error.start >= len(raw) - 4):
            return None
        text = raw[: error.start].decode(encoding, "ignore")
    return None if "\0" in text else text
