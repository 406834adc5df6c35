"""Tensors that a few constants of a graph ask for, and that no memory holds."""

from __future__ import annotations

from collections.abc import Iterator

from modelkeep.core.errors import IntegrityError
from modelkeep.core.verdict import Finding, Severity
from modelkeep.kernels import protobuf
from modelkeep.kernels.protobuf import LENGTH, VARINT, Field
from modelkeep.kernels.protokinds import inner_fields
from modelkeep.scan import tensorflow_ops
from modelkeep.scan.cases import Case
from modelkeep.scan.evidence import printable
from modelkeep.scan.tensorflow_nodes import Node, Scope, attributes

# Slots of optimisers for the largest embeddings have some thousand million numbers.
_HELD_ABOVE = 1 << 33
_DENIED_ABOVE = 1 << 36
_PASSED_MAX = 8
_DIMENSIONS_MAX = 256  # TensorFlow's own bound is 254
_WIDTHS = {3: 4, 9: 8}  # DT_INT32, DT_INT64


def growth_findings(case: Case, scope: Scope, node: Node) -> Iterator[Finding]:
    """Judge a node that fills a shape, where the shape is a constant."""
    place = tensorflow_ops.GROWERS[node.operator]
    values = node.values
    source = scope.nodes.get(values[place].partition(":")[0]) if place < len(values) else None
    for _ in range(_PASSED_MAX):
        if source is None or source.operator != "Identity" or not source.values:
            break
        source = scope.nodes.get(source.values[0].partition(":")[0])
    if source is None or source.operator not in ("Const", "HostConst"):
        return
    count = 1
    for size in _numbers(case.view, source):
        count *= size
    if count > _HELD_ABOVE:
        severity = Severity.HIGH if count > _DENIED_ABOVE else Severity.MEDIUM
        where = f"node {printable(node.name, 60)!r} ({printable(node.operator, 40)})"
        text = f"{where} asks for a tensor of {count:.3g} numbers"
        yield case.found("scan.tensorflow.bomb", severity, text)


def _numbers(view: memoryview, node: Node) -> list[int]:
    """The whole numbers of a constant; the last stands for those that its shape has more."""
    found: list[int] = []
    for key, value in attributes(view, node):
        if key != "value" or value.number != 8 or value.wire != LENGTH:
            continue
        parts = inner_fields(view, value)
        width = next((_WIDTHS.get(each.value, 0) for each in parts if each.number == 1), 0)
        wanted = 1
        for each in parts:
            if each.number == 2 and each.wire == LENGTH:
                wanted = _elements(view, each)
            elif each.number in (7, 10):
                found += _varints(view, each)
            elif each.number == 4 and each.wire == LENGTH and width:
                raw = bytes(view[each.offset : each.offset + each.length][: 8 * _DIMENSIONS_MAX])
                found += [int.from_bytes(raw[at : at + width], "little", signed=True)
                          for at in range(0, len(raw), width)]  # fmt: skip
        if found and len(found) < wanted:
            found += [found[-1]] * (min(wanted, _DIMENSIONS_MAX) - len(found))
    return [each for each in found[:_DIMENSIONS_MAX] if each < 1 << 63]


def _elements(view: memoryview, shape: Field) -> int:
    count = 1
    for each in inner_fields(view, shape):
        if each.number == 2 and each.wire == LENGTH:
            sizes = [part.value for part in inner_fields(view, each) if part.number == 1]
            count = min(count * (sizes[-1] if sizes else 1), _DIMENSIONS_MAX)
    return count


def _varints(view: memoryview, each: Field) -> list[int]:
    if each.wire == VARINT:
        return [each.value]
    found: list[int] = []
    at, end = each.offset, each.offset + each.length
    while each.wire == LENGTH and at < end and len(found) < _DIMENSIONS_MAX:
        try:
            number, at = protobuf.varint(view, at, end)
        except IntegrityError:
            break
        found.append(number)
    return found
