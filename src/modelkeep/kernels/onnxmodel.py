"""The nouns of an ONNX file: model, graph, node, function, tensor, element types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from modelkeep.core.artifact import Port

# Element types of TensorProto: Open Inference Protocol name and bits per element (0: no fixed
# size). Types that the protocol has no name for are RAW.
ELEMENTS: Mapping[int, tuple[str, int]] = {
    1: ("FP32", 32),
    2: ("UINT8", 8),
    3: ("INT8", 8),
    4: ("UINT16", 16),
    5: ("INT16", 16),
    6: ("INT32", 32),
    7: ("INT64", 64),
    8: ("BYTES", 0),
    9: ("BOOL", 8),
    10: ("FP16", 16),
    11: ("FP64", 64),
    12: ("UINT32", 32),
    13: ("UINT64", 64),
    14: ("RAW", 64),
    15: ("RAW", 128),
    16: ("BF16", 16),
    17: ("RAW", 8),
    18: ("RAW", 8),
    19: ("RAW", 8),
    20: ("RAW", 8),
    21: ("RAW", 4),
    22: ("RAW", 4),
    23: ("RAW", 4),
    24: ("RAW", 8),
    25: ("RAW", 2),
    26: ("RAW", 2),
}


@dataclass(frozen=True, slots=True)
class OnnxTensor:
    """One tensor of a model and where its bytes lie.

    Attributes:
        dtype: Open Inference Protocol name; RAW where it has none.
        element_type: ONNX's own number of the type.
        storage: `raw` (raw_data), or the name of the typed field, or `external`, or `none`.
        offset: of its first byte in the file; -1 where its bytes do not lie in one piece.
        length: in bytes, of the piece at `offset`.
        count: elements that a typed field holds; 0 for raw data.
        is_flat: whether the bytes at `offset` are the little-endian elements themselves; a packed
            typed field of integers holds varints and is not.
        external: key and value of every external-data entry.
    """

    name: str
    dtype: str
    element_type: int
    shape: tuple[int, ...]
    storage: str
    offset: int
    length: int
    count: int
    is_flat: bool
    external: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class OnnxNode:
    """One node: its operator, what it takes and gives, and what its attributes enclose.

    Attributes:
        shape: its attribute of that name, which operators that make numbers have.
    """

    op_type: str
    domain: str
    overload: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    subgraphs: tuple[OnnxGraph, ...]
    tensors: tuple[OnnxTensor, ...]
    shape: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class OnnxGraph:
    """A graph or subgraph: ports, initializers (sparse ones by their values), nodes in order."""

    name: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    initializers: tuple[OnnxTensor, ...]
    sparse: tuple[OnnxTensor, ...]
    nodes: tuple[OnnxNode, ...]


@dataclass(frozen=True, slots=True)
class OnnxFunction:
    """A function that the model brings along.

    Attributes:
        subgraphs: in the defaults of its attributes, as are `tensors`.
    """

    domain: str
    name: str
    overload: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    opset_imports: tuple[tuple[str, int], ...]
    nodes: tuple[OnnxNode, ...]
    subgraphs: tuple[OnnxGraph, ...]
    tensors: tuple[OnnxTensor, ...]


@dataclass(frozen=True, slots=True)
class OnnxModel:
    """A whole model.

    Attributes:
        ir_version: 0 when the file has none.
        graph: None when the file has none.
        inputs: ports of the graph that a caller must feed: those without an initializer. A port
            without a tensor type is RAW; a free dimension is -1.
        unshaped: names of ports whose rank the file leaves open (their shape reads as empty).
        trainings: how many training graphs there are (they are not read).
        unknown_fields: `Message field 99`, each once.
        last_field: number of the last field of the file: where a cut one ends.
    """

    ir_version: int
    producer: str
    opset_imports: tuple[tuple[str, int], ...]
    graph: OnnxGraph | None
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    initializers: tuple[OnnxTensor, ...]
    functions: tuple[OnnxFunction, ...]
    metadata: tuple[tuple[str, str], ...]
    unshaped: tuple[str, ...]
    trainings: int
    unknown_fields: tuple[str, ...]
    last_field: int
