"""The rules of Python packaging: names (PEP 503), versions (PEP 440), requirements (PEP 508)."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

from packaging.markers import UndefinedComparison, UndefinedEnvironmentName
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from modelkeep.scan.packages import WORD_CHARS_MAX

__all__ = ["Asked", "Version", "asked", "needed", "normal_name", "ordered"]

# One requirement with its marker; those of the largest packages have some hundred characters.
_REQUIREMENT_CHARS_MAX = 2_000


@dataclass(frozen=True, slots=True)
class Asked:
    """One requirement.

    Attributes:
        version: the one that it pins; empty where it leaves a choice, or pins two.
        url: where it is installed from, where it says so.
    """

    name: str
    version: str
    url: str


def normal_name(name: str) -> str:
    """A name as all its spellings are normalised."""
    return str(canonicalize_name(name[:WORD_CHARS_MAX]))


def ordered(version: str) -> Version | None:
    """A version that can be compared; None for what PEP 440 does not order."""
    if len(version) > WORD_CHARS_MAX:
        return None
    try:
        return Version(version)
    except InvalidVersion:
        return None


def asked(text: str) -> Asked | None:
    """Read one requirement; None for what is none."""
    read = _read(text)
    if read is None:
        return None
    pins = {
        each.version
        for each in read.specifier
        if each.operator in ("==", "===") and not each.version.endswith(".*")
    }
    return Asked(
        name=normal_name(read.name),
        version=pins.pop() if len(pins) == 1 else "",
        url=read.url or "",
    )


def needed(text: str, installed: Container[str]) -> str:
    """The name of what a requirement of installed metadata needs here; empty for nothing."""
    read = _read(text)
    if read is None or normal_name(read.name) not in installed:
        return ""
    try:
        applies = read.marker is None or read.marker.evaluate({"extra": ""})
    except (UndefinedComparison, UndefinedEnvironmentName):
        applies = True
    return normal_name(read.name) if applies else ""


def _read(text: str) -> Requirement | None:
    if len(text) > _REQUIREMENT_CHARS_MAX:
        return None
    try:
        return Requirement(text)
    except (InvalidRequirement, RecursionError):
        return None
