"""Frozen records and their strict encoding; the only file that touches msgspec.

Two encodings, chosen by the format page of what is stored: JSON for what a person may want to
read (manifests, heads, entries), MessagePack for what holds many digests (indexes, recipes).
Decoding is strict: an unknown field, a wrong type or trailing bytes is an `IntegrityError`.
Signatures are made over exact stored bytes, so no encoding here has to be canonical.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from modelkeep.core.errors import IntegrityError


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A value that may be written, sent or signed."""


class Row(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A record written as an array of its fields: for frames and journals, where names cost."""


R = TypeVar("R", bound=Record)

RawJson = msgspec.Raw  # a part of a JSON document, kept undecoded until its type is known


def absent_json() -> Any:
    """The default of a field of raw JSON that may be left out: no bytes."""
    return msgspec.field(default_factory=msgspec.Raw)


_JSON = msgspec.json.Encoder()
_MSGPACK = msgspec.msgpack.Encoder()


def to_json(record: object) -> bytes:
    """Encode a record (or plain containers) as compact UTF-8 JSON."""
    return _JSON.encode(record)


def to_msgpack(record: object) -> bytes:
    """Encode a record (or plain containers) as MessagePack."""
    return _MSGPACK.encode(record)


def from_json(kind: type[R], raw: bytes | memoryview, *, what: str) -> R:
    """Decode strictly.

    Raises:
        IntegrityError: `record.json`, when the bytes are not such a record.
    """
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise IntegrityError("record.json", f"{what} is not valid: {error}", what=what) from error


def from_msgpack(kind: type[R], raw: bytes | memoryview, *, what: str) -> R:
    """Decode strictly.

    Raises:
        IntegrityError: `record.msgpack`, when the bytes are not such a record.
    """
    try:
        return msgspec.msgpack.decode(raw, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise IntegrityError(
            "record.msgpack", f"{what} is not valid: {error}", what=what
        ) from error


def parsed_json(raw: bytes | memoryview, *, what: str) -> Any:
    """Decode JSON into plain Python containers, for text that no record describes.

    Raises:
        IntegrityError: `record.json`, when the bytes are not JSON.
    """
    try:
        return msgspec.json.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise IntegrityError("record.json", f"{what} is not valid: {error}", what=what) from error


def replaced(record: R, **changes: Any) -> R:
    """A copy of a record with some fields changed."""
    return msgspec.structs.replace(record, **changes)


def as_plain(record: object) -> Any:
    """The record as plain containers (dict, list, str, int, float, bool, None)."""
    return msgspec.to_builtins(record)


def converted(kind: type[R], plain: object, *, what: str) -> R:
    """Build a record from plain containers, strictly.

    Raises:
        IntegrityError: `record.plain`, when a field is unknown, missing or of another type.
    """
    try:
        return msgspec.convert(plain, type=kind)
    except msgspec.MsgspecError as error:
        raise IntegrityError("record.plain", f"{what} is not valid: {error}", what=what) from error


def json_decoder(kind: Any, *, what: str) -> Callable[[Any], Any]:
    """A prepared strict decoder for one type, for the path of a call: 0.5 us cheaper each time.

    The function that comes back raises IntegrityError `record.json`.
    """
    return _guarded(msgspec.json.Decoder(kind).decode, "record.json", what)


def msgpack_decoder(kind: Any, *, what: str) -> Callable[[Any], Any]:
    """A prepared strict decoder for one type, or for a union of tagged rows.

    The function that comes back raises IntegrityError `record.msgpack`.
    """
    return _guarded(msgspec.msgpack.Decoder(kind).decode, "record.msgpack", what)


def _guarded(decode: Callable[[Any], Any], code: str, what: str) -> Callable[[Any], Any]:
    def decoded(raw: Any) -> Any:
        try:
            return decode(raw)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise IntegrityError(code, f"{what} is not valid: {error}", what=what) from error

    return decoded


def json_schemas(kinds: Sequence[Any], *, reference: str) -> tuple[list[Any], dict[str, Any]]:
    """What JSON of these types looks like, as JSON Schema 2020-12.

    Args:
        reference: how a type is referred to, with `{name}` in it.

    Returns:
        A schema for each type, and those that they refer to by name.
    """
    schemas, named = msgspec.json.schema_components(kinds, ref_template=reference)
    return list(schemas), named


class FieldFacts(Record, frozen=True):
    """What a record says of one of its fields.

    Attributes:
        type: as written in the source.
        default: as Python writes it; `required` where there is none.
        record: the record type of the field's value (or of a tuple's elements), if it is one.
        sentence: from the record's own `Attributes` section.
    """

    name: str
    type: str
    default: str
    record: Any
    is_tuple: bool
    sentence: str


def field_facts(kind: type[Record]) -> tuple[FieldFacts, ...]:
    """What can be said of a record's fields, in order."""
    sentences = _sentences(kind.__doc__ or "")
    hints = get_type_hints(kind)
    return tuple(
        FieldFacts(
            name=field.name,
            type=kind.__annotations__[field.name],
            default="required" if field.required else repr(field.default),
            record=_record_in(hints[field.name]),
            is_tuple=get_origin(hints[field.name]) is tuple,
            sentence=sentences.get(field.name, ""),
        )
        for field in msgspec.structs.fields(kind)
    )


def _record_in(hint: Any) -> Any:
    for each in (hint, *get_args(hint)):
        if isinstance(each, type) and issubclass(each, Record):
            return each
    return None


def _sentences(docstring: str) -> dict[str, str]:
    """The `Attributes` section of a docstring, one entry per name, lines joined."""
    found: dict[str, str] = {}
    name = ""
    lines = docstring.partition("Attributes:\n")[2].splitlines()
    # Python 3.13 takes the indentation of docstrings away, earlier versions leave it.
    indent = min((len(line) - len(line.lstrip()) for line in lines if line.strip()), default=0)
    for line in lines:
        head, colon, rest = line[indent:].partition(": ")
        if colon and head.isidentifier():
            name = head
            found[name] = rest
        elif line.strip() and name:
            found[name] += " " + line.strip()
    return found
