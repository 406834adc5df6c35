"""Exports of OSV: a zip archive of records, one record, a list of them, or one a line.

Theory of operation. Nothing is believed of such a file but that it may be hostile: it has bounds of
size, of members, of plaintext and of records. An archive must look the same to every reader
(`kernels.zips`), and each member must be what its checksum says. A record that is none, or of
another generation of the schema, is an error and not a record less: nobody could say what it was
about. What is kept is what is about the packages that are asked for.

The data is as old as its newest record, so that a copy of an old file stays old. A record from the
future counts for nothing there.
"""

from __future__ import annotations

import datetime
import io
import zipfile
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from modelkeep.core.errors import IntegrityError
from modelkeep.core.instant import NS_PER_S
from modelkeep.core.record import json_decoder
from modelkeep.kernels.zips import members_of
from modelkeep.scan.advisories import ECOSYSTEM, Advisory, names_of

# All records of PyPI are 30 MB packed and some hundred unpacked; records of packages with many
# versions have a megabyte.
EXPORT_BYTES_MAX = 1 << 30
_EXPANDED_BYTES_MAX = 8 << 30
RECORD_BYTES_MAX = 32 << 20
RECORDS_MAX = 500_000
_ZIP = b"PK"
_GENERATION = "1."
# What `zipfile` raises of archives that are not what they seem.
_BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    OSError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    OverflowError,
)

_one = json_decoder(Advisory, what="a record of OSV")
_many = json_decoder(list[Advisory], what="a list of OSV records")


@dataclass(slots=True)
class Known:
    """What is known of some packages.

    Attributes:
        names: of the packages that are asked about.
        advisories: by name of the package.
        count: records of the ecosystem that were looked at, without those that were withdrawn.
        newest_ns: when the newest of them was changed; 0 where there is none.
    """

    names: Collection[str]
    now_ns: int
    advisories: dict[str, list[Advisory]] = field(default_factory=dict)
    count: int = 0
    records: int = 0
    newest_ns: int = 0

    def take(self, advisory: Advisory) -> None:
        """Look at one record.

        Raises:
            IntegrityError: `advisories.record` or `advisories.many`.
        """
        self.records += 1
        if self.records > RECORDS_MAX:
            raise IntegrityError(
                "advisories.many",
                f"the export has more than {RECORDS_MAX} records",
                hint=f"take the export of one ecosystem: {ECOSYSTEM}",
            )
        if not advisory.schema_version.startswith(_GENERATION):
            raise _no_record(f"{advisory.id!r:.80} is of schema {advisory.schema_version!r:.20}")
        changed_ns = _instant_ns(advisory.modified)
        names = names_of(advisory)
        if not names or advisory.withdrawn is not None:
            return
        self.count += 1
        if changed_ns <= self.now_ns:
            self.newest_ns = max(self.newest_ns, changed_ns)
        for name in names.intersection(self.names):
            self.advisories.setdefault(name, []).append(advisory)


def read_export(known: Known, view: memoryview) -> None:
    """Take in a file, whatever form it has.

    Raises:
        IntegrityError: `advisories.archive`, `advisories.record`, `advisories.many`.
    """
    if len(view) > EXPORT_BYTES_MAX:
        raise IntegrityError(
            "advisories.many", f"the export has more than {EXPORT_BYTES_MAX} bytes"
        )
    if view[:2] == _ZIP:
        for raw in _members(view):
            known.take(_record(raw))
        return
    start = bytes(view[:64]).lstrip()
    if start.startswith(b"["):
        for each in _decoded(_many, view):
            known.take(each)
        return
    for document in _documents(view):
        known.take(_record(document))


def _members(view: memoryview) -> Iterator[bytes]:
    """The records of an archive; folders and what is no JSON are passed over."""
    try:
        members_of(view)
    except IntegrityError as error:
        raise _no_archive(error.message) from error
    left = _EXPANDED_BYTES_MAX
    try:
        with zipfile.ZipFile(io.BytesIO(view)) as archive:
            for member in archive.infolist():
                if not member.filename.endswith(".json"):
                    continue
                with archive.open(member) as stream:
                    raw = stream.read(min(RECORD_BYTES_MAX, left) + 1)
                left -= len(raw)
                if len(raw) > RECORD_BYTES_MAX or left < 0:
                    raise _no_archive("a member, or all of them, unpack to more than is read")
                yield raw
    except _BROKEN as error:
        raise _no_archive(f"{error!s:.200}") from error


def _documents(view: memoryview) -> Iterator[bytes]:
    """One document, or one a line."""
    raw = view.tobytes()
    try:
        _one(raw)
    except IntegrityError:
        lines = [line for line in raw.split(b"\n") if line.strip()]
        if len(lines) < 2 or len(lines) > RECORDS_MAX:
            raise _no_record("it is none") from None
        yield from lines
    else:
        yield raw


def _record(raw: bytes | memoryview) -> Advisory:
    found = _decoded(_one, raw)
    assert isinstance(found, Advisory)
    return found


def _decoded(decode: object, raw: bytes | memoryview) -> list[Advisory]:
    assert callable(decode)
    if len(raw) > RECORD_BYTES_MAX and decode is _one:
        raise _no_record(f"it has more than {RECORD_BYTES_MAX} bytes")
    try:
        return decode(raw)  # type: ignore[no-any-return] # it is what the decoder was made for
    except IntegrityError as error:
        raise _no_record(f"{error.message:.200}") from None


def _instant_ns(text: str) -> int:
    try:
        moment = datetime.datetime.fromisoformat(text)
        if len(text) > 40 or moment.tzinfo is None:
            raise ValueError(text)
        return int(moment.timestamp()) * NS_PER_S
    except (ValueError, OverflowError):
        raise _no_record(f"{text!r:.60} is no time") from None


def _no_record(why: str) -> IntegrityError:
    return IntegrityError(
        "advisories.record",
        f"a record is not of OSV: {why}",
        hint="take the export anew: `all.zip` of the ecosystem PyPI",
    )


def _no_archive(why: str) -> IntegrityError:
    return IntegrityError(
        "advisories.archive",
        f"the archive of advisories cannot be read: {why}",
        hint="take the export anew: `all.zip` of the ecosystem PyPI",
    )
