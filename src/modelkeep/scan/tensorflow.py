"""TensorFlow graphs: SavedModel, meta graphs, frozen graphs; and Keras's metadata beside them.

A graph is a list of nodes, each with an operator and attributes. Running a model runs what its
inputs reach, and a SavedModel runs some nodes when it is loaded. So every node of every graph and
every function is looked at (`modelkeep.scan.tensorflow_ops` has the operators):

1. operators that no honest model runs (files, Python, connections) are denied;
2. savers write files, and stand in every SavedModel: honest is one that nothing but TensorFlow's
   own saving runs, with a name that comes from there;
3. readers of named files are denied where the name leaves the model's folder, and held where it
   cannot be told;
4. TensorFlow's operators that nobody has looked at are held; a custom operator needs a library that
   somebody must load first: a note.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from modelkeep.core.errors import IntegrityError
from modelkeep.core.verdict import Finding, Severity
from modelkeep.kernels import protobuf
from modelkeep.kernels.protobuf import LENGTH
from modelkeep.kernels.protokinds import inner_fields
from modelkeep.scan import tensorflow_ops
from modelkeep.scan.cases import Case
from modelkeep.scan.evidence import listed, printable
from modelkeep.scan.names import is_remote, reaches_out
from modelkeep.scan.tensorflow_growth import growth_findings
from modelkeep.scan.tensorflow_names import Kind, Origins, Walk
from modelkeep.scan.tensorflow_nodes import Graph, Node, Scope, graphs_of, texts_of
from modelkeep.scan.tensorflow_ops import plain_name, use_of

# How many messages lie around a node.
_DEPTHS: Mapping[str, int] = {"graphdef": 1, "metagraph": 2, "savedmodel": 3}
DANGEROUS = tensorflow_ops.DANGEROUS
# Beginnings of a name that no training writes its vocabulary to.
_SYSTEM = re.compile(r"(?:file:/*)?/+(?:etc|proc|sys|dev|root|boot|run|var/run)(?:/|$)|.*/\.")
_SHARD = "/part"


# Text form: `op: "Name"`, also in parts and with escapes.
_QUOTED = re.compile(r'"(?:[^"\\\n]|\\.)*"|\'(?:[^\'\\\n]|\\.)*\'')
_TEXT_OPERATOR = re.compile(rf"\bop\s*:\s*((?:(?:{_QUOTED.pattern})\s*)+)")
# One text in parts; an unclosed one goes to the end of its line, so that none is read twice.
_QUOTED_PARTS = re.compile(r"""(?:(?:"(?:[^"\\\n]|\\.)*+"?|'(?:[^'\\\n]|\\.)*+'?)\s*+)++""")
_QUOTED_PART = re.compile(r"""(["'])((?:(?!\1)[^\\\n]|\\.)*+)\1?""")
_ADDRESSES = frozenset({"output_stream", "debug_urls"})
_NEAR = 8
_PYTHON_LAYER = re.compile(r"\bpython_param\s*:?\s*[{<]")
_ESCAPE = re.compile(r"\\([xX][0-9A-Fa-f]{1,2}|[0-7]{1,3}|.)")


def graph_file_findings(kind: str, case: Case) -> tuple[Finding, ...]:
    """Judge a SavedModel, a MetaGraphDef or a GraphDef."""
    findings: list[Finding] = []
    try:
        _hold_whole(case.view, kind)
        for graph in graphs_of(case.view, kind):
            findings.extend(_graph_findings(case, graph))
            if len(findings) > case.settings.findings_max:
                break
        if kind == "savedmodel":
            findings.extend(_object_findings(case))
    except IntegrityError as error:
        text = f"does not parse as a TensorFlow graph: {error.message}"
        findings.append(case.found("scan.tensorflow.broken", Severity.HIGH, text))
    return tuple(findings)


