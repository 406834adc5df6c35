"""Findings about ONNX files: whole, closed in themselves, and without foreign code.

Why the scanner insists on more than the loader does: to protobuf every field is optional, so a file
that was cut at a field boundary is well formed. onnxruntime 1.31 refuses it without a graph or any
opset_import, but loads it when only one of two imports is gone, and then guesses that operator
set's version. So what a whole model must have is demanded here, in the order in which writers
write it:

1. an ir_version, a graph with a name, nodes and outputs, an opset_import;
2. an opset_import for the domain of every operator used;
3. every value that a node reads is produced before it: by an input, an initializer, an earlier
   node or an enclosing graph; and every output of a graph by its nodes;
4. every initializer has exactly the bytes that its shape and type need, inside the file;
5. functions are closed in the same sense and never call themselves.

What a whole file holds beyond that (metadata, an import that is repeated or that nothing uses)
could be cut off without a trace: that such a file lacks anything is nothing the bytes can tell,
only a signature can.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from itertools import chain

from modelkeep.core.errors import IntegrityError
from modelkeep.core.verdict import Finding, Severity
from modelkeep.kernels.onnxmodel import (
    ELEMENTS,
    OnnxFunction,
    OnnxGraph,
    OnnxModel,
    OnnxNode,
    OnnxTensor,
)
from modelkeep.kernels.tensors import onnx_layout
from modelkeep.scan.evidence import found, listed, printable
from modelkeep.scan.graph_growth import growths_of
from modelkeep.scan.graph_sizes import bombs_of
from modelkeep.scan.operators import (
    DEFAULT_DOMAIN,
    is_built_in,
    metadata_of,
    operator_severity,
    outside_files,
)
from modelkeep.scan.prompts import metadata_findings
from modelkeep.scan.settings import ScanSettings

# ONNX 1.23 writes 14 at most; a later one may mean what this scanner has not heard of.
_IR_VERSION_MAX = 14
# Which typed field holds the elements of which type (onnx.proto, TensorProto).
_TYPED_FIELD: Mapping[int, str] = {
    **dict.fromkeys((1, 14), "float_data"),
    **dict.fromkeys(
        (2, 3, 4, 5, 6, 9, 10, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26), "int32_data"
    ),
    7: "int64_data",
    8: "string_data",
    **dict.fromkeys((11, 15), "double_data"),
    **dict.fromkeys((12, 13), "uint64_data"),
}
# Top-level fields that a cut may fall into.
_MODEL_PARTS = {
    7: "graph",
    8: "opset_import",
    14: "metadata_props",
    20: "training_info",
    25: "functions",
}
# Names that can be read here: one set per enclosing graph, outermost first.
_Scopes = tuple[set[str], ...]
_BITS_PER_BYTE = 8
_BOMBS_SHOWN = 5
_FILES_SHOWN = 5
_COMPLEX = (14, 15)
_STRING = 8


def graph_findings(subject: str, view: memoryview, settings: ScanSettings) -> tuple[Finding, ...]:
    """Judge an ONNX file."""
    try:
        model = onnx_layout(view)
    except IntegrityError as error:
        text = f"does not parse as ONNX: {error.message}"
        if error.code == "protobuf.truncated":
            number = int(error.context.get("number", 0))
            part = (
                _MODEL_PARTS.get(number, f"field {number}")
                if error.context.get("depth") == 0
                else ""
            )
            where = f"the file ends inside its {part}" if part else error.message
            text = f"{where}: it is cut short or damaged"
        return (found("scan.graph.broken", Severity.HIGH, subject, text),)
    judge = _Judge(subject, settings.findings_max)
    judge.model(model)
    bombs = chain(bombs_of(view, model), growths_of(view, model))
    for _, (is_sure, text) in zip(range(_BOMBS_SHOWN), bombs, strict=False):
        judge.note("bomb", Severity.HIGH if is_sure else Severity.MEDIUM, printable(text))
    if not all(is_built_in(_domain(domain)) for domain, _ in model.opset_imports):
        for _, text in zip(range(_FILES_SHOWN), outside_files(view), strict=False):
            judge.note("file", Severity.HIGH, f"a foreign operator's {text}, a file elsewhere")
    if any(key.lower().endswith("template") for key, _ in model.metadata):
        judge.findings.extend(metadata_findings(subject, metadata_of(view)))
    return tuple(judge.findings)


@dataclass(slots=True)
class _Judge:
    """Collects the findings of one model; each kind of text once."""

    subject: str
    findings_max: int
    findings: list[Finding] = field(default_factory=list)

    def note(self, rule: str, severity: Severity, text: str) -> None:
        # A grave finding is not lost behind many light ones.
        limit = self.findings_max * (2 if severity is Severity.HIGH else 1)
        if len(self.findings) < limit:
            self.findings.append(found("scan.graph." + rule, severity, self.subject, text))

    # ---- 1: the whole ----

    def model(self, model: OnnxModel) -> None:
        """Judge everything, coarse before fine."""
        if model.ir_version < 1:
            self.note("ir_version", Severity.HIGH, "has no ir_version: it is no whole ONNX file")
        elif model.ir_version > _IR_VERSION_MAX:
            text = f"has ir_version {model.ir_version}, which this scanner does not know"
            self.note("ir_version", Severity.MEDIUM, text)
        if model.unknown_fields:
            text = f"holds fields that ONNX does not have: {listed(model.unknown_fields)}"
            self.note("unknown_field", Severity.MEDIUM, text)
        if model.trainings:
            self.note("training", Severity.MEDIUM, "holds training graphs, which are not judged")
        if model.graph is None:
            self.note("graph", Severity.HIGH, "the file ends before its graph: it is cut short")
            return
        imports = self._imports(model.opset_imports)
        if not imports:
            text = "the file ends before its opset_import: it is cut short"
            self.note("opset", Severity.HIGH, text)
        self._whole(model.graph)
        functions = frozenset((_domain(each.domain), each.name) for each in model.functions)
        if imports:
            self._domains(model.graph.nodes, imports, functions)
        self._graph(model.graph, ())
        for function in model.functions:
            self._function(function, functions, imports)
        self._recursion(model.functions)

    def _whole(self, graph: OnnxGraph) -> None:
        missing = [
            what
            for what, there in (
                ("name", graph.name),
                ("nodes", graph.nodes),
                ("outputs", graph.outputs),
            )
            if not there
        ]
        if missing:
            text = f"the graph has no {' and no '.join(missing)}: it is cut short"
            self.note("graph", Severity.HIGH, text)

    def _imports(self, opsets: Iterable[tuple[str, int]]) -> dict[str, int]:
        imports: dict[str, int] = {}
        for domain, version in opsets:
            name = _domain(domain)
            if version < 1:
                text = f"imports {name} without a version: it is cut short"
                self.note("opset", Severity.HIGH, text)
            if imports.setdefault(name, version) != version:
                text = f"imports {printable(name)} in versions {imports[name]} and {version}"
                self.note("opset", Severity.HIGH, text)
        return imports

    # ---- 2: domains ----

    def _domains(
        self,
        nodes: Iterable[OnnxNode],
        imports: Mapping[str, int],
        functions: frozenset[tuple[str, str]],
    ) -> None:
        every = list(_all_nodes(nodes))
        for domain in sorted({_domain(node.domain) for node in every} - set(imports)):
            text = f"uses {printable(domain)} but has no opset_import for it: it is cut short"
            self.note("opset", Severity.HIGH, text)
        for domain, op_type in sorted({(_domain(node.domain), node.op_type) for node in every}):
            if (domain, op_type) in functions:
                continue
            severity, text = operator_severity(domain, op_type)
            if severity is not None:
                rule = "operator" if severity is Severity.HIGH else "domain"
                self.note(rule, severity, text)

    # ---- 3: every value is produced before it is read ----

    def _graph(self, graph: OnnxGraph, outer: _Scopes) -> None:
        names = [tensor.name for tensor in (*graph.initializers, *graph.sparse) if tensor.name]
        if len(set(names)) < len(names):
            self.note("duplicate", Severity.HIGH, "has two initializers of one name")
        for tensor in (*graph.initializers, *graph.sparse):
            self._tensor(tensor, f"initializer {printable(tensor.name)!r}")
        known = {port.name for port in graph.inputs} | set(names)
        self._nodes(graph.nodes, known, outer)
        self._outputs((port.name for port in graph.outputs), (*outer, known))

    def _nodes(self, nodes: Iterable[OnnxNode], known: set[str], outer: _Scopes) -> None:
        """Walk nodes in order; `known` grows by what they produce."""
        scopes = (*outer, known)
        for node in nodes:
            if not node.op_type:
                self.note("node", Severity.HIGH, "a node has no operator: it is cut short")
            missing = [name for name in node.inputs if name and not _is_in(scopes, name)]
            if missing:
                text = f"{_label(node)} reads {listed(missing)}, which nothing before it produces"
                self.note("order", Severity.HIGH, text)
            for tensor in node.tensors:
                self._tensor(tensor, f"a constant of {_label(node)}")
            for graph in node.subgraphs:
                self._graph(graph, scopes)
            twice = [name for name in node.outputs if name and name in known]
            if twice:
                text = f"{_label(node)} produces {listed(twice)}, which is there already"
                self.note("duplicate", Severity.HIGH, text)
            known.update(name for name in node.outputs if name)

    def _outputs(self, names: Iterable[str], scopes: _Scopes) -> None:
        missing = [name for name in names if not _is_in(scopes, name)]
        if missing:
            text = f"nothing produces the output {listed(missing)}: the graph is cut short"
            self.note("output", Severity.HIGH, text)

    # ---- 4: tensors ----

    def _tensor(self, tensor: OnnxTensor, what: str) -> None:
        if "external" in tensor.storage:
            self._external(tensor, what)
            return
        known = ELEMENTS.get(tensor.element_type)
        if known is None:
            text = f"{what} has the unknown type {tensor.element_type}"
            self.note("initializer", Severity.HIGH, text)
            return
        elements = 1
        for size in tensor.shape:
            elements *= size
        if tensor.storage == "raw":
            needed = (elements * known[1] + _BITS_PER_BYTE - 1) // _BITS_PER_BYTE
            if tensor.element_type == _STRING or tensor.length != needed:
                text = f"{what} has {tensor.length} bytes, its shape and type need {needed}"
                self.note("initializer", Severity.HIGH, text)
            return
        if tensor.storage == "none" and elements == 0:
            return
        wanted = _entries(tensor.element_type, elements, known[1])
        if tensor.storage != _TYPED_FIELD[tensor.element_type] or tensor.count != wanted:
            text = f"{what} has {tensor.count} values in {tensor.storage}, its shape needs {wanted}"
            self.note("initializer", Severity.HIGH, text)

    def _external(self, tensor: OnnxTensor, what: str) -> None:
        location = dict(tensor.external).get("location", "")
        parts = location.replace("\\", "/").split("/")
        outside = ".." in parts or location.startswith(("/", "\\", "~")) or ":" in location
        where = printable(location) or "a file it does not name"
        if outside:
            text = f"{what} reads its bytes from outside the model's folder: {where}"
        else:
            text = f"{what} keeps its bytes in another file ({where}): admit one whole file"
        self.note("external", Severity.HIGH, text)

    # ---- 5: functions ----

    def _function(
        self,
        function: OnnxFunction,
        functions: frozenset[tuple[str, str]],
        imports: Mapping[str, int],
    ) -> None:
        own = self._imports(function.opset_imports)
        if not function.name or not function.nodes:
            text = "a function has no name or no nodes: it is cut short"
            self.note("function", Severity.HIGH, text)
        if _domain(function.domain) == DEFAULT_DOMAIN:
            text = f"function {printable(function.name)} stands in for an operator of ONNX itself"
            self.note("function", Severity.MEDIUM, text)
        self._domains(function.nodes, {**imports, **own}, functions)
        known = set(function.inputs)
        self._nodes(function.nodes, known, ())
        self._outputs(function.outputs, (known,))
        for graph in function.subgraphs:
            self._graph(graph, ())
        for tensor in function.tensors:
            self._tensor(tensor, f"a default of function {printable(function.name)}")

    def _recursion(self, functions: Iterable[OnnxFunction]) -> None:
        calls: dict[tuple[str, str], set[tuple[str, str]]] = {}
        for function in functions:
            called = calls.setdefault((_domain(function.domain), function.name), set())
            called.update(
                (_domain(each.domain), each.op_type) for each in _all_nodes(function.nodes)
            )
        try:
            TopologicalSorter(calls).prepare()
        except CycleError as error:
            text = f"functions call themselves: {listed(name for _, name in error.args[1])}"
            self.note("function", Severity.HIGH, text)


def _all_nodes(nodes: Iterable[OnnxNode]) -> Iterable[OnnxNode]:
    for node in nodes:
        yield node
        for graph in node.subgraphs:
            yield from _all_nodes(graph.nodes)


def _is_in(scopes: _Scopes, name: str) -> bool:
    return any(name in scope for scope in scopes)


def _domain(domain: str) -> str:
    """The domain's one name: the default one is written in two ways."""
    return domain or DEFAULT_DOMAIN


def _label(node: OnnxNode) -> str:
    return f"node {printable(node.name or node.op_type or '?', 60)!r}"


def _entries(element_type: int, elements: int, bits: int) -> int:
    """How many entries of its typed field a tensor needs."""
    if element_type in _COMPLEX:
        return 2 * elements
    if 0 < bits < _BITS_PER_BYTE:
        per_entry = _BITS_PER_BYTE // bits
        return (elements + per_entry - 1) // per_entry
    return elements
