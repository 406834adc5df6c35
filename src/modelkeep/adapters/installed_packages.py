"""The packages that this interpreter can import, from the metadata that installers leave."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from importlib.metadata import Distribution, distributions

from modelkeep.scan.packages import Package
from modelkeep.scan.pep_rules import needed, normal_name
from modelkeep.scan.requirements import ELSEWHERE

# Where something was installed from, if not from an index (PEP 610).
_ORIGIN = "direct_url.json"
_CLASSIFIER = "License :: OSI Approved :: "


def installed_packages(paths: Sequence[str] | None = None) -> tuple[Package, ...]:
    """All of them, by name; of two of a name the one that is imported.

    Args:
        paths: where they are looked for; by default where this interpreter does.
    """
    found: dict[str, Distribution] = {}
    for each in distributions() if paths is None else distributions(path=list(paths)):
        if name := _field(each, "Name"):
            found.setdefault(normal_name(name), each)
    return tuple(_package(name, found[name], found) for name in sorted(found))


def interpreter() -> tuple[str, str]:
    """Its name, such as `cpython`, and its version."""
    return platform.python_implementation().lower(), platform.python_version()


def _package(name: str, found: Distribution, others: dict[str, Distribution]) -> Package:
    origin = found.read_text(_ORIGIN)
    needs = {needed(each, others) for each in found.requires or ()} - {"", name}
    return Package(
        name=name,
        version=_field(found, "Version"),
        place="installed",
        why_not="" if origin is None else ELSEWHERE,
        hashes=_hashes(origin),
        licence=_licence(found),
        needs=tuple(sorted(needs)),
    )


def _hashes(origin: str | None) -> tuple[str, ...]:
    """Digests of the archive that it was installed from, where the installer kept them."""
    try:
        told = json.loads(origin or "{}").get("archive_info", {})
        hashes = told.get("hashes") or dict([told["hash"].split("=", 1)] if "hash" in told else [])
        return tuple(f"{name}:{value}" for name, value in sorted(hashes.items()))
    except (ValueError, AttributeError, TypeError):
        return ()


def _licence(found: Distribution) -> str:
    """What its makers call its licence: an expression, a line, or a classifier."""
    if expression := _field(found, "License-Expression"):
        return expression
    text = _field(found, "License").strip()
    if text and "\n" not in text and text.upper() != "UNKNOWN":
        return text
    named = [
        str(each).removeprefix(_CLASSIFIER)
        for each in found.metadata.get_all("Classifier") or ()
        if str(each).startswith(_CLASSIFIER)
    ]
    return ", ".join(named)


def _field(found: Distribution, name: str) -> str:
    """The first field of a name in the metadata; empty where there is none."""
    return str(next(iter(found.metadata.get_all(name) or ()), ""))
