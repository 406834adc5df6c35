"""What is known of packages: vulnerable, clean, or not assessed; the last is never the second.

A package is clean only if all of this holds: it names one version that PEP 440 orders, it is of the
index that the advisories are about, there are enough of them, they are young enough, and each
that is about the package could be evaluated and says no. Advisories that share an id or an alias
are one flaw. What somebody tolerates until a date stays what it is, and does not count meanwhile.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from enum import StrEnum

from modelkeep.core.instant import NS_PER_S
from modelkeep.core.record import Record, replaced
from modelkeep.scan.admission_settings import AdvisorySettings, Tolerated
from modelkeep.scan.advisories import Advisory, Answer, fixes, says, severity
from modelkeep.scan.advisory_files import Known
from modelkeep.scan.evidence import listed, printable
from modelkeep.scan.packages import Package
from modelkeep.scan.pep_rules import Version, normal_name, ordered
from modelkeep.scan.requirements import ELSEWHERE

_SUMMARY_CHARS_MAX = 160
_IDS_MAX = 20
_DAY_S = 86_400


class Standing(StrEnum):
    """What can be said of a package."""

    VULNERABLE = "vulnerable"
    CLEAN = "clean"
    NOT_ASSESSED = "not assessed"


class Flaw(Record, frozen=True):
    """What one or several advisories say of a version.

    Attributes:
        ids: of the advisories.
        aliases: under which others know it, such as CVE numbers.
        fixed: later versions in which it is fixed.
        severity: a word, or a vector of CVSS 2 or 4; empty where nobody says.
        tolerated: why, and until when, somebody lives with it.
    """

    ids: tuple[str, ...]
    aliases: tuple[str, ...]
    fixed: tuple[str, ...]
    severity: str
    summary: str
    tolerated: str = ""


class Assessed(Record, frozen=True):
    """One package and what can be said of it.

    Attributes:
        why: what was looked at, or why nothing can be said.
        tolerated: why, and until when, somebody lives with what could not be assessed.
    """

    name: str
    version: str
    place: str
    standing: Standing
    why: str
    flaws: tuple[Flaw, ...] = ()
    tolerated: str = ""

    @property
    def is_passed(self) -> bool:
        """Whether it is clean, or all that it is not is tolerated."""
        if self.standing is Standing.VULNERABLE:
            return all(flaw.tolerated for flaw in self.flaws)
        return self.standing is Standing.CLEAN or bool(self.tolerated)


class Assessment(Record, frozen=True):
    """What is known of some packages.

    Attributes:
        advisories: how many were looked at.
        newest: when the newest of them was changed, a date; empty where there is none.
        age_s: how old that is; -1 where there is none.
        ended: what is tolerated no more, because its date is over.
    """

    advisories: int
    newest: str
    age_s: float
    packages: tuple[Assessed, ...]
    ended: tuple[str, ...] = ()

    def counted(self, standing: Standing) -> int:
        """How many packages are so."""
        return sum(each.standing is standing for each in self.packages)

    @property
    def is_passed(self) -> bool:
        """Whether every package is clean, or tolerated as it is."""
        return all(each.is_passed for each in self.packages)


def assessed(
    packages: Iterable[Package], known: Known, settings: AdvisorySettings, *, now_ns: int
) -> Assessment:
    """Judge packages by what is known of them."""
    age_s = (now_ns - known.newest_ns) / NS_PER_S if known.newest_ns else -1.0
    newest = _date(known.newest_ns) if known.newest_ns else None
    doubt = ""
    if not known.count or newest is None:
        doubt = "there are no advisories to assess it against"
    elif known.count < settings.count_min:
        doubt = f"there are only {known.count} advisories to assess it against"
    elif age_s > settings.age_s_max:
        doubt = f"the advisories are {age_s / _DAY_S:.0f} days old: too old to call it clean"
    said = f"against {known.count} advisories of {newest}"
    today = _date(now_ns)
    tolerated = [each for each in settings.tolerated if today < each.until]
    return Assessment(
        advisories=known.count,
        newest=str(newest or ""),
        age_s=age_s,
        packages=tuple(
            _lived_with(_judged(each, known, doubt=doubt, said=said), tolerated)
            for each in packages
        ),
        ended=tuple(
            f"{each.id or each.package} since {each.until}"
            for each in settings.tolerated
            if each.until <= today
        ),
    )


def _judged(package: Package, known: Known, *, doubt: str, said: str) -> Assessed:
    version = ordered(package.version)
    why = package.why_not
    if not why and version is None:
        why = "no order of versions has it (PEP 440)" if package.version else "it has no version"
    flaws: tuple[Flaw, ...] = ()
    # The version of an index is affected; what comes from elsewhere by its name most likely, too.
    if why in ("", ELSEWHERE) and version is not None:
        own = known.advisories.get(package.name, [])
        answers = [(each, says(each, package.name, version)) for each in own]
        flaws = _flaws(
            [each for each, answer in answers if answer is Answer.YES], package.name, version
        )
        unclear = [each.id for each, answer in answers if answer is Answer.UNCLEAR]
        why = why or _why(version, unclear, doubt)
    if flaws:
        standing, why = Standing.VULNERABLE, said
    else:
        standing = Standing.NOT_ASSESSED if why else Standing.CLEAN
    return Assessed(
        name=package.name,
        version=package.version,
        place=package.place,
        standing=standing,
        why=why or said,
        flaws=flaws,
    )


def _why(version: Version, unclear: Sequence[str], doubt: str) -> str:
    """Why a package of which no advisory says that it is affected cannot be called clean."""
    if unclear:
        return f"nobody can tell what {listed(unclear)} says of it"
    if version.local is not None:
        return f"+{version.local} is somebody's own build, which no advisory knows"
    return doubt


def _flaws(advisories: Sequence[Advisory], name: str, version: Version) -> tuple[Flaw, ...]:
    """The flaws that advisories tell of: those that share a name are one."""
    groups: list[tuple[set[str], list[Advisory]]] = []
    for each in advisories:
        names = {each.id, *(each.aliases or ())}
        same = [group for group in groups if group[0] & names]
        groups = [group for group in groups if not group[0] & names]
        groups.append(
            (names.union(*(ids for ids, _ in same)), [*(one for _, g in same for one in g), each])
        )
    flaws = (_flaw(names, own, name, version) for names, own in groups)
    return tuple(sorted(flaws, key=lambda flaw: flaw.ids))


def _flaw(names: set[str], own: Sequence[Advisory], name: str, version: Version) -> Flaw:
    ids = sorted(each.id for each in own)
    fixed = {text: ordered(text) for each in own for text in fixes(each, name, version)}
    texts = [each.summary or each.details or "" for each in own]
    return Flaw(
        ids=_shown(ids),
        aliases=_shown(sorted(names - set(ids))),
        fixed=_shown(sorted(fixed, key=lambda text: fixed[text] or version)),
        severity=printable(next((word for each in own if (word := severity(each, name))), "")),
        summary=printable(
            " ".join(next((text for text in texts if text), "").split()), _SUMMARY_CHARS_MAX
        ),
    )


def _lived_with(found: Assessed, tolerated: Sequence[Tolerated]) -> Assessed:
    """A package with what somebody tolerates of it."""
    own = [
        each for each in tolerated if not each.package or normal_name(each.package) == found.name
    ]
    if found.standing is Standing.NOT_ASSESSED:
        return replaced(found, tolerated=next((_told(each) for each in own if not each.id), ""))
    flaws = tuple(
        replaced(
            flaw,
            tolerated=next(
                (_told(each) for each in own if each.id in (*flaw.ids, *flaw.aliases)), ""
            ),
        )
        for flaw in found.flaws
    )
    return replaced(found, flaws=flaws)


def _told(tolerated: Tolerated) -> str:
    return f"{printable(tolerated.why)} (until {tolerated.until})"


def _shown(words: Sequence[str]) -> tuple[str, ...]:
    return tuple(printable(word, 60) for word in words[:_IDS_MAX])


def _date(at_ns: int) -> datetime.date:
    return datetime.datetime.fromtimestamp(at_ns // NS_PER_S, tz=datetime.UTC).date()