def text_graph_findings(case: Case) -> tuple[Finding, ...]:
    """Judge a graph written as text: its operators by name."""
    raw = str(case.view[: case.settings.text_bytes_max], "utf-8", "replace")
    findings: list[Finding] = []
    senders: set[str] = set()
    for match in _TEXT_OPERATOR.finditer(raw):
        quoted = (each[1:-1] for each in _QUOTED.findall(match[1]))
        name = _ESCAPE.sub(_unescaped, "".join(quoted))
        findings.extend(_text_operator_findings(case, name, match.start()))
        if plain_name(name) in tensorflow_ops.SENDERS:
            senders.add(name)
    if senders:
        findings.extend(_text_address_findings(case, raw, senders))
    layer = _PYTHON_LAYER.search(raw)
    if layer is not None:
        text = f"a layer of Caffe at {layer.start()} is a class of Python"
        findings.append(case.found("scan.tensorflow.operator", Severity.HIGH, text))
    return tuple(findings[: case.settings.findings_max]) or (
        case.found("scan.tensorflow.text", Severity.NOTE, "is a graph as text, of usual operators"),
    )


def _text_operator_findings(case: Case, operator: str, offset: int) -> Iterator[Finding]:
    """One operator of a text: names of files are not followed there, so more is held."""
    name = plain_name(operator)
    where = f"an operator at {offset}, {printable(operator, 60)},"
    if name in DANGEROUS:
        text = f"{where} {DANGEROUS[name]}"
        yield case.found("scan.tensorflow.operator", Severity.HIGH, text)
    elif name in tensorflow_ops.PIPELINES:
        text = f"{where} reads a file that the graph names"
        yield case.found("scan.tensorflow.reader", Severity.MEDIUM, text)
    elif use_of(operator) == "held":
        text = f"{where} is not known to be harmless"
        yield case.found("scan.tensorflow.operator", Severity.MEDIUM, text)


def _text_address_findings(case: Case, raw: str, senders: set[str]) -> Iterator[Finding]:
    """Addresses near the attributes that hold them; a text may give the value before the key."""
    texts = [
        _ESCAPE.sub(_unescaped, "".join(each[2] for each in _QUOTED_PART.finditer(match[0])))
        for match in _QUOTED_PARTS.finditer(raw)
    ]
    for at, text in enumerate(texts):
        near = texts[max(0, at - _NEAR) : at + _NEAR] if text in _ADDRESSES else ()
        remote = [each for each in near if is_remote(each)]
        if remote:
            what = f"{listed(sorted(senders))} sends what it sees to {printable(remote[0], 80)!r}"
            yield case.found("scan.tensorflow.address", Severity.HIGH, what)
            return


def _unescaped(match: re.Match[str]) -> str:
    code = match[1]
    if code[:1] in "xX":
        return chr(int(code[1:], 16))
    return chr(int(code, 8)) if code.isdigit() else code


def metadata_findings(case: Case) -> tuple[Finding, ...]:
    """Judge keras_metadata.pb: one JSON text for each object."""
    findings: list[Finding] = []
    try:
        for top in protobuf.fields(case.view):
            for part in inner_fields(case.view, top) if top.wire == LENGTH else ():
                if part.number == 5 and part.wire == LENGTH:
                    view = case.view[part.offset : part.offset + part.length]
                    findings.extend(case.inner(f"metadata@{part.offset}.json", view))
    except IntegrityError as error:
        text = f"does not parse as Keras's metadata: {error.message}"
        findings.append(case.found("scan.tensorflow.broken", Severity.HIGH, text))
    return tuple(findings)


def _object_findings(case: Case) -> list[Finding]:
    """Keras before TensorFlow 2.5 kept its configuration with the objects of a SavedModel."""
    findings: list[Finding] = []
    for start, stop in _spans(case.view, (2, 7, 1, 4)):
        for each in protobuf.fields(case.view, start, stop, groups_pass=True):
            if each.number == 3 and each.wire == LENGTH and each.length:
                view = case.view[each.offset : each.offset + each.length]
                if bytes(view[:1]) == b"{":
                    findings.extend(case.inner(f"object@{each.offset}.json", view))
    return [each for each in findings if each.severity is not Severity.NOTE]


def _hold_whole(view: memoryview, kind: str) -> None:
    """Walk the top two levels to their end, so that a cut file is seen."""
    depth = _DEPTHS[kind]
    pending = [(0, len(view), 0)]
    while pending:
        start, stop, level = pending.pop()
        for each in protobuf.fields(view, start, stop, depth=level, groups_pass=True):
            is_inner = each.wire == LENGTH and each.number in (1, 2) and level + 1 < depth
            if is_inner and each.number == 2:
                pending.append((each.offset, each.offset + each.length, level + 1))


