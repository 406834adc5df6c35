"""What we keep: an artifact's manifest with its files, tensors and schema."""

from __future__ import annotations

import re

from modelkeep.core.card import BLANK, Card
from modelkeep.core.digest import Digest
from modelkeep.core.errors import UsageError
from modelkeep.core.limits import MODEL_NAME_CHARS_MAX
from modelkeep.core.policy import ANYTHING, Policy
from modelkeep.core.record import Record

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?")
_REFERENCE = re.compile(r"(?P<name>[^:]+):(?P<selector>[^:]+)")


class TensorEntry(Record, frozen=True):
    """One tensor inside a file: where its bytes lie.

    Attributes:
        dtype: Open Inference Protocol name (`FP32`, `INT64`, ...); `RAW` where it has none.
        shape: dimensions, outermost first.
        offset: of its first byte in the file.
        length: in bytes.
        digest: of its bytes.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    length: int
    digest: Digest


class FileEntry(Record, frozen=True):
    """One file of an artifact."""

    path: str
    size_bytes: int
    digest: Digest
    tensors: tuple[TensorEntry, ...] = ()


class Port(Record, frozen=True):
    """One input or output of a model; -1 in the shape is a free dimension."""

    name: str
    dtype: str
    shape: tuple[int, ...]


class Schema(Record, frozen=True):
    """What a model takes and what it gives."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]


class CanaryTensor(Record, frozen=True):
    """A tensor of a canary call: its values flat, in C order."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    values: tuple[float, ...]


class Canary(Record, frozen=True):
    """A call whose right answer is known: it proves that a served model is the admitted one."""

    inputs: tuple[CanaryTensor, ...]
    outputs: tuple[CanaryTensor, ...]
    tolerance: float = 1e-4


class Manifest(Record, frozen=True):
    """The list of an artifact's files; the digest of its bytes is the artifact's identity.

    It holds digests of plaintext only and never ids of chunks, so `rekey` and copies into
    another domain leave its signature valid.

    Attributes:
        base: reference of the version that it was made from.
        policy: what may be done with it.
        card: what its makers say of it.
        marks: ids of the watermarks that it carries.
    """

    name: str
    version: int
    kind: str
    domain: str
    admitted_ns: int
    files: tuple[FileEntry, ...]
    schema: Schema | None = None
    canary: Canary | None = None
    base: str = ""
    note: str = ""
    policy: Policy = ANYTHING
    card: Card = BLANK
    marks: tuple[str, ...] = ()
    format: str = "modelkeep-manifest-v1"


class ModelReference(Record, frozen=True):
    """A model as a person names it: `digits`, `digits:2` or `digits:prod`."""

    name: str
    selector: str = ""

    def __str__(self) -> str:
        return f"{self.name}:{self.selector}" if self.selector else self.name


def is_model_name(name: str) -> bool:
    """Whether a name is safe in URLs, object names and metric labels."""
    return len(name) <= MODEL_NAME_CHARS_MAX and _NAME.fullmatch(name) is not None


def checked_model_name(name: str) -> str:
    """Accept a model or alias name that is safe in URLs, object names and metric labels.

    Raises:
        UsageError: `model.name`.
    """
    if not is_model_name(name):
        raise UsageError(
            "model.name",
            f"{name[:120]!r} cannot name a model",
            hint="use lower-case letters, digits, '.', '_' and '-', at most 100 characters",
        )
    return name


def parsed_reference(text: str) -> ModelReference:
    """Parse `name`, `name:VERSION` or `name:ALIAS`.

    Raises:
        UsageError: `model.reference` or `model.name`.
    """
    if ":" not in text:
        return ModelReference(name=checked_model_name(text))
    match = _REFERENCE.fullmatch(text)
    if match is None:
        raise UsageError(
            "model.reference",
            f"{text[:120]!r} does not name a model",
            hint="write NAME, NAME:VERSION or NAME:ALIAS",
        )
    selector = checked_model_name(match["selector"])
    return ModelReference(name=checked_model_name(match["name"]), selector=selector)
