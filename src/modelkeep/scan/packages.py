"""A Python package as a list of requirements, an environment or a bill of materials names it."""

from __future__ import annotations

from modelkeep.core.record import Record

# What one list may name: the largest locks have some thousand.
PACKAGES_MAX = 50_000
# A name or a version that a person reads; PyPI's longest names have about 200 characters.
WORD_CHARS_MAX = 200


class Package(Record, frozen=True):
    """One package, with a version or without.

    Attributes:
        name: normalised (PEP 503); as it was written where that is no name.
        version: as it was written; empty where no single one is named.
        place: where it is named, such as `requirements.txt:3`.
        why_not: why nobody can say whether it is affected; empty where one can.
        hashes: of its files, such as `sha256:…`.
        licence: an SPDX expression, or what its makers wrote instead.
        needs: normalised names of what it needs, as far as that is known.
    """

    name: str
    version: str = ""
    place: str = ""
    why_not: str = ""
    hashes: tuple[str, ...] = ()
    licence: str = ""
    needs: tuple[str, ...] = ()
