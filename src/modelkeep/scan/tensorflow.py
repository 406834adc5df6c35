"""TensorFlow graphs: SavedModel, meta graphs, frozen graphs; and Keras's metadata beside them.

A graph is a list of nodes, each with an operator and attributes. Running a model runs what its
inputs reach, and a SavedModel runs some nodes when it is loaded. So every node of every graph and
every function is looked at:

1. operators that read or write files, call Python, or open connections are denied;
2. operators that read files named by a constant are denied where that name leaves the model's
   folder; saving and restoring, which every SavedModel does, is judged only by such names;
3. a custom operator needs a library that somebody must load first: a note.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from modelkeep.core.errors import IntegrityError
from modelkeep.core.verdict import Finding, Severity
from modelkeep.kernels import protobuf
from modelkeep.kernels.protobuf import LENGTH, Field
from modelkeep.kernels.protokinds import inner_fields, text_of
from modelkeep.scan.cases import Case
from modelkeep.scan.evidence import printable
from modelkeep.scan.names import reaches_out

_NODES_MAX = 2_000_000
# Where nodes lie: the path of field numbers from the top, for each kind of file.
_GRAPH = ((1,), (2, 1, 3))
_PATHS: Mapping[str, tuple[tuple[int, ...], ...]] = {
    "graphdef": _GRAPH,
    "metagraph": tuple((2, *path) for path in _GRAPH),
    "savedmodel": tuple((2, 2, *path) for path in _GRAPH),
}
DANGEROUS: Mapping[str, str] = {
    **dict.fromkeys(("PyFunc", "PyFuncStateless", "EagerPyFunc", "NumpyFunc"), "calls Python"),
    **dict.fromkeys(("ReadFile", "WholeFileReader", "WholeFileReaderV2", "ImmutableConst"),
                    "reads any file"),
    **dict.fromkeys(("WriteFile", "PrintV2File"), "writes any file"),
    "MatchingFiles": "lists folders",
    "MatchingFilesDataset": "lists folders",
    "DeleteFile": "deletes files",
    **dict.fromkeys(("SaveDataset", "SaveDatasetV2", "SnapshotDataset", "SnapshotDatasetV2",
                     "DistributedSave", "CreateSummaryFileWriter", "CreateSummaryDbWriter",
                     "WriteAudioSummary2"), "writes files"),
    **dict.fromkeys(("DataServiceDataset", "DataServiceDatasetV2", "DataServiceDatasetV3",
                     "DataServiceDatasetV4", "RegisterDataset", "RegisterDatasetV2", "RpcCall",
                     "RpcClient", "RpcServer", "RpcServerStart", "Rpc", "TryRpc", "BigQueryReader",
                     "GcsConfigureCredentials", "GcsConfigureBlockCache", "KafkaDataset",
                     "SqlDataset"), "opens connections"),
    **dict.fromkeys(("ShellCommand", "Shell", "ExecuteCommand", "System", "Subprocess", "Popen",
                     "LoadLibrary", "LoadOpLibrary", "LoadPluggableDeviceLibrary"),
                    "runs foreign code"),
    "FileSystemSetConfiguration": "changes how files are reached",
}  # fmt: skip
# Readers of files that a pipeline for training may hold: what they read is not known here.
_READERS = frozenset(
    {"LoadDataset", "LoadDatasetV2", "TextLineDataset", "TFRecordDataset", "TFRecordDatasetV2",
     "FixedLengthRecordDataset", "FixedLengthRecordDatasetV2", "CSVDataset", "CSVDatasetV2",
     "TextLineReader", "TextLineReaderV2", "TFRecordReader", "TFRecordReaderV2",
     "FixedLengthRecordReader", "FixedLengthRecordReaderV2", "ListDataset", "CacheDataset",
     "CacheDatasetV2", "LMDBDataset", "LMDBReader"}
)  # fmt: skip
# Operators that name files and stand in every SavedModel.
_NAMING = frozenset(
    {"Save", "SaveV2", "SaveSlices", "Restore", "RestoreV2", "RestoreSlice", "ShardedFilename",
     "MergeV2Checkpoints", "InitializeTableFromTextFile", "InitializeTableFromTextFileV2",
     "ReaderReadUpTo", "CheckpointExists", *_READERS}
)  # fmt: skip
_DEBUG = re.compile(r"Debug(?:Identity|NanCount|NumericSummary|GradientIdentity)(?:V\d)?")
_PASSING = frozenset({"Identity", "IdentityN", "StringJoin", "Pack", "ConcatV2", "Reshape",
                      "ShardedFilename", "Substr", "AsString", "StaticRegexReplace", "Snapshot",
                      "ExpandDims", "Squeeze", "PartitionedCall",
                      "StatefulPartitionedCall"})  # fmt: skip
_CONSTANT = frozenset({"Const", "HostConst"})


# Text form: `op: "Name"`, also in parts and with escapes.
_QUOTED = re.compile(r'"(?:[^"\\\n]|\\.)*"|\'(?:[^\'\\\n]|\\.)*\'')
_TEXT_OPERATOR = re.compile(rf"\bop\s*:\s*((?:(?:{_QUOTED.pattern})\s*)+)")
_PYTHON_LAYER = re.compile(r"\bpython_param\s*:?\s*[{<]")
_ESCAPE = re.compile(r"\\([xX][0-9A-Fa-f]{1,2}|[0-7]{1,3}|.)")


class _Node(NamedTuple):
    name: str
    operator: str
    inputs: tuple[str, ...]
    attributes: tuple[Field, ...]


def graph_file_findings(kind: str, case: Case) -> tuple[Finding, ...]:
    """Judge a SavedModel, a MetaGraphDef or a GraphDef."""
    findings: list[Finding] = []
    try:
        _hold_whole(case.view, kind)
        for scope in _scopes(case.view, _PATHS[kind]):
            findings.extend(_scope_findings(case, scope))
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
    findings = []
    for match in _TEXT_OPERATOR.finditer(raw):
        quoted = (each[1:-1] for each in _QUOTED.findall(match[1]))
        name = _ESCAPE.sub(_unescaped, "".join(quoted)).rpartition(">")[2]
        if name in DANGEROUS:
            text = f"an operator at {match.start()}, {name}, {DANGEROUS[name]}"
            findings.append(case.found("scan.tensorflow.operator", Severity.HIGH, text))
    layer = _PYTHON_LAYER.search(raw)
    if layer is not None:
        text = f"a layer of Caffe at {layer.start()} is a class of Python"
        findings.append(case.found("scan.tensorflow.operator", Severity.HIGH, text))
    return tuple(findings[: case.settings.findings_max]) or (
        case.found("scan.tensorflow.text", Severity.NOTE, "is a graph as text, of usual operators"),
    )


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
    for start, stop in _spans(case.view, (2, 6)):
        for each in protobuf.fields(case.view, start, stop, groups_pass=True):
            name = text_of(case.view, each, 4096) if each.number == 2 else ""
            if reaches_out(name):
                text = f"an asset is {printable(name, 80)!r}, outside the model's folder"
                findings.append(case.found("scan.tensorflow.path", Severity.HIGH, text))
    return [each for each in findings if each.severity is not Severity.NOTE]


def _hold_whole(view: memoryview, kind: str) -> None:
    """Walk the top two levels to their end, so that a cut file is seen."""
    depth = len(_PATHS[kind][0])
    pending = [(0, len(view), 0)]
    while pending:
        start, stop, level = pending.pop()
        for each in protobuf.fields(view, start, stop, depth=level, groups_pass=True):
            is_inner = each.wire == LENGTH and each.number in (1, 2) and level + 1 < depth
            if is_inner and each.number == 2:
                pending.append((each.offset, each.offset + each.length, level + 1))


def _scopes(view: memoryview, paths: tuple[tuple[int, ...], ...]) -> Iterator[list[_Node]]:
    """The nodes of each graph and of each function."""
    for path in paths:
        for start, stop in _spans(view, path[:-1]):
            nodes = []
            for each in protobuf.fields(view, start, stop, groups_pass=True):
                if each.number == path[-1] and each.wire == LENGTH:
                    nodes.append(_node(view, each))
                    if len(nodes) > _NODES_MAX:
                        raise IntegrityError("protobuf.depth", "the graph has too many nodes")
            yield nodes


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


def _node(view: memoryview, field: Field) -> _Node:
    name, operator = "", ""
    inputs: list[str] = []
    attributes: list[Field] = []
    for each in protobuf.fields(view, field.offset, field.offset + field.length, groups_pass=True):
        if each.wire != LENGTH:
            continue
        if each.number == 1:
            name = text_of(view, each)
        elif each.number == 2:
            operator = text_of(view, each)
        elif each.number == 3:
            inputs.append(text_of(view, each).lstrip("^").partition(":")[0])
        elif each.number == 5:
            attributes.append(each)
    return _Node(name, operator, tuple(inputs), tuple(attributes))


def _scope_findings(case: Case, nodes: list[_Node]) -> list[Finding]:
    findings: list[Finding] = []
    by_name: dict[str, _Node] = {}
    for node in nodes:
        by_name.setdefault(node.name, node)
    for node in nodes:
        where = f"node {printable(node.name, 60)!r} ({printable(node.operator, 40)})"
        plain = node.operator.rpartition(">")[2]
        if plain in DANGEROUS:
            text = f"{where} {DANGEROUS[plain]}"
            findings.append(case.found("scan.tensorflow.operator", Severity.HIGH, text))
        elif plain in _NAMING:
            findings.extend(_path_findings(case, node, by_name, where))
        elif _DEBUG.fullmatch(plain) or plain == "PrintV2":
            findings.extend(_address_findings(case, node, where))
        if len(findings) > case.settings.findings_max:
            break
    return findings


def _path_findings(
    case: Case, node: _Node, by_name: Mapping[str, _Node], where: str
) -> list[Finding]:
    """Files named by constants that lead out of the model's folder."""
    findings = []
    texts = list(_constants(case.view, node, by_name))
    outside = [text for text in texts if reaches_out(text) and not text.startswith("/part")]
    plain = node.operator.rpartition(">")[2]
    if outside:
        text = f"{where} opens {printable(outside[0], 80)!r}"
        findings.append(case.found("scan.tensorflow.path", Severity.HIGH, text))
    elif plain in _READERS:
        text = f"{where} reads a file that the graph names"
        findings.append(case.found("scan.tensorflow.reader", Severity.MEDIUM, text))
    return findings


