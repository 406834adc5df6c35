"""Graphs of TensorFlow as tables: nodes by name, functions, who calls them, what a loader runs.

Nothing of a node is kept but its operator, its inputs and where it lies; attributes are read when
somebody asks. Protobuf merges a message that stands twice, so all parts of one graph are read into
one table. Past a bound of nodes a graph is `is_partial`: its operators are still seen, and no name
in it can be followed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from modelkeep.core.errors import IntegrityError
from modelkeep.kernels import protobuf
from modelkeep.kernels.protobuf import LENGTH, VARINT, Field
from modelkeep.kernels.protokinds import inner_fields, text_of
from modelkeep.scan import tensorflow_ops

_NODES_MAX = 1_000_000
# About 300 bytes each are kept: graphs of models have up to some ten thousand nodes.
_KEPT_MAX = 200_000
_WATCHED_MAX = 20_000
_DANGEROUS_MAX = 1_000
_NAME_BYTES_MAX = 4096
# Beyond this a name can only be one of a table's many words.
_TEXTS_MAX = 1_000
_STRING = 7  # DT_STRING
# Name, operator, input, device and attribute of a node, as bytes with lengths; two bytes of length.
_NODE_TAGS = frozenset({0x0A, 0x12, 0x1A, 0x22, 0x2A})
_SHORT = 1 << 14
_ASSETS = "saved_model_assets"


class Node(NamedTuple):
    """One node: control inputs begin with ^, as the file has them."""

    name: str
    operator: str
    inputs: tuple[str, ...]
    offset: int
    length: int

    @property
    def values(self) -> list[str]:
        """The inputs that carry a value."""
        return [each for each in self.inputs if not each.startswith("^")]


@dataclass(slots=True)
class Scope:
    """The main graph (no name) or a function.

    Attributes:
        is_exact: every argument of the function is one input of its caller.
    """

    function: str = ""
    nodes: dict[str, Node] = field(default_factory=dict)
    arguments: dict[str, int] = field(default_factory=dict)
    returns: list[str] = field(default_factory=list)
    is_exact: bool = True


class Bound(NamedTuple):
    """What the objects of a SavedModel bind to an argument of a function."""

    kind: str
    name: str


@dataclass(slots=True)
class Graph:
    """One graph and its functions.

    Attributes:
        watched: the nodes whose operator does more than compute.
        calls: the nodes that call a function.
        exported: functions that the objects of a SavedModel offer, and their bound inputs.
        growing: the nodes that fill a shape.
        sending: the nodes that send what they see to an address.
        roots: names of nodes that a loader runs for its caller or for itself.
        savers: names of the nodes in whose place a saver puts the name of its file.
        assets: names of the nodes in whose place the loader puts the name of an asset.
        given: names of the nodes that a signature's caller gives.
        has_hidden_calls: a node takes the name of a function from elsewhere.
    """

    main: Scope = field(default_factory=Scope)
    functions: dict[str, Scope] = field(default_factory=dict)
    watched: list[tuple[Scope, Node]] = field(default_factory=list)
    dangerous: list[tuple[Scope, Node]] = field(default_factory=list)
    growing: list[tuple[Scope, Node]] = field(default_factory=list)
    sending: list[Node] = field(default_factory=list)
    calls: dict[str, list[tuple[Scope, Node]]] = field(default_factory=dict)
    exported: dict[str, list[Bound]] = field(default_factory=dict)
    roots: set[str] = field(default_factory=set)
    savers: set[str] = field(default_factory=set)
    assets: set[str] = field(default_factory=set)
    asset_files: list[str] = field(default_factory=list)
    given: set[str] = field(default_factory=set)
    has_hidden_calls: bool = False
    is_partial: bool = False
    count: int = 0
    texts: dict[str, str] = field(default_factory=dict)


def graphs_of(view: memoryview, kind: str) -> Iterator[Graph]:
    """The graphs of a SavedModel, a MetaGraphDef or a GraphDef.

    Raises:
        IntegrityError: the bytes do not parse, or hold more nodes than any model has.
    """
    if kind == "graphdef":
        graph = Graph()
        _read_graph(view, 0, len(view), graph)
        yield graph
    elif kind == "metagraph":
        yield _meta(view, 0, len(view))
    else:
        for each in protobuf.fields(view, groups_pass=True):
            if each.number == 2 and each.wire == LENGTH:
                yield _meta(view, each.offset, each.offset + each.length)


# ---- attributes -------------------------------------------------------------------------------


def attributes(view: memoryview, node: Node) -> Iterator[tuple[str, Field]]:
    """The attributes of a node: the key, and a part of its value (which of its kinds, as field)."""
    for each in protobuf.fields(view, node.offset, node.offset + node.length, groups_pass=True):
        if each.number != 5 or each.wire != LENGTH:
            continue
        parts = inner_fields(view, each)
        key = "".join(text_of(view, part) for part in parts if part.number == 1 and _is_text(part))
        for part in parts:
            if part.number == 2 and part.wire == LENGTH:
                yield from ((key, value) for value in inner_fields(view, part))


def texts_of(view: memoryview, node: Node, wanted: str = "") -> tuple[list[str], bool]:
    """Texts of a node's attributes (or of one), and whether some are not to be had from here."""
    found: list[str] = []
    is_hidden = False
    for key, value in attributes(view, node):
        if wanted and key != wanted:
            continue
        if not _is_text(value):
            continue
        if value.number == 2:
            found.append(text_of(view, value, _NAME_BYTES_MAX))
        elif value.number == 9:  # the caller of the function gives it
            is_hidden = True
        elif value.number == 8:
            texts, is_cut = _tensor_texts(view, value)
            found += texts
            is_hidden = is_hidden or is_cut
        elif value.number == 1:
            parts = [part for part in inner_fields(view, value) if part.number == 2]
            found += [text_of(view, part, _NAME_BYTES_MAX) for part in parts[:_TEXTS_MAX]]
            is_hidden = is_hidden or len(parts) > _TEXTS_MAX
    return found, is_hidden


