"""YAML: its tags are judged, its values are judged as those of any document.

Theory of operation. Only PyYAML's parser runs (text to events); nothing is constructed. Tags arrive
resolved, however they were written (`!!python/…`, `!<tag:…>`, `%TAG`). From the events a plain
document is put together, aliases as references, with the size that it would have unrolled: a few
lines of anchors can stand for billions of values. Documents in front of a broken one count, because
loaders of streams have built them by then.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import yaml  # type: ignore[import-untyped] # has no stubs of its own

from modelkeep.core.verdict import Finding, Severity
from modelkeep.scan.cases import Case
from modelkeep.scan.documents import document_findings
from modelkeep.scan.evidence import printable
from modelkeep.scan.symbols import is_allowed, rewritten, runs_state
from modelkeep.scan.targets import target_severity

_CORE = "tag:yaml.org,2002:"
_PYTHON = _CORE + "python/"
_PLAIN = frozenset(
    {"null", "bool", "int", "float", "binary", "timestamp", "omap", "pairs", "set", "str", "seq",
     "map", "merge", "value"}
)  # fmt: skip
_PYTHON_PLAIN = frozenset(
    {"none", "bool", "str", "unicode", "bytes", "int", "long", "float", "complex", "list", "tuple",
     "dict"}
)  # fmt: skip
_UNROLLED_MAX = 10_000_000
_EVENTS_MAX = 1_000_000
_DEPTH_MAX = 200
# What trainers dump beside their numbers.
_USUAL = frozenset(
    {"argparse.Namespace", "collections.OrderedDict", "pathlib.PosixPath", "pathlib.Path",
     "pathlib._local.PosixPath", "pathlib.WindowsPath"}
)  # fmt: skip
# HyperPyYAML (SpeechBrain) imports and calls by tags of its own.
_HYPER = re.compile(r"!(new|apply|name|module):(.+)", re.DOTALL)
_INCLUDES = re.compile(
    r"!(?:include|import|file|env_?file|readfile|exec|eval|python|lambda|pickle)\b", re.IGNORECASE
)


@dataclass(slots=True)
class _Open:
    """A list or a mapping that is being put together; of a mapping, keys and values in turn."""

    value: Any
    anchor: str | None
    weight: int = 1
    key: Any = None
    has_key: bool = False


@dataclass(slots=True)
class _Build:
    """What has been read so far."""

    note: Callable[[str, Severity, str], None]
    documents: list[Any] = field(default_factory=list)
    stack: list[_Open] = field(default_factory=list)
    anchors: dict[str, tuple[Any, int]] = field(default_factory=dict)


def yaml_findings(case: Case, text: str, *, claimed: bool) -> tuple[Finding, ...] | None:
    """Judge text that may be YAML.

    Returns:
        None where it is no YAML and nothing claims that it is.
    """
    findings: list[Finding] = []

    def note(rule: str, severity: Severity, what: str) -> None:
        if len(findings) < case.settings.findings_max:
            findings.append(case.found("scan.yaml." + rule, severity, what))

    build = _Build(note)
    try:
        _built(text, build)
    except (yaml.YAMLError, ValueError) as error:
        if not claimed and not findings:
            return None
        what = f"does not parse as YAML: {' '.join(str(error).split())[:120]}"
        note("broken", Severity.HIGH, what)
    except RecursionError:
        note("depth", Severity.HIGH, "nests deeper than any document that a person wrote")
    for document in build.documents:
        if isinstance(document, dict | list):
            findings.extend(document_findings(case, document))
    return tuple(findings)


def _built(text: str, build: _Build) -> None:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    for count, event in enumerate(yaml.parse(text, Loader=loader)):
        if count > _EVENTS_MAX or len(build.stack) > _DEPTH_MAX:
            what = "holds more values, or nests deeper, than is looked at"
            build.note("limit", Severity.MEDIUM, what)
            return
        tag = getattr(event, "tag", None)
        if tag is not None:
            line = event.start_mark.line + 1 if event.start_mark else 0
            _tag(build, tag, line, getattr(event, "value", None))
        _take(build, event)


def _take(build: _Build, event: yaml.Event) -> None:
    """Put one event into what is being built."""
    if isinstance(event, yaml.ScalarEvent):
        _add(build, event.value, 1, event.anchor)
    elif isinstance(event, yaml.AliasEvent):
        if event.anchor not in build.anchors:
            raise ValueError(f"the alias {event.anchor!r:.40} stands for nothing")
        value, weight = build.anchors[event.anchor]
        _add(build, value, weight, None)
    elif isinstance(event, yaml.CollectionStartEvent):
        empty: Any = [] if isinstance(event, yaml.SequenceStartEvent) else {}
        build.stack.append(_Open(empty, event.anchor))
        if event.anchor is not None:
            build.anchors[event.anchor] = (empty, 1)
    elif isinstance(event, yaml.CollectionEndEvent):
        done = build.stack.pop()
        _add(build, done.value, done.weight, done.anchor)
    elif isinstance(event, yaml.DocumentStartEvent):
        build.anchors.clear()


def _add(build: _Build, value: Any, weight: int, anchor: str | None) -> None:
    if anchor is not None:
        build.anchors[anchor] = (value, weight)
    if not build.stack:
        build.documents.append(value)
        return
    parent = build.stack[-1]
    parent.weight += weight
    if parent.weight > _UNROLLED_MAX:
        build.note("bomb", Severity.HIGH, "its aliases stand for millions of values: a bomb")
        raise ValueError("the aliases stand for too many values")
    if isinstance(parent.value, list):
        parent.value.append(value)
    elif parent.has_key:
        key = parent.key if isinstance(parent.key, str) else repr(type(parent.key))
        parent.value.setdefault(key, value)
        parent.has_key = False
    else:
        parent.key, parent.has_key = value, True


def _tag(build: _Build, tag: str, line: int, value: Any) -> None:
    shown = f"line {line}: the tag {printable(tag, 100)}"
    if tag.startswith(_PYTHON):
        kind, _, name = tag[len(_PYTHON) :].partition(":")
        if kind in _PYTHON_PLAIN:
            return
        severity = _python_severity(kind, name)
        build.note("tag", severity, f"{shown} makes an object of Python")
    elif tag.startswith(_CORE):
        if tag[len(_CORE) :] not in _PLAIN:
            build.note("tag", Severity.HIGH, f"{shown} makes an object by its class's name")
    elif match := _HYPER.fullmatch(tag):
        severity = target_severity(match[2]) or Severity.NOTE
        build.note("tag", severity, f"{shown} imports and calls")
    elif "ruby/" in tag or "java" in tag or "clojure" in tag or "perl/" in tag or "php/" in tag:
        build.note("tag", Severity.HIGH, f"{shown} makes an object by its class's name")
    elif _INCLUDES.match(tag):
        text = f"{shown} reads {printable(str(value), 60)!r}"
        build.note("tag", Severity.MEDIUM, text)


def _python_severity(kind: str, name: str) -> Severity:
    module, _, last = name.rpartition(".")
    symbol = rewritten(module or "builtins", last)
    if kind == "name" and is_allowed(symbol):
        return Severity.NOTE
    if name in _USUAL:
        return Severity.NOTE
    if runs_state(symbol):
        return Severity.HIGH  # its class executes a text of its state
    known = (target_severity(name) if name else Severity.HIGH) or Severity.NOTE
    if kind in ("object/apply", "object/new", "module") and not is_allowed(symbol):
        return Severity.HIGH if known is not Severity.NOTE else Severity.MEDIUM
    return known if not is_allowed(symbol) else Severity.NOTE