def _constants(view: memoryview, node: _Node, by_name: Mapping[str, _Node]) -> Iterator[str]:
    """Texts that reach a node's first inputs through nodes that only pass or join them."""
    pending = list(node.inputs[:1])
    seen: set[str] = set()
    while pending and len(seen) < 200:
        name = pending.pop()
        source = by_name.get(name)
        if name in seen or source is None:
            continue
        seen.add(name)
        if source.operator in _CONSTANT:
            yield from _attribute_texts(view, source)
        elif source.operator in _PASSING:
            pending.extend(source.inputs[:1] if source.operator == "StringJoin" else source.inputs)


def _address_findings(case: Case, node: _Node, where: str) -> list[Finding]:
    """Operators that send what they see to an address."""
    usual = ("stderr", "stdout", "log(info)", "log(warning)", "log(error)")
    for text in _attribute_texts(case.view, node):
        if "://" in text and text not in usual:
            what = f"{where} sends what it sees to {printable(text, 80)!r}"
            return [case.found("scan.tensorflow.address", Severity.HIGH, what)]
    return []


def _attribute_texts(view: memoryview, node: _Node) -> Iterator[str]:
    """Texts of a node's attributes: `s`, those of a list, and those of a tensor."""
    for entry in node.attributes:
        for value in inner_fields(view, entry):
            if value.number != 2 or value.wire != LENGTH:
                continue
            for each in inner_fields(view, value):
                if each.wire != LENGTH:
                    continue
                if each.number == 2:
                    yield text_of(view, each, 4096)
                wanted = {1: 2, 8: 8}.get(each.number)  # AttrValue.list.s, .tensor.string_val
                for part in inner_fields(view, each) if wanted else ():
                    if part.number == wanted and part.wire == LENGTH:
                        yield text_of(view, part, 4096)
