"""How a version stands: deprecated or not, on hold or not; what is said to whoever uses it.

A deprecation warns until its end, and from then on no new start of the service takes the version.
A hold says nothing about use: what is on hold cannot go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from modelkeep.core.artifact import Manifest
from modelkeep.core.errors import RefusedError
from modelkeep.core.instant import rfc3339
from modelkeep.core.record import Record
from modelkeep.core.rows import Deprecation, Hold
from modelkeep.flows.keep import OpenKeep

LIVE = "live"
DEPRECATED = "deprecated"
ENDED = "ended"  # deprecated, and its end has come
EXPIRED = "expired"  # its own policy ended

VersionKey = tuple[str, int]


class Standing(Record, frozen=True):
    """What State says of one version."""

    deprecation: Deprecation | None = None
    hold: Hold | None = None


NOTHING_SAID = Standing()


def standings(keep: OpenKeep) -> dict[VersionKey, Standing]:
    """What is said of versions; one that is not in it stands as any other."""
    deprecations = {(row.model, row.version): row for row in keep.state.rows(Deprecation)}
    holds = {(row.model, row.version): row for row in keep.state.rows(Hold)}
    return {
        key: Standing(deprecation=deprecations.get(key), hold=holds.get(key))
        for key in deprecations | holds
    }


def standing_of(keep: OpenKeep, name: str, version: int) -> Standing:
    """What is said of one version."""
    return standings(keep).get((name, version), NOTHING_SAID)


def status_of(manifest: Manifest, standing: Standing, now_ns: int) -> str:
    """`live`, `deprecated`, `ended` or `expired`."""
    if 0 < manifest.policy.not_after_ns <= now_ns:
        return EXPIRED
    if standing.deprecation is None:
        return LIVE
    return ENDED if standing.deprecation.is_over(now_ns) else DEPRECATED


def warnings_of(keep: OpenKeep, name: str, version: int) -> tuple[str, ...]:
    """What whoever uses a version ought to hear; mostly nothing."""
    row = standing_of(keep, name, version).deprecation
    return () if row is None else (deprecation_text(row, keep.clock.now_ns()),)


def deprecation_text(row: Deprecation, now_ns: int) -> str:
    """A deprecation, in one sentence."""
    text = f"{row.model}:{row.version} is deprecated"
    if row.until_ns:
        text += f"{', which ended at' if row.is_over(now_ns) else ' until'} "
        text += f"{rfc3339(row.until_ns)[:19]}Z"
    text += f"; use {row.replaced_by}" * bool(row.replaced_by)
    return text + f" ({row.note})" * bool(row.note)


def demand_not_ended(keep: OpenKeep, name: str, version: int) -> None:
    """Go on only if a version's deprecation has not come to its end.

    Raises:
        RefusedError: `version.ended`.
    """
    row, now_ns = standing_of(keep, name, version).deprecation, keep.clock.now_ns()
    if row is not None and row.is_over(now_ns):
        raise RefusedError(
            "version.ended",
            deprecation_text(row, now_ns),
            hint=f"promote another version; `modelkeep deprecate {name}:{version} --undo` takes "
            "it back",
        )


def still_served(
    keep: OpenKeep,
    found: Iterable[VersionKey],
    *,
    is_named: bool,
    warn: Callable[[str], None] = lambda _: None,
) -> tuple[VersionKey, ...]:
    """Those versions that a new start of the service takes; each deprecation is told.

    Args:
        is_named: whether somebody named them: one that has ended is then refused. Otherwise it is
            passed over, so that one model's end does not keep the others from being served.

    Raises:
        RefusedError: `version.ended`.
    """
    kept = []
    now_ns = keep.clock.now_ns()
    for name, version in found:
        row = standing_of(keep, name, version).deprecation
        if row is not None and is_named:
            demand_not_ended(keep, name, version)
        if row is not None:
            warn(deprecation_text(row, now_ns))
        if row is None or not row.is_over(now_ns):
            kept.append((name, version))
    return tuple(kept)


def demand_not_held(keep: OpenKeep, versions: Iterable[VersionKey]) -> None:
    """Go on only if none of these versions is on hold.

    Raises:
        RefusedError: `remove.held`.
    """
    said = standings(keep)
    held = [row for each in versions if (row := said.get(each, NOTHING_SAID).hold) is not None]
    if held:
        names = ", ".join(f"{row.model}:{row.version}" for row in held)
        raise RefusedError(
            "remove.held",
            f"{names} must not go: on hold, says {held[0].by}"
            + f" ({held[0].note})" * bool(held[0].note),
            hint="`modelkeep hold NAME:VERSION --undo` lifts the hold, on the record",
        )