def _tensor_texts(view: memoryview, value: Field) -> tuple[list[str], bool]:
    parts = inner_fields(view, value)
    texts = [each for each in parts if each.number == 8 and _is_text(each)]
    is_string = any(each.number == 1 and each.value == _STRING for each in parts)
    packed = [each for each in parts if each.number == 4 and _is_text(each) and each.length]
    # Packed texts are their lengths and then all of them: not told apart here.
    found = [text_of(view, each, _NAME_BYTES_MAX) for each in texts[:_TEXTS_MAX]]
    return found, len(texts) > _TEXTS_MAX or (is_string and bool(packed))


def functions_of(view: memoryview, node: Node) -> tuple[list[str], bool]:
    """The functions that a node names, and whether it takes one from elsewhere."""
    found: list[str] = []
    is_hidden = False
    for _, value in attributes(view, node):
        if value.number == 10 and _is_text(value):
            found += _function_name(view, value)
        elif value.number == 1 and _is_text(value):
            for part in inner_fields(view, value):
                if part.number == 9 and _is_text(part):
                    found += _function_name(view, part)
        elif value.number == 9:
            is_hidden = True
    return found, is_hidden


def _function_name(view: memoryview, field_: Field) -> list[str]:
    return [_name(view, each) for each in inner_fields(view, field_)
            if each.number == 1 and _is_text(each)]  # fmt: skip


# ---- reading ----------------------------------------------------------------------------------


def _meta(view: memoryview, start: int, stop: int) -> Graph:
    graph = Graph()
    for each in protobuf.fields(view, start, stop, groups_pass=True):
        if each.wire != LENGTH:
            continue
        if each.number == 2:
            _read_graph(view, each.offset, each.offset + each.length, graph)
        elif each.number == 3:
            _read_saver(view, each, graph)
        elif each.number == 4:
            _read_collection(view, each, graph)
        elif each.number == 5:
            _read_signature(view, each, graph)
        elif each.number == 6:
            _read_asset(view, each, graph)
        elif each.number == 7:
            _read_objects(view, each, graph)
    return graph


def _read_graph(view: memoryview, start: int, stop: int, graph: Graph) -> None:
    for each in protobuf.fields(view, start, stop, groups_pass=True):
        if each.wire != LENGTH:
            continue
        if each.number == 1:
            _read_node(view, each, graph, graph.main)
        elif each.number == 2:
            end = each.offset + each.length
            for part in protobuf.fields(view, each.offset, end, groups_pass=True):
                if part.number == 1 and part.wire == LENGTH:
                    _read_function(view, part, graph)


