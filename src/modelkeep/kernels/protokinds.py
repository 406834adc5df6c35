"""Which of the model formats without a magic a protobuf message is.

A message of one schema can often be read as one of another. So each kind asks for what only it
has: a field inside a field, by number and wire type. Loaders pass over what they do not know, so
the fields may stand in any order and among others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from modelkeep.core.errors import IntegrityError
from modelkeep.kernels import protobuf
from modelkeep.kernels.protobuf import FIXED32, LENGTH, VARINT, Field

# Real models have a few thousand top-level fields, vocabularies some hundred thousand.
_FIELDS_MAX = 1_000_000
_INNER_FIELDS_MAX = 100_000
_OPERATOR_BYTES_MAX = 256
_FINGERPRINT_BYTES_MAX = 1024
_COREML_TYPES = range(200, 3001)


def kind_of(view: memoryview) -> str:
    """Name the schema.

    Returns:
        savedmodel, metagraph, graphdef, keras-metadata, paddle, coreml, sentencepiece or nothing.
    """
    seen: set[tuple[int, int]] = set()
    try:
        walk = protobuf.fields(view, groups_pass=True)
        for _, field in zip(range(_FIELDS_MAX), walk, strict=False):
            if field.number == 1 and field.wire == VARINT and 0 < field.value < 64:
                seen.add((1, VARINT))
            kind = _kind(view, field, seen)
            if kind:
                return kind
    except IntegrityError:
        return ""
    return ""


def is_fingerprint(view: memoryview) -> bool:
    """Whether the bytes are what TensorFlow writes beside a SavedModel: hashes and a version."""
    if len(view) > _FINGERPRINT_BYTES_MAX:
        return False
    try:
        every = [(each.number, each.wire) for each in protobuf.fields(view)]
    except IntegrityError:
        return False
    numbers = {number for number, wire in every if wire == VARINT}
    others = {number for number, wire in every if wire != VARINT}
    return {1, 2} <= numbers <= {1, 2, 3, 4, 5} and others <= {6, 7} and len(every) <= 7


def _kind(view: memoryview, field: Field, seen: set[tuple[int, int]]) -> str:
    if field.wire != LENGTH:
        return ""
    has_version = (1, VARINT) in seen
    if has_version and field.number in _COREML_TYPES:
        return "coreml"
    if field.number == 1:
        return _kind_of_first(view, field)
    return _kind_of_second(view, field, has_version=has_version) if field.number == 2 else ""


def _kind_of_second(view: memoryview, field: Field, *, has_version: bool) -> str:
    inner = inner_fields(view, field)
    if any(_has(view, each, _is_node) for each in inner if _is(each, 2, LENGTH)):
        return "savedmodel"
    if any(_is_node(view, each) for each in inner if _is(each, 1, LENGTH)):
        return "metagraph"
    meta = [each for each in inner if _is(each, 1, LENGTH)] if has_version else []
    parts = [part for each in meta for part in inner_fields(view, each)]
    is_saved = any(_is(part, 4, LENGTH) or _is(part, 5, LENGTH) for part in parts)
    return "savedmodel" if is_saved else ""


def _kind_of_first(view: memoryview, field: Field) -> str:
    inner = inner_fields(view, field)
    kinds = {(each.number, each.wire) for each in inner}
    if _is_node(view, field):
        return "graphdef"
    if (1, VARINT) in kinds and any(_is_operator(view, each) for each in inner):
        return "paddle"
    if {(3, LENGTH), (4, LENGTH), (5, LENGTH)} <= kinds:
        names = (text_of(view, each) for each in inner if _is(each, 4, LENGTH))
        return "keras-metadata" if any(each.startswith("_tf_keras_") for each in names) else ""
    is_piece = {(1, LENGTH), (2, FIXED32)} <= kinds <= {(1, LENGTH), (2, FIXED32), (3, VARINT)}
    return "sentencepiece" if is_piece else ""


def _is_operator(view: memoryview, field: Field) -> bool:
    """Whether a field is an operator of PaddlePaddle: its type is its third field."""
    return _is(field, 4, LENGTH) and any(_is(each, 3, LENGTH) for each in inner_fields(view, field))


def inner_fields(view: memoryview, field: Field) -> list[Field]:
    """The fields of a length-delimited one; none where it is no message."""
    try:
        walk = protobuf.fields(view, field.offset, field.offset + field.length, groups_pass=True)
        return [each for _, each in zip(range(_INNER_FIELDS_MAX), walk, strict=False)]
    except IntegrityError:
        return []


def text_of(view: memoryview, field: Field, bytes_max: int = _OPERATOR_BYTES_MAX) -> str:
    """The first bytes of a field as text."""
    return str(view[field.offset : field.offset + min(field.length, bytes_max)], "utf-8", "replace")


def _has(view: memoryview, field: Field, check: Callable[[memoryview, Field], bool]) -> bool:
    return any(check(view, each) for each in inner_fields(view, field) if _is(each, 1, LENGTH))


def _is(field: Field, number: int, wire: int) -> bool:
    return field.number == number and field.wire == wire


def _is_node(view: memoryview, field: Field) -> bool:
    """Whether a field is a NodeDef: a name, and an operator's name in the way TensorFlow has it."""
    parts = inner_fields(view, field)
    names: Mapping[int, str] = {
        each.number: text_of(view, each) for each in parts if each.wire == LENGTH
    }
    operator = names.get(2, "")
    is_name = bool(operator) and len(operator) < _OPERATOR_BYTES_MAX
    plain = operator.replace(">", "").replace("_", "").replace(".", "")
    return 1 in names and is_name and plain.isascii() and plain.isalnum()
