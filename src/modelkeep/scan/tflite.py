"""TFLite files: every offset of the flatbuffer in bounds, and which operators are foreign.

An interpreter follows offsets and indices of the file without asking (CVE-2020-15211 and others),
so each that is followed there is held against its table here. Operators from TensorFlow (`Flex…`)
are judged as those of a graph; custom ones need a library that somebody must bring.
"""

from __future__ import annotations

from collections.abc import Iterator

from modelkeep.core.errors import IntegrityError
from modelkeep.core.verdict import Finding, Severity
from modelkeep.scan.cases import Case
from modelkeep.scan.evidence import printable
from modelkeep.scan.tensorflow_ops import DANGEROUS, plain_name

_VECTOR_MAX = 5_000_000
_CUSTOM = 32
_NO_TENSOR = (1 << 32) - 1
# Custom operators that TFLite itself brings.
_KNOWN_CUSTOM = frozenset(
    {"TFLite_Detection_PostProcess", "AudioSpectrogram", "Mfcc", "NumericVerify",
    "Convolution2DTransposeBias",
     "MaxPoolingWithArgmax2D", "MaxUnpooling2D", "ResizeNearestNeighbor", "AudioMicrofrontend",
     "RandomStandardNormal", "RandomUniform", "Multinomial", "Irfft2d", "Atan2", "Sign", "Roll",
     "Hashtable", "UnsortedSegmentProd", "edgetpu-custom-op"}
)  # fmt: skip
# Fields of the tables (schema.fbs 3c).
_CODES, _GRAPHS, _BUFFERS = 1, 2, 4


def tflite_findings(case: Case) -> tuple[Finding, ...]:
    """Judge a TFLite file."""
    findings: list[Finding] = []
    try:
        _Model(case.view).judge(case, findings)
    except IntegrityError as error:
        text = f"does not parse as TFLite: {error.message}"
        findings.append(case.found("scan.tflite.broken", Severity.HIGH, text))
    return tuple(findings[: case.settings.findings_max])


class _Model:
    """The tables of one file."""

    __slots__ = ("_view",)

    def __init__(self, view: memoryview) -> None:
        self._view = view

    def judge(self, case: Case, findings: list[Finding]) -> None:
        root = self._offset(0)
        codes = list(self._tables(root, _CODES))
        for table in codes:
            findings.extend(self._code(case, table))
        buffers = list(self._tables(root, _BUFFERS))
        for table in buffers:
            self._buffer(table)
        graphs = list(self._tables(root, _GRAPHS))
        if not graphs or not codes:
            raise _broken("it has no graph", root)
        for table in graphs:
            self._graph(table, len(codes), len(buffers))

    def _code(self, case: Case, table: int) -> list[Finding]:
        name_at = self._field(table, 1)
        if not name_at:
            return []
        name = self._text(self._offset(name_at))
        plain = plain_name(name.removeprefix("Flex"))
        if plain in DANGEROUS:
            text = f"operator {printable(name, 60)!r} {DANGEROUS[plain]}"
            return [case.found("scan.tflite.operator", Severity.HIGH, text)]
        if name.startswith("Flex") or name in _KNOWN_CUSTOM or not name:
            return []
        text = f"operator {printable(name, 60)!r} is in no known set: it needs foreign code"
        return [case.found("scan.tflite.custom", Severity.MEDIUM, text)]

    def _buffer(self, table: int) -> None:
        data = self._field(table, 0)
        if data:
            self._vector(self._offset(data), 1)
        offset_at, size_at = self._field(table, 1), self._field(table, 2)
        if offset_at and size_at:
            offset, size = self._number(offset_at, 8), self._number(size_at, 8)
            if offset > 1 and offset + size > len(self._view):
                raise _broken("a buffer ends past the end of the file", table)

    def _graph(self, table: int, codes: int, buffers: int) -> None:
        tensors = list(self._tables(table, 0))
        for tensor in tensors:
            at = self._field(tensor, 2)
            if at and self._number(at, 4) >= buffers:
                raise _broken("a tensor names a buffer that is not there", tensor)
        for number in (1, 2):
            self._indices(table, number, len(tensors))
        for operator in self._tables(table, 3):
            at = self._field(operator, 0)
            if (self._number(at, 4) if at else 0) >= codes:
                raise _broken("an operator has a code that is not there", operator)
            for number in (1, 2, 8):
                self._indices(operator, number, len(tensors))

    def _indices(self, table: int, number: int, count: int) -> None:
        at = self._field(table, number)
        if not at:
            return
        start = self._offset(at)
        for place in range(self._vector(start, 4)):
            index = self._number(start + 4 + 4 * place, 4)
            if index >= count and index != _NO_TENSOR:
                raise _broken(f"a table names tensor {index} of {count}", table)

    # ---- flatbuffers ----

    def _tables(self, table: int, number: int) -> Iterator[int]:
        at = self._field(table, number)
        if at:
            start = self._offset(at)
            for place in range(self._vector(start, 4)):
                yield self._offset(start + 4 + 4 * place)

    def _field(self, table: int, number: int) -> int:
        """Where a field of a table lies; 0 if it has none."""
        back = self._number(table, 4)
        start = table - (back - (1 << 32) if back >> 31 else back)
        size = self._number(start, 2)
        if size < 4 or start + size > len(self._view):
            raise _broken("a table is damaged", table)
        at = 4 + 2 * number
        offset = self._number(start + at, 2) if at + 2 <= size else 0
        return table + offset if offset else 0

    def _vector(self, at: int, size: int) -> int:
        count = self._number(at, 4)
        if at + 4 + count * size > len(self._view) or (size > 1 and count > _VECTOR_MAX):
            raise _broken("a list ends past the end of the file", at)
        return count

    def _text(self, at: int) -> str:
        length = self._vector(at, 1)
        return str(self._view[at + 4 : at + 4 + min(length, 1024)], "utf-8", "replace")

    def _offset(self, at: int) -> int:
        target = at + self._number(at, 4)
        if target == at or target + 4 > len(self._view):
            raise _broken("an offset points past the end of the file", at)
        return target

    def _number(self, at: int, size: int) -> int:
        if at < 0 or at + size > len(self._view):
            raise _broken("an offset points past the end of the file", at)
        return int.from_bytes(self._view[at : at + size], "little")


def _broken(message: str, at: int) -> IntegrityError:
    return IntegrityError("tflite.broken", f"{message} (at {at})", offset=at)