def _spans(view: memoryview, path: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    spans = [(0, len(view))]
    for number in path:
        spans = [
            (each.offset, each.offset + each.length)
            for start, stop in spans
            for each in protobuf.fields(view, start, stop, groups_pass=True)
            if each.number == number and each.wire == LENGTH
        ]
    yield from spans


# ---- operators --------------------------------------------------------------------------------


def _graph_findings(case: Case, graph: Graph) -> list[Finding]:
    findings: list[Finding] = []
    for _, node in graph.dangerous:
        text = f"{_where(node)} {DANGEROUS[plain_name(node.operator)]}"
        findings.append(case.found("scan.tensorflow.operator", Severity.HIGH, text))
    for name in filter(reaches_out, graph.asset_files):
        text = f"an asset is {printable(name, 80)!r}, outside the model's folder"
        findings.append(case.found("scan.tensorflow.path", Severity.HIGH, text))
    findings.extend(_watched_findings(case, graph))
    for scope, node in graph.growing:
        findings.extend(growth_findings(case, scope, node))
    findings.extend(_address_findings(case, graph))
    findings.extend(_shadow_findings(case, graph))
    if graph.is_partial:
        text = "the graph has too many nodes for its names to be followed"
        findings.append(case.found("scan.tensorflow.limit", Severity.MEDIUM, text))
    return findings


def _watched_findings(case: Case, graph: Graph) -> list[Finding]:
    """Operators that name a file, those that nobody has looked at, and those of others."""
    findings: list[Finding] = []
    walk = Walk(case.view, graph)
    custom: set[str] = set()
    for scope, node in graph.watched:
        plain = plain_name(node.operator)
        if plain in tensorflow_ops.NAMED_INPUTS:
            findings.extend(_named_findings(case, walk, scope, node))
        elif plain in tensorflow_ops.NAMED_ATTRIBUTES:
            findings.extend(_attribute_findings(case, node))
        elif not use_of(node.operator) and node.operator not in graph.functions:
            custom.add(node.operator)
        elif use_of(node.operator) == "held":
            text = f"{_where(node)} is not known to be harmless"
            findings.append(case.found("scan.tensorflow.operator", Severity.MEDIUM, text))
        if len(findings) > case.settings.findings_max:
            break
    findings.extend(_custom_findings(case, custom))
    return findings


def _where(node: Node) -> str:
    return f"node {printable(node.name, 60)!r} ({printable(node.operator, 40)})"


def _custom_findings(case: Case, operators: set[str]) -> Iterator[Finding]:
    """Operators of nobody that is known; those of tensorflow-io open files and connections."""
    foreign = {
        each for each in operators if each.partition(">")[0] in tensorflow_ops.FOREIGN_NAMESPACES
    }
    if foreign:
        text = f"operators that open files or connections: {listed(sorted(foreign))}"
        yield case.found("scan.tensorflow.custom", Severity.MEDIUM, text)
    if operators - foreign:
        text = f"custom operators, which need a library: {listed(sorted(operators - foreign))}"
        yield case.found("scan.tensorflow.custom", Severity.NOTE, text)


def _shadow_findings(case: Case, graph: Graph) -> Iterator[Finding]:
    """A function that is called as an operator is would be run in its place."""
    shadows = [each for each in graph.functions if use_of(each)]
    if shadows:
        text = f"functions have the names of operators: {listed(shadows)}"
        yield case.found("scan.tensorflow.operator", Severity.MEDIUM, text)


# ---- names of files ---------------------------------------------------------------------------


def _named_findings(case: Case, walk: Walk, scope: Scope, node: Node) -> Iterator[Finding]:
    plain = plain_name(node.operator)
    values = node.values
    for place in tensorflow_ops.NAMED_INPUTS[plain]:
        if place >= len(values):
            text = f"{_where(node)} lacks the input that names its file"
            yield case.found("scan.tensorflow.reader", Severity.MEDIUM, text)
            continue
        origins = walk.origins(scope, values[place])
        outside = _outside(origins)
        if outside:
            text = f"{_where(node)} opens {printable(outside[0], 80)!r}"
            yield case.found("scan.tensorflow.path", Severity.HIGH, text)
        elif plain in tensorflow_ops.WRITERS:
            yield from _writer_findings(case, node, origins, is_live=walk.is_live(scope, node))
        elif plain in tensorflow_ops.CACHES:
            yield from _cache_findings(case, node, origins)
        elif plain in tensorflow_ops.READERS:
            yield from _reader_findings(case, node, origins)
    if plain in tensorflow_ops.PIPELINES:
        text = f"{_where(node)} reads a file that the graph names"
        yield case.found("scan.tensorflow.reader", Severity.MEDIUM, text)


def _outside(origins: Origins) -> list[str]:
    """Constants that lead out of the model's folder."""
    every = {*origins.whole, *origins.parts, *origins.defaults}
    found = [text for text in every if reaches_out(text)]
    found = [text for text in found if text not in origins.parts or not _is_shard(text)]
    found += [text for text in origins.parts if not text.strip("./\\") and "." in text]
    found += [text for text in origins.assets if reaches_out(text) and _SYSTEM.match(text)]
    return sorted(found)


def _is_shard(text: str) -> bool:
    """What savers put behind the name that they are given, or between the parts of a name."""
    return text == "/" or (text.startswith(_SHARD) and not reaches_out(text[1:]))


def _writer_findings(
    case: Case, node: Node, origins: Origins, *, is_live: bool
) -> Iterator[Finding]:
    """A saver: honest is one with a name from outside that the model's callers do not reach."""
    constants = origins.whole | origins.parts | origins.defaults | origins.assets
    if not is_live and not origins.whole and origins.kinds <= {Kind.SAVER, Kind.FED}:
        if origins.kinds:
            return
    elif not constants and origins.kinds == {Kind.CALLER}:
        text = f"{_where(node)} writes a file that its caller names"
        yield case.found("scan.tensorflow.writer", Severity.MEDIUM, text)
        return
    what = printable(min(constants), 80) if constants else "a name that is computed"
    text = f"{_where(node)} writes files when the model runs: {what!r}"
    yield case.found("scan.tensorflow.writer", Severity.HIGH, text)


def _cache_findings(case: Case, node: Node, origins: Origins) -> Iterator[Finding]:
    constants = {*origins.whole, *origins.parts, *origins.defaults, *origins.assets} - {""}
    if constants:
        text = f"{_where(node)} writes a cache to {printable(min(constants), 80)!r}"
        yield case.found("scan.tensorflow.writer", Severity.HIGH, text)
    elif origins.kinds:
        text = f"{_where(node)} writes a cache to a file that cannot be told"
        yield case.found("scan.tensorflow.writer", Severity.MEDIUM, text)


def _reader_findings(case: Case, node: Node, origins: Origins) -> Iterator[Finding]:
    is_given = bool(origins.kinds & {Kind.SAVER, Kind.ASSET, Kind.FED})
    is_made = bool(origins.parts) and not is_given
    if is_made or origins.kinds & {Kind.UNKNOWN, Kind.COMPUTED, Kind.CALLER}:
        text = f"{_where(node)} reads a file whose name cannot be told before it runs"
        yield case.found("scan.tensorflow.reader", Severity.MEDIUM, text)


def _attribute_findings(case: Case, node: Node) -> Iterator[Finding]:
    """Operators that name their file in an attribute."""
    key, harmless = tensorflow_ops.NAMED_ATTRIBUTES[plain_name(node.operator)]
    texts, is_hidden = texts_of(case.view, node, key)
    named = [text for text in texts if text and not text.startswith(harmless)]
    outside = [text for text in named if reaches_out(text)]
    if outside:
        text = f"{_where(node)} opens {printable(outside[0], 80)!r}"
        yield case.found("scan.tensorflow.path", Severity.HIGH, text)
    elif named or is_hidden:
        text = f"{_where(node)} reads a file that the graph names"
        yield case.found("scan.tensorflow.reader", Severity.MEDIUM, text)


def _address_findings(case: Case, graph: Graph) -> Iterator[Finding]:
    """Operators that send what they see to an address."""
    for node in graph.sending:
        texts, is_hidden = texts_of(case.view, node)
        remote = [text for text in texts if "://" in text]
        if remote:
            text = f"{_where(node)} sends what it sees to {printable(remote[0], 80)!r}"
            yield case.found("scan.tensorflow.address", Severity.HIGH, text)
        elif is_hidden:
            text = f"{_where(node)} sends what it sees to an address that cannot be told"
            yield case.found("scan.tensorflow.address", Severity.MEDIUM, text)
