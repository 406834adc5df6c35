"""What an ONNX file holds and where its tensors lie, read without executing or copying anything.

The field numbers are those of `onnx.proto` (ONNX 1.x). Every message is read against a table of
its fields: a known field of another wire type, or a singular field that stands twice (two readers
could then see two models), is an IntegrityError; an unknown field is reported by name and left to
the scanner. Nothing here decides whether a model may run: see `modelkeep.scan.graphs`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from modelkeep.core.artifact import Port
from modelkeep.core.errors import IntegrityError
from modelkeep.core.limits import TENSOR_RANK_MAX, TENSORS_MAX
from modelkeep.kernels import protobuf
from modelkeep.kernels.onnxmodel import (
    ELEMENTS,
    OnnxFunction,
    OnnxGraph,
    OnnxModel,
    OnnxNode,
    OnnxTensor,
)
from modelkeep.kernels.protobuf import FIXED32, FIXED64, LENGTH, VARINT, Field, Runs, run_of

# What one file may hold in all, so that reading it stays under 200 MB and ten seconds. A language
# model of a hundred layers has some ten thousand nodes.
NODES_MAX = 200_000
# Names of values, nodes and operators: four to six per node.
NAMES_MAX = 1_200_000
NAMES_BYTES_MAX = 64 * 1024 * 1024
# Names are identifiers with scopes in them.
NAME_BYTES_MAX = 16 * 1024
# Fields, runs counted once, at about a microsecond each.
FIELDS_MAX = 5_000_000
# A report of unknown fields is read by a person.
UNKNOWN_MAX = 20
# int64 is what ONNX has for a dimension; a negative one in a tensor is hostile.
DIMENSION_MAX = (1 << 63) - 1


def onnx_layout(view: memoryview) -> OnnxModel:
    """Read the structure of an ONNX file; its tensors stay where they are.

    Raises:
        IntegrityError: `protobuf.*` for malformed bytes; `onnx.wire`, `onnx.duplicate`,
            `onnx.text`, `onnx.dimension` or `onnx.size` for well-formed bytes that are no model.
    """
    return _Reader(view).model()


# ---- the tables: field number -> (wire types it may have, whether it may repeat) -------------

_Fields = Mapping[int, tuple[tuple[int, ...], bool]]
_NUMBER = ((VARINT,), False)
_FLOAT = ((FIXED32,), False)
_BYTES = ((LENGTH,), False)
_MANY = ((LENGTH,), True)
_NUMBERS = ((VARINT, LENGTH), True)
_FLOATS = ((FIXED32, LENGTH), True)
_DOUBLES = ((FIXED64, LENGTH), True)

_MODEL: _Fields = {
    **dict.fromkeys((1, 5), _NUMBER),
    **dict.fromkeys((2, 3, 4, 6, 7), _BYTES),
    **dict.fromkeys((8, 14, 20, 25, 26), _MANY),
}
_OPSET: _Fields = {1: _BYTES, 2: _NUMBER}
_PAIR: _Fields = {1: _BYTES, 2: _BYTES}
_GRAPH: _Fields = {
    **dict.fromkeys((2, 10), _BYTES),
    **dict.fromkeys((1, 5, 11, 12, 13, 14, 15, 16), _MANY),
}
_NODE: _Fields = {
    **dict.fromkeys((3, 4, 6, 7, 8), _BYTES),
    **dict.fromkeys((1, 2, 5, 9, 10), _MANY),
}
_ATTRIBUTE: _Fields = {
    **dict.fromkeys((1, 4, 5, 6, 13, 14, 21, 22), _BYTES),
    **dict.fromkeys((9, 10, 11, 15, 23), _MANY),
    **dict.fromkeys((3, 20), _NUMBER),
    2: _FLOAT,
    7: _FLOATS,
    8: _NUMBERS,
}
_TENSOR: _Fields = {
    **dict.fromkeys((8, 9, 12), _BYTES),
    **dict.fromkeys((6, 13, 16), _MANY),
    **dict.fromkeys((1, 5, 7, 11), _NUMBERS),
    **dict.fromkeys((2, 14), _NUMBER),
    4: _FLOATS,
    10: _DOUBLES,
}
_SPARSE: _Fields = {1: _BYTES, 2: _BYTES, 3: _NUMBERS}
_VALUE: _Fields = {1: _BYTES, 2: _BYTES, 3: _BYTES, 4: _MANY}
_TYPE: _Fields = dict.fromkeys((1, 4, 5, 6, 7, 8, 9), _BYTES)
_TENSOR_TYPE: _Fields = {1: _NUMBER, 2: _BYTES}
_SHAPE: _Fields = {1: _MANY}
_DIMENSION: _Fields = {1: _NUMBER, 2: _BYTES, 3: _BYTES}
_FUNCTION: _Fields = {
    **dict.fromkeys((1, 8, 10, 13), _BYTES),
    **dict.fromkeys((4, 5, 6, 7, 9, 11, 12, 14), _MANY),
}

# Rows that real exporters write unpacked, a million long: floats and ints of an attribute, and
# the typed data of a tensor.
_RUNS: Mapping[str, Runs] = {
    "AttributeProto": dict([run_of(7, FIXED32), run_of(8, VARINT)]),
    "TensorProto": dict(
        [
            run_of(4, FIXED32),
            run_of(5, VARINT),
            run_of(7, VARINT),
            run_of(10, FIXED64),
            run_of(11, VARINT),
        ]
    ),
}
_TYPED = {
    4: "float_data",
    5: "int32_data",
    6: "string_data",
    7: "int64_data",
    10: "double_data",
    11: "uint64_data",
}
_EXTERNAL = 1  # TensorProto.DataLocation


class _Reader:
    """One pass over one file; counts what it has met so that a hostile file stays bounded."""

    __slots__ = (
        "_fields",
        "_name_bytes",
        "_names",
        "_nodes",
        "_tensors",
        "_unknown",
        "_unshaped",
        "_view",
    )

    def __init__(self, view: memoryview) -> None:
        self._view = view
        self._fields = 0
        self._nodes = 0
        self._name_bytes = 0
        self._names = 0
        self._tensors = 0
        self._unknown: dict[str, None] = {}
        self._unshaped: list[str] = []

    def model(self) -> OnnxModel:
        whole = Field(0, LENGTH, 0, 0, len(self._view))
        numbers: dict[int, int] = {}
        texts: dict[int, str] = {}
        imports, metadata, functions = [], [], []
        graph: OnnxGraph | None = None
        trainings = last = 0
        for field in self._items(whole, "ModelProto", _MODEL, depth=0):
            last = field.number
            if field.number in (1, 5):
                numbers[field.number] = protobuf.signed(field.value)
            elif field.number == 2:
                texts[field.number] = self._text(field)
            elif field.number == 7:
                graph = self._graph(field, depth=1)
            elif field.number == 8:
                imports.append(self._opset(field, depth=1))
            elif field.number == 14:
                metadata.append(self._pair(field, depth=1))
            elif field.number == 20:
                trainings += 1
            elif field.number == 25:
                functions.append(self._function(field, depth=1))
        given = {tensor.name for tensor in graph.initializers + graph.sparse} if graph else set()
        return OnnxModel(
            ir_version=numbers.get(1, 0),
            producer=texts.get(2, ""),
            opset_imports=tuple(imports),
            graph=graph,
            inputs=tuple(port for port in graph.inputs if port.name not in given) if graph else (),
            outputs=graph.outputs if graph else (),
            initializers=graph.initializers if graph else (),
            functions=tuple(functions),
            metadata=tuple(metadata),
            unshaped=tuple(self._unshaped),
            trainings=trainings,
            unknown_fields=tuple(self._unknown),
            last_field=last,
        )

    def _items(self, span: Field, kind: str, table: _Fields, *, depth: int) -> Iterator[Field]:
        seen: set[int] = set()
        runs = _RUNS.get(kind, protobuf.NO_RUNS)
        stop = span.offset + span.length
        for field in protobuf.fields(self._view, span.offset, stop, depth=depth, runs=runs):
            self._fields = _counted(self._fields, FIELDS_MAX, "fields")
            allowed = table.get(field.number)
            if allowed is None:
                if len(self._unknown) < UNKNOWN_MAX:
                    self._unknown[f"{kind} field {field.number}"] = None
                continue
            wires, repeats = allowed
            if field.wire not in wires:
                message = f"field {field.number} of a {kind} has wire type {field.wire}"
                raise IntegrityError("onnx.wire", message, offset=field.offset)
            if not repeats:
                if field.number in seen:
                    message = f"field {field.number} of a {kind} stands twice"
                    raise IntegrityError("onnx.duplicate", message, offset=field.offset)
                seen.add(field.number)
            yield field

    def _graph(self, span: Field, *, depth: int) -> OnnxGraph:
        name = ""
        inputs, outputs, nodes, initializers, sparse = [], [], [], [], []
        for field in self._items(span, "GraphProto", _GRAPH, depth=depth):
            if field.number == 1:
                nodes.append(self._node(field, depth=depth + 1))
            elif field.number == 2:
                name = self._text(field)
            elif field.number == 5:
                initializers.append(self._tensor(field, depth=depth + 1))
            elif field.number == 11:
                inputs.append(self._port(field, depth=depth + 1))
            elif field.number == 12:
                outputs.append(self._port(field, depth=depth + 1))
            elif field.number == 15:
                sparse.extend(self._sparse(field, depth=depth + 1))
        return OnnxGraph(
            name=name,
            inputs=tuple(inputs),
            outputs=tuple(outputs),
            initializers=tuple(initializers),
            sparse=tuple(sparse),
            nodes=tuple(nodes),
        )

    def _node(self, span: Field, *, depth: int) -> OnnxNode:
        self._nodes = _counted(self._nodes, NODES_MAX, "nodes")
        inputs, outputs = [], []
        subgraphs: list[OnnxGraph] = []
        tensors: list[OnnxTensor] = []
        texts: dict[int, str] = {}
        shape: list[int] = []
        for field in self._items(span, "NodeProto", _NODE, depth=depth):
            if field.number == 1:
                inputs.append(self._text(field))
            elif field.number == 2:
                outputs.append(self._text(field))
            elif field.number in (3, 4, 7, 8):
                texts[field.number] = self._text(field)
            elif field.number == 5:
                self._attribute(field, subgraphs, tensors, shape, depth=depth + 1)
        return OnnxNode(
            op_type=texts.get(4, ""),
            domain=texts.get(7, ""),
            overload=texts.get(8, ""),
            name=texts.get(3, ""),
            inputs=tuple(inputs),
            outputs=tuple(outputs),
            subgraphs=tuple(subgraphs),
            tensors=tuple(tensors),
            shape=tuple(shape),
        )

    def _attribute(
        self,
        span: Field,
        subgraphs: list[OnnxGraph],
        tensors: list[OnnxTensor],
        shape: list[int],
        *,
        depth: int,
    ) -> None:
        name = b""
        numbers: list[Field] = []
        for field in self._items(span, "AttributeProto", _ATTRIBUTE, depth=depth):
            if field.number == 1:
                name = bytes(self._view[field.offset : field.offset + min(field.length, 16)])
            elif field.number in (5, 10):
                tensors.append(self._tensor(field, depth=depth + 1))
            elif field.number in (6, 11):
                subgraphs.append(self._graph(field, depth=depth + 1))
            elif field.number in (22, 23):
                tensors.extend(self._sparse(field, depth=depth + 1))
            elif field.number == 8:
                if field.wire == LENGTH:
                    protobuf.packed_count(self._view, field.offset, field.offset + field.length)
                if len(numbers) < TENSOR_RANK_MAX:
                    numbers.append(field)
        for field in numbers if name == b"shape" else ():
            self._dimensions(field, shape)

    def _sparse(self, span: Field, *, depth: int) -> list[OnnxTensor]:
        return [
            self._tensor(field, depth=depth + 1)
            for field in self._items(span, "SparseTensorProto", _SPARSE, depth=depth)
            if field.number in (1, 2)
        ]

    def _tensor(self, span: Field, *, depth: int) -> OnnxTensor:
        self._tensors = _counted(self._tensors, TENSORS_MAX, "tensors")
        name, element_type, location = "", 0, 0
        shape: list[int] = []
        external: list[tuple[str, str]] = []
        pieces: list[Field] = []
        for field in self._items(span, "TensorProto", _TENSOR, depth=depth):
            if field.number == 1:
                self._dimensions(field, shape)
            elif field.number == 2:
                element_type = field.value
            elif field.number == 8:
                name = self._text(field)
            elif field.number == 13:
                external.append(self._pair(field, depth=depth + 1))
            elif field.number == 14:
                location = field.value
            elif field.number == 9 or field.number in _TYPED:
                pieces.append(field)
        storage, offset, length, count, is_flat = self._placed(pieces)
        if location == _EXTERNAL or external:
            storage = "external" if storage == "none" else f"external and {storage}"
        return OnnxTensor(
            name=name,
            dtype=ELEMENTS.get(element_type, ("RAW", 0))[0],
            element_type=element_type,
            shape=tuple(shape),
            storage=storage,
            offset=offset,
            length=length,
            count=count,
            is_flat=is_flat,
            external=tuple(external),
        )

    def _placed(self, pieces: list[Field]) -> tuple[str, int, int, int, bool]:
        """Where a tensor's data lies: storage, offset, length, count, whether it is flat."""
        if not pieces:
            return "none", -1, 0, 0, False
        numbers = sorted({piece.number for piece in pieces})
        if len(numbers) > 1:
            named = " and ".join(_TYPED.get(number, "raw") for number in numbers)
            return named, -1, 0, 0, False
        first = pieces[0]
        if first.number == 9:
            return "raw", first.offset, first.length, 0, True
        storage = _TYPED[first.number]
        count = sum(self._elements(piece) for piece in pieces)
        if len(pieces) > 1 or first.wire != LENGTH or first.number == 6:
            return storage, -1, 0, count, False
        return storage, first.offset, first.length, count, first.number in (4, 10)

    def _elements(self, piece: Field) -> int:
        """How many elements one piece of typed data holds."""
        if piece.wire != LENGTH or piece.number == 6:
            return piece.many
        if piece.number in (4, 10):
            size = 4 if piece.number == 4 else 8
            if piece.length % size:
                raise IntegrityError("onnx.size", f"{_TYPED[piece.number]} ends inside an element")
            return piece.length // size
        return protobuf.packed_count(self._view, piece.offset, piece.offset + piece.length)

    def _dimensions(self, field: Field, shape: list[int]) -> None:
        values = [field.value]
        if field.wire == LENGTH:
            values, at, stop = [], field.offset, field.offset + field.length
            while at < stop and len(values) <= TENSOR_RANK_MAX:
                value, at = protobuf.varint(self._view, at, stop)
                values.append(value)
        shape.extend(values)
        if len(shape) > TENSOR_RANK_MAX or any(value > DIMENSION_MAX for value in values):
            raise IntegrityError("onnx.dimension", "a tensor has a negative or too many dimensions")

    def _port(self, span: Field, *, depth: int) -> Port:
        self._names = _counted(self._names, NAMES_MAX, "names")
        name, dtype = "", "RAW"
        shape: list[int] | None = None
        for field in self._items(span, "ValueInfoProto", _VALUE, depth=depth):
            if field.number == 1:
                name = self._text(field)
            elif field.number == 2:
                for kind in self._items(field, "TypeProto", _TYPE, depth=depth + 1):
                    if kind.number == 1:
                        dtype, shape = self._tensor_type(kind, depth=depth + 2)
        if shape is None:
            self._unshaped.append(name)
        return Port(name=name, dtype=dtype, shape=tuple(shape or ()))

    def _tensor_type(self, span: Field, *, depth: int) -> tuple[str, list[int] | None]:
        element_type = 0
        shape: list[int] | None = None
        for field in self._items(span, "TypeProto.Tensor", _TENSOR_TYPE, depth=depth):
            if field.number == 1:
                element_type = field.value
                continue
            shape = []
            for each in self._items(field, "TensorShapeProto", _SHAPE, depth=depth + 1):
                size = -1
                for part in self._items(each, "Dimension", _DIMENSION, depth=depth + 2):
                    if part.number == 1 and part.value <= DIMENSION_MAX:
                        size = part.value
                shape.append(size)
                if len(shape) > TENSOR_RANK_MAX:
                    raise IntegrityError("onnx.dimension", "a port has too many dimensions")
        return ELEMENTS.get(element_type, ("RAW", 0))[0], shape

    def _function(self, span: Field, *, depth: int) -> OnnxFunction:
        texts: dict[int, str] = {}
        names: dict[int, list[str]] = {4: [], 5: []}
        imports, nodes = [], []
        subgraphs: list[OnnxGraph] = []
        tensors: list[OnnxTensor] = []
        for field in self._items(span, "FunctionProto", _FUNCTION, depth=depth):
            if field.number in (1, 10, 13):
                texts[field.number] = self._text(field)
            elif field.number in names:
                names[field.number].append(self._text(field))
            elif field.number == 7:
                nodes.append(self._node(field, depth=depth + 1))
            elif field.number == 9:
                imports.append(self._opset(field, depth=depth + 1))
            elif field.number == 11:
                self._attribute(field, subgraphs, tensors, [], depth=depth + 1)
        return OnnxFunction(
            domain=texts.get(10, ""),
            name=texts.get(1, ""),
            overload=texts.get(13, ""),
            inputs=tuple(names[4]),
            outputs=tuple(names[5]),
            opset_imports=tuple(imports),
            nodes=tuple(nodes),
            subgraphs=tuple(subgraphs),
            tensors=tuple(tensors),
        )

    def _opset(self, span: Field, *, depth: int) -> tuple[str, int]:
        domain, version = "", 0
        for field in self._items(span, "OperatorSetIdProto", _OPSET, depth=depth):
            if field.number == 1:
                domain = self._text(field)
            else:
                version = protobuf.signed(field.value)
        return domain, version

    def _pair(self, span: Field, *, depth: int) -> tuple[str, str]:
        """Key and value; of a long value (a vocabulary in the metadata) the beginning."""
        key = value = ""
        for field in self._items(span, "StringStringEntryProto", _PAIR, depth=depth):
            if field.number == 1:
                key = self._text(field)
            else:
                stop = field.offset + min(field.length, NAME_BYTES_MAX)
                value = str(self._view[field.offset : stop], "utf-8", "replace")
        return key, value

    def _text(self, field: Field) -> str:
        self._names = _counted(self._names, NAMES_MAX, "names")
        self._name_bytes += field.length
        if field.length > NAME_BYTES_MAX or self._name_bytes > NAMES_BYTES_MAX:
            message = f"a name has {field.length} bytes, all so far {self._name_bytes}"
            raise IntegrityError("onnx.text", message, limit_bytes=NAME_BYTES_MAX)
        try:
            return str(self._view[field.offset : field.offset + field.length], "utf-8")
        except UnicodeDecodeError:
            raise IntegrityError("onnx.text", "a name is not UTF-8", offset=field.offset) from None


def _counted(count: int, limit: int, what: str) -> int:
    if count >= limit:
        raise IntegrityError("onnx.size", f"a model has more than {limit} {what}")
    return count + 1
