"""ONNX written as text (`onnx.save(..., format="textproto")`): its operators and its files.

Theory of operation. protobuf's text form is a row of `name: value` and `name { … }`. No runtime
reads it, only tools that turn it into the binary form; so what is judged here is what would harm
them on the way and after it: bytes taken from files outside the folder, and operators that run
foreign code. Whether the graph is whole, the binary form is judged for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from modelkeep.core.verdict import Finding, Severity
from modelkeep.scan.cases import Case
from modelkeep.scan.evidence import printable
from modelkeep.scan.names import reaches_out
from modelkeep.scan.operators import DEFAULT_DOMAIN, operator_severity

_SIGN = re.compile(r"(?:^|[\s;,}>])(ir_version|graph)[ \t]{0,8}[:{<]")
_SIGNS_MAX = 64
_TOKEN = re.compile(
    r"""\s+|\#[^\n]*|(?P<text>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')|(?P<open>[{<])"""
    r"""|(?P<close>[}>])|(?P<mark>[:;,\[\]])|(?P<word>[\w.+/-]+)"""
)
_ESCAPE = re.compile(r"\\(x[0-9A-Fa-f]{1,2}|[0-7]{1,3}|.)", re.DOTALL)
_LETTERS = {"n": "\n", "t": "\t", "r": "\r"}
_DEPTH_MAX = 100
_TEXT_CHARS_MAX = 10_000


@dataclass(slots=True)
class _Message:
    """One message that is being read: its name, and its texts by their names."""

    name: str
    texts: dict[str, str] = field(default_factory=dict)

    def take(self, name: str, quoted: str, *, is_joined: bool) -> None:
        """Keep a text; one that stands right behind another continues it."""
        before = self.texts.get(name, "") if is_joined else ""
        plain = _ESCAPE.sub(_unescaped, quoted[1:-1])
        self.texts[name] = (before + plain)[:_TEXT_CHARS_MAX]


def is_graph_prose(text: str) -> bool:
    """Whether a text begins as a model of ONNX does."""
    signs = zip(range(_SIGNS_MAX), _SIGN.finditer(text), strict=False)
    return {match[1] for _, match in signs} == {"ir_version", "graph"}


def graph_prose_findings(case: Case, text: str) -> tuple[Finding, ...]:
    """Judge the operators and files of a model that is written as text."""
    findings: list[Finding] = []
    functions: set[str] = set()
    used: dict[tuple[str, str], None] = {}
    try:
        for message in _messages(text):
            texts = message.texts
            if message.name == "node":
                used[texts.get("domain", "") or DEFAULT_DOMAIN, texts.get("op_type", "")] = None
            elif message.name == "functions":
                functions.add(texts.get("name", ""))
            elif texts.get("key") == "location" and reaches_out(texts.get("value", "")):
                where = printable(texts["value"], 100)
                what = f"a tensor reads its bytes from outside the model's folder: {where!r}"
                findings.append(case.found("scan.graph.external", Severity.HIGH, what))
    except ValueError as error:
        what = f"is ONNX as text and does not parse: {error!s:.100}"
        findings.append(case.found("scan.graph.broken", Severity.MEDIUM, what))
    for domain, op_type in used:
        severity, what = operator_severity(domain, op_type)
        if severity is not None and op_type not in functions:
            rule = "operator" if severity is Severity.HIGH else "domain"
            findings.append(case.found("scan.graph." + rule, severity, what))
    what = "is ONNX as text: of it, operators and files are judged"
    findings.append(case.found("scan.graph.text", Severity.NOTE, what))
    return tuple(findings[: case.settings.findings_max])


def _messages(text: str) -> Iterator[_Message]:
    """Every message once it ends, inner ones first.

    Raises:
        ValueError: the text is no text of protobuf, or nests too deep.
    """
    stack = [_Message("")]
    name, is_joined = "", False
    for match in _tokens(text):
        kind, token = match.lastgroup, match[0]
        if kind == "word":
            name = token
        elif kind == "text":
            stack[-1].take(name, token, is_joined=is_joined)
        elif kind == "open":
            stack.append(_Message(name))
        elif kind == "close":
            yield stack.pop()
        is_joined = kind == "text"
        if not 0 < len(stack) <= _DEPTH_MAX:
            raise ValueError(f"its marks do not match at character {match.start()}")
    if len(stack) != 1:
        raise ValueError("it ends inside a message")


def _tokens(text: str) -> Iterator[re.Match[str]]:
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise ValueError(f"an unknown mark at character {at}")
        at = match.end()
        if match.lastgroup is not None:  # neither space nor a comment
            yield match


def _unescaped(match: re.Match[str]) -> str:
    code = match[1]
    if code[0] == "x" and len(code) > 1:
        return chr(int(code[1:], 16))
    return chr(int(code, 8)) if code.isdigit() else _LETTERS.get(code, code)
