"""Packages as a bill of materials: CycloneDX (ECMA-424), JSON.

One component a package, with its package URL where it is of an index, its licence as SPDX where it
reads as such, and the digests of its files: one is the component's own, several are of the files
that an index offers, one reference each. The serial number is a digest of the rest but the time.
"""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from modelkeep.core.instant import NS_PER_S
from modelkeep.core.record import to_json
from modelkeep.scan.environments import OF_CONDA
from modelkeep.scan.evidence import printable
from modelkeep.scan.licences import normal_licence
from modelkeep.scan.packages import Package
from modelkeep.scan.requirements import UNPINNED

SPECS = ("1.6", "1.7")
_ALGORITHMS = {
    "md5": "MD5", "sha1": "SHA-1", "sha256": "SHA-256", "sha384": "SHA-384", "sha512": "SHA-512",
}  # fmt: skip
_ROOT_REF = "root"

Json = dict[str, Any]


def inventory(
    packages: Sequence[Package], *, kind: str, name: str, version: str, now_ns: int, spec: str
) -> bytes:
    """The document.

    Args:
        kind: of what they make up, as CycloneDX names it: `platform` or `application`.
        name: of that.
    """
    components = _unique([_component(each) for each in packages])
    refs = {each.name: one["bom-ref"] for each, one in zip(packages, components, strict=True)}
    content: Json = {
        "components": components,
        "dependencies": [
            {"ref": _ROOT_REF, "dependsOn": [each["bom-ref"] for each in components]},
            *(
                _present({"ref": one["bom-ref"], "dependsOn": _needed(each, refs)})
                for each, one in zip(packages, components, strict=True)
            ),
        ],
    }
    about = _present(
        {"type": kind, "bom-ref": _ROOT_REF, "name": name or "packages", "version": version}
    )
    moment = datetime.datetime.fromtimestamp(now_ns // NS_PER_S, tz=datetime.UTC)
    return to_json(
        {
            "$schema": f"http://cyclonedx.org/schema/bom-{spec}.schema.json",
            "bomFormat": "CycloneDX",
            "specVersion": spec,
            "serialNumber": _serial(to_json([about, content])),
            "version": 1,
            "metadata": {
                "timestamp": moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
                "tools": {"components": [{"type": "application", "name": "modelkeep"}]},
                "component": about,
            },
            **content,
        }
    )


def _needed(package: Package, refs: Mapping[str, str]) -> list[str]:
    return sorted({refs[need] for need in package.needs if need in refs})


def _component(package: Package) -> Json:
    purl = _purl(package)
    hashes = [_hash(each) for each in package.hashes if each.partition(":")[0] in _ALGORITHMS]
    return _present(
        {
            "type": "library",
            "bom-ref": purl or f"{package.name} {package.version}".strip(),
            "name": package.name,
            "version": package.version,
            "licenses": _licences(package.licence),
            "hashes": hashes if len(hashes) == 1 else [],
            "purl": purl,
            "externalReferences": [
                {"type": "distribution", "url": purl or "about:blank", "hashes": [each]}
                for each in hashes
                if len(hashes) > 1
            ],
            "properties": [
                {"name": f"modelkeep:{name}", "value": value}
                for name, value in (("place", package.place), ("why_not", package.why_not))
                if value
            ],
        }
    )


def _purl(package: Package) -> str:
    """The package URL; empty for what is of no index."""
    kinds = {"": "pypi", UNPINNED: "pypi", OF_CONDA: "conda"}
    kind = kinds.get(package.why_not, "")
    at = f"@{quote(package.version, safe='')}" if package.version else ""
    return f"pkg:{kind}/{quote(package.name, safe='')}{at}" if kind else ""


def _hash(digest: str) -> Json:
    algorithm, _, value = digest.partition(":")
    return {"alg": _ALGORITHMS[algorithm], "content": value.lower()}


def _licences(text: str) -> list[Json]:
    normal = normal_licence(text)
    first = printable(text.strip().partition("\n")[0])
    if normal:
        return [{"expression": normal}]
    return [{"license": {"name": first}}] if first else []


def _unique(components: list[Json]) -> list[Json]:
    """Components with references that differ: a list may name a package twice."""
    seen: dict[str, int] = {}
    for each in components:
        ref = each["bom-ref"]
        seen[ref] = seen.get(ref, 0) + 1
        if seen[ref] > 1:
            each["bom-ref"] = f"{ref}#{seen[ref]}"
    return components


def _present(fields: Json) -> Json:
    return {name: value for name, value in fields.items() if value not in ("", [], None)}


def _serial(content: bytes) -> str:
    """A UUID of a digest (RFC 9562, version 8: its bits are ours to choose)."""
    bits = int(hashlib.sha256(content).hexdigest()[:32], 16)
    bits = bits & ~(0xF << 76) | 8 << 76  # version
    bits = bits & ~(0x3 << 62) | 2 << 62  # variant
    text = f"{bits:032x}"
    parts = (text[:8], text[8:12], text[12:16], text[16:20], text[20:])
    return f"urn:uuid:{'-'.join(parts)}"
