"""Records of OSV for tests: small, and exactly of the form that the schema has."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

from modelkeep.core.instant import NS_PER_S
from modelkeep.scan.advisory_files import Known, read_export

DAY_NS = 86_400 * NS_PER_S
NOW_NS = 1_800_000_000 * NS_PER_S  # 2027-01-15
RECENT = "2027-01-14T12:00:00Z"


def events(*pairs: tuple[str, str]) -> list[dict[str, str]]:
    """Events in the order in which they are given."""
    return [{kind: version} for kind, version in pairs]


def ranged(*pairs: tuple[str, str], kind: str = "ECOSYSTEM") -> dict[str, Any]:
    """A range between events."""
    return {"type": kind, "events": events(*pairs)}


def record(
    name: str = "tornado",
    *ranges: dict[str, Any],
    id: str = "GHSA-1",  # noqa: A002 - the field's name
    modified: str = RECENT,
    versions: tuple[str, ...] = (),
    ecosystem: str = "PyPI",
    **more: Any,
) -> dict[str, Any]:
    """A record about one package."""
    about: dict[str, Any] = {"package": {"ecosystem": ecosystem, "name": name}}
    if ranges:
        about["ranges"] = list(ranges)
    if versions:
        about["versions"] = list(versions)
    return {"id": id, "modified": modified, "affected": [about], **more}


def archive(*records: dict[str, Any], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    """An export as OSV hands it out."""
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w", compression) as made:
        for each in records:
            made.writestr(f"{each['id']}.json", json.dumps(each))
    return raw.getvalue()


def known(*records: dict[str, Any], names: tuple[str, ...] = ("tornado",)) -> Known:
    """What is known by some records."""
    found = Known(set(names), NOW_NS)
    read_export(found, memoryview(json.dumps(list(records)).encode()))
    return found


def exported(folder: Path, *records: dict[str, Any]) -> Path:
    """An export in a file."""
    path = folder / "all.zip"
    path.write_bytes(archive(*records))
    return path