def _read_function(view: memoryview, function: Field, graph: Graph) -> None:
    scope = Scope()
    end = function.offset + function.length
    for each in protobuf.fields(view, function.offset, end, groups_pass=True):
        if each.wire != LENGTH:
            continue
        if each.number == 1:
            _read_head(view, each, scope)
        elif each.number == 3:
            _read_node(view, each, graph, scope)
        elif each.number == 4:
            scope.returns += [_name(view, part) for part in _parts(view, each, 2)]
    graph.functions.setdefault(scope.function, scope)


def _read_head(view: memoryview, head: Field, scope: Scope) -> None:
    for each in inner_fields(view, head):
        if each.number == 1 and _is_text(each):
            scope.function = _name(view, each)
        elif each.number == 2 and _is_text(each):
            parts = inner_fields(view, each)
            name = "".join(_name(view, part) for part in parts if part.number == 1)
            scope.arguments.setdefault(name, len(scope.arguments))
            if any(part.number in (5, 6) for part in parts):
                scope.is_exact = False


def _read_node(view: memoryview, where: Field, graph: Graph, scope: Scope) -> None:
    name, operator = "", ""
    inputs: list[str] = []
    for each in node_fields(view, where.offset, where.offset + where.length):
        if each.wire != LENGTH:
            continue
        if each.number == 1:
            name = _shared(_name(view, each), graph)
        elif each.number == 2:
            operator = _shared(text_of(view, each), graph)
        elif each.number == 3:
            inputs.append(_shared(_name(view, each), graph))
    graph.count += 1
    if graph.count > _NODES_MAX:
        raise IntegrityError("protobuf.depth", "the graph has too many nodes")
    node = Node(name, operator, tuple(inputs), where.offset, where.length)
    _sort_in(view, node, graph, scope)


def node_fields(view: memoryview, start: int, stop: int) -> Iterable[Field]:
    """The fields of a node: nearly all are short texts and messages, which are read faster here.

    What is anything else is left to `protobuf.fields`, from the node's first byte.
    """
    found: list[Field] = []
    at = start
    while at + 3 <= stop:
        tag, length, head = view[at], view[at + 1], 2
        if length >= 0x80:
            length, head = length & 0x7F | view[at + 2] << 7, 3
        if tag not in _NODE_TAGS or length >= _SHORT:
            break
        found.append(Field(tag >> 3, LENGTH, 0, at + head, length))
        at += head + length
    return found if at == stop else protobuf.fields(view, start, stop, groups_pass=True)


def _sort_in(view: memoryview, node: Node, graph: Graph, scope: Scope) -> None:
    if graph.count <= _KEPT_MAX:
        scope.nodes.setdefault(node.name, node)
    else:
        graph.is_partial = True
    use = tensorflow_ops.use_of(node.operator)
    if node.operator in tensorflow_ops.GROWERS and len(graph.growing) < _WATCHED_MAX:
        graph.growing.append((scope, node))
    if use == "plain":
        return
    plain = tensorflow_ops.plain_name(node.operator)
    if plain in tensorflow_ops.SENDERS:
        use = "calls"
        graph.sending.append(node)
    if plain in tensorflow_ops.DANGEROUS:
        if len(graph.dangerous) < _DANGEROUS_MAX:
            graph.dangerous.append((scope, node))
    elif use != "calls":
        if len(graph.watched) < _WATCHED_MAX:
            graph.watched.append((scope, node))
        else:
            graph.is_partial = True
    if not graph.is_partial and plain not in tensorflow_ops.NAMED_INPUTS:
        _note_calls(view, node, graph, scope)


def _note_calls(view: memoryview, node: Node, graph: Graph, scope: Scope) -> None:
    names, is_hidden = functions_of(view, node)
    graph.has_hidden_calls = graph.has_hidden_calls or is_hidden
    for name in {*names, node.operator}:
        graph.calls.setdefault(_shared(name, graph), []).append((scope, node))


def _read_saver(view: memoryview, saver: Field, graph: Graph) -> None:
    graph.savers.update(_node_names(view, saver, 1))
    graph.roots.update(_node_names(view, saver, 3))


