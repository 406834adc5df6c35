"""Advisories in the form of OSV: whether one says of a version of a package that it is affected.

Theory of operation. What is evaluated is the algorithm of the OSV schema (1.x, "Evaluation"): a
version is affected if it is listed, or lies within a range. The events of a range are walked in the
order of their versions (PEP 440; `0` is before all of them), those of one version as they stand.

There is a third answer, and it is never taken for a no: an advisory that is about the package and
cannot be evaluated (a version that PEP 440 does not order, a range without a beginning, of a kind
that is not known, or of commits alone) says UNCLEAR.

A version with a local part (`2.1+cpu`) is somebody's own build: it is affected if it, or the public
version that it is made from, is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import Enum
from typing import Any

from modelkeep.core.record import Record
from modelkeep.scan.cvss import severity_word
from modelkeep.scan.pep_rules import Version, normal_name, ordered

ECOSYSTEM = "PyPI"
_KINDS = ("introduced", "fixed", "last_affected", "limit")
_ORDERED = ("ECOSYSTEM", "SEMVER")
_COMMITS = "GIT"
_FIRST, _ENDLESS = "0", "*"


class _Loose(Record, frozen=True, forbid_unknown_fields=False):
    """A record of a format that others extend."""


class Event(_Loose, frozen=True):
    """One change on the way from one version to the next."""

    introduced: str | None = None
    fixed: str | None = None
    last_affected: str | None = None
    limit: str | None = None


class Range(_Loose, frozen=True):
    """Versions, between events."""

    type: str
    events: tuple[Event, ...] = ()


class Named(_Loose, frozen=True):
    """What an advisory calls a package."""

    ecosystem: str
    name: str


class Scored(_Loose, frozen=True):
    """How bad it is, in one of several notations."""

    type: str
    score: str


class Affected(_Loose, frozen=True):
    """One package that an advisory is about."""

    package: Named | None = None
    ranges: tuple[Range, ...] | None = None
    versions: tuple[str, ...] | None = None
    severity: tuple[Scored, ...] | None = None


class Advisory(_Loose, frozen=True):
    """One record of OSV, as far as it matters here."""

    id: str
    modified: str
    schema_version: str = "1.0.0"
    withdrawn: str | None = None
    aliases: tuple[str, ...] | None = None
    summary: str | None = None
    details: str | None = None
    severity: tuple[Scored, ...] | None = None
    affected: tuple[Affected, ...] | None = None
    database_specific: Any = None


class Answer(Enum):
    """What an advisory says of a version."""

    NO = 0
    YES = 1
    UNCLEAR = 2


def names_of(advisory: Advisory) -> set[str]:
    """The normalised names of the Python packages that an advisory is about."""
    return {normal_name(each.package.name) for each in _of_python(advisory) if each.package}


def says(advisory: Advisory, name: str, version: Version) -> Answer:
    """What an advisory says of a version of a package, its name normalised."""
    about = [
        each
        for each in _of_python(advisory)
        if each.package and normal_name(each.package.name) == name
    ]
    answers = {_answer(each, one) for each in about for one in _builds(version)}
    if Answer.YES in answers:
        return Answer.YES
    return Answer.UNCLEAR if Answer.UNCLEAR in answers else Answer.NO


def fixes(advisory: Advisory, name: str, version: Version) -> tuple[str, ...]:
    """Versions after this one in which it is fixed, the lowest first."""
    found: dict[Version, str] = {}
    for each in _of_python(advisory):
        if each.package and normal_name(each.package.name) == name:
            for event in _events(each):
                fixed = ordered(event.fixed or "")
                if fixed is not None and fixed > version:
                    found[fixed] = str(event.fixed)
    return tuple(found[each] for each in sorted(found))


def severity(advisory: Advisory, name: str) -> str:
    """How bad it is: the database's word, or that of a vector of CVSS; empty where none says."""
    said = advisory.database_specific
    word = said.get("severity") if isinstance(said, dict) else None
    if isinstance(word, str) and word.isascii() and word.isalpha():
        return word.lower()[:20]
    scores = list(advisory.severity or ())
    for each in _of_python(advisory):
        if each.package and normal_name(each.package.name) == name:
            scores += each.severity or ()
    words = [severity_word(each.score) for each in scores]
    return min(words, key=len, default="")  # a word, if there is one, and no other vector


def _of_python(advisory: Advisory) -> Iterator[Affected]:
    for each in advisory.affected or ():
        if each.package and each.package.ecosystem.partition(":")[0] == ECOSYSTEM:
            yield each


def _builds(version: Version) -> tuple[Version, ...]:
    """A version, and the public one that it was built from."""
    if version.local is None:
        return (version,)
    public = ordered(version.public)
    assert public is not None, "the public part of a version is one"
    return (version, public)


def _answer(affected: Affected, version: Version) -> Answer:
    if any(ordered(each) == version for each in affected.versions or ()):
        return Answer.YES
    answers = [_in_range(each, version) for each in affected.ranges or () if each.type != _COMMITS]
    if Answer.YES in answers:
        return Answer.YES
    if Answer.UNCLEAR in answers or not (answers or affected.versions):
        return Answer.UNCLEAR
    return Answer.NO


def _in_range(within: Range, version: Version) -> Answer:
    events = _walkable(within) if within.type in _ORDERED else None
    if events is None:
        return Answer.UNCLEAR
    limits = [at for kind, at in events if kind == "limit"]
    if limits and not any(at is None or version < at for at in limits):
        return Answer.NO
    is_affected = False
    for kind, at in events:
        if kind == "introduced" and (at is None or version >= at):
            is_affected = True
        elif (kind == "fixed" and at is not None and version >= at) or (
            kind == "last_affected" and at is not None and version > at
        ):
            is_affected = False
    return Answer.YES if is_affected else Answer.NO


def _walkable(within: Range) -> list[tuple[str, Version | None]] | None:
    """The events in the order of their versions, None for what has no end; None if some have none.

    `introduced: 0` and `limit: *` have no version: the one is before all, the other after all.
    """
    found: list[tuple[str, Version | None]] = []
    for event in within.events:
        told = [(kind, text) for kind in _KINDS if (text := getattr(event, kind)) is not None]
        if len(told) != 1:
            return None
        ((kind, text),) = told
        is_open = (kind, text) in (("introduced", _FIRST), ("limit", _ENDLESS))
        at = None if is_open else ordered(text)
        if at is None and not is_open:
            return None
        found.append((kind, at))
    if not any(kind == "introduced" for kind, _ in found):
        return None
    firsts = [each for each in found if each[1] is None]
    others = [(kind, at) for kind, at in found if at is not None]
    return [*firsts, *sorted(others, key=lambda each: each[1])]


def _events(affected: Affected) -> Iterable[Event]:
    return (
        event for each in affected.ranges or () if each.type in _ORDERED for event in each.events
    )
