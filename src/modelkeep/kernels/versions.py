"""What is demanded of a version, as PEP 440 has it; what is installed counts, pre-releases too."""

from __future__ import annotations

from modelkeep.core.errors import UsageError

TEXT_CHARS_MAX = 200


def demand_specifier(specifier: str) -> None:
    """Accept a specifier: clauses joined by commas, all of which must hold; none holds always.

    Raises:
        UsageError: `version.specifier`.
    """
    if not specifier:
        return
    # Loaded where something is demanded: every command reads the settings.
    from packaging.specifiers import InvalidSpecifier, SpecifierSet  # noqa: PLC0415

    try:
        if len(specifier) > TEXT_CHARS_MAX:
            raise InvalidSpecifier
        SpecifierSet(specifier)
    except InvalidSpecifier as error:
        raise UsageError(
            "version.specifier",
            f"{specifier[:80]!r} demands no version",
            hint="write it as PEP 440 has it: '>=2', '>=1.24,<2', '~=3.11', '==2.1.*'",
        ) from error


def satisfies(version: str, specifier: str) -> bool:
    """Whether a version is what a sound specifier demands; what is no version satisfies none."""
    if not specifier:
        return True
    from packaging.specifiers import SpecifierSet  # noqa: PLC0415 - as above
    from packaging.version import InvalidVersion  # noqa: PLC0415 - as above

    try:
        known = len(version) <= TEXT_CHARS_MAX
        return known and SpecifierSet(specifier).contains(version, prereleases=True)
    except InvalidVersion:
        return False