def _read_asset(view: memoryview, asset: Field, graph: Graph) -> None:
    for tensor in _parts(view, asset, 1):
        graph.assets.update(_node_names(view, tensor, 1))
    graph.asset_files += [_name(view, each) for each in _parts(view, asset, 2)]


def _read_collection(view: memoryview, entry: Field, graph: Graph) -> None:
    """Collections: names of nodes to run first, among others; TensorFlow 1's assets."""
    for value in _parts(view, entry, 2):
        for names in _parts(view, value, 1):
            graph.roots.update(_node_names(view, names, 1))
    if _ASSETS in (_name(view, each) for each in _parts(view, entry, 1)):
        for value in _parts(view, entry, 2):
            for many in _parts(view, value, 5):
                for one in _parts(view, many, 1):
                    for asset in _parts(view, one, 2):
                        _read_asset(view, asset, graph)


def _read_signature(view: memoryview, entry: Field, graph: Graph) -> None:
    for value in _parts(view, entry, 2):
        for number, found in ((1, graph.given), (2, graph.roots)):
            for pair in _parts(view, value, number):
                for tensor in _parts(view, pair, 2):
                    _collect(view, tensor, found, 4)


def _collect(view: memoryview, tensor: Field, found: set[str], depth: int) -> None:
    """Names in a TensorInfo: of one tensor, or of those that a composite one is made of."""
    found.update(_node_names(view, tensor, 1))
    for sparse in _parts(view, tensor, 4):
        for number in (1, 2, 3):
            found.update(_node_names(view, sparse, number))
    for composite in _parts(view, tensor, 5) if depth else ():
        for part in _parts(view, composite, 2):
            _collect(view, part, found, depth - 1)


def _read_objects(view: memoryview, objects: Field, graph: Graph) -> None:
    bound: dict[str, list[int]] = {}
    things: list[Bound] = []
    for each in protobuf.fields(
        view, objects.offset, objects.offset + objects.length, groups_pass=True
    ):
        if each.wire == LENGTH and each.number == 1:
            things.append(_thing(view, each))
        elif each.wire == LENGTH and each.number == 2:
            name = "".join(_name(view, part) for part in _parts(view, each, 1))
            numbers = bound.setdefault(name, [])
            for value in _parts(view, each, 2):
                numbers += _numbers(view, value)
    unknown = Bound("", "")
    for name, numbers in bound.items():
        graph.exported[name] = [things[each] if each < len(things) else unknown for each in numbers]


def _thing(view: memoryview, thing: Field) -> Bound:
    kinds = {5: "asset", 7: "variable", 9: "constant", 10: "resource"}
    found = Bound("", "")
    for each in inner_fields(view, thing):
        if each.number in kinds and _is_text(each):
            names = _node_names(view, each, 1) if each.number == 9 else ()
            found = Bound(kinds[each.number], next(iter(names), ""))
    return found


def _numbers(view: memoryview, function: Field) -> list[int]:
    """The bound inputs of a function, packed or not."""
    found: list[int] = []
    for each in inner_fields(view, function):
        if each.number == 2 and each.wire == VARINT:
            found.append(each.value)
        elif each.number == 2 and each.wire == LENGTH:
            number, shift = 0, 0
            for byte in view[each.offset : each.offset + each.length]:
                number |= (byte & 0x7F) << min(shift, 70)
                shift += 7
                if byte < 0x80:
                    found.append(number)
                    number, shift = 0, 0
    return found


def _parts(view: memoryview, where: Field, number: int) -> list[Field]:
    return [each for each in inner_fields(view, where) if each.number == number and _is_text(each)]


def _node_names(view: memoryview, where: Field, number: int) -> list[str]:
    names = (_name(view, each) for each in _parts(view, where, number))
    return [name.removeprefix("^").partition(":")[0] for name in names]


def _is_text(each: Field) -> bool:
    return each.wire == LENGTH


def _name(view: memoryview, each: Field) -> str:
    """A name as the loader compares it; one that is too long is like no other."""
    if each.length > _NAME_BYTES_MAX:
        return f"\0{each.offset}"
    return str(view[each.offset : each.offset + each.length], "utf-8", "backslashreplace")


def _shared(text: str, graph: Graph) -> str:
    return text if graph.is_partial else graph.texts.setdefault(text, text)
