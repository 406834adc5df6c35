"""Retention: which versions stay in the keep, and taking out the others, for the next prune.

A version goes when its deprecation has come to its end, or when a wish of `[retention]` is set and
none of them keeps it. These never go, whatever is wished:

 1. what is on hold; 2. what an alias names; 3. what a running service answers for;
 4. what 1 to 3 were made from, as far as their lineage is here: without it nobody could say any
    more where they come from;
 5. what an alias can go back to, as many steps as `keep_rollbacks` says;
 6. the newest version of a name.

5 and 6 look at versions only whose deprecation has not ended: the others are served no more.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from modelkeep.core.artifact import Manifest
from modelkeep.core.errors import MissingError
from modelkeep.core.instant import NS_PER_S
from modelkeep.core.record import Record
from modelkeep.core.rows import Alias
from modelkeep.flows.approvals import demand_approval
from modelkeep.flows.keep import OpenKeep, current_snapshot, record_damages
from modelkeep.flows.lineage import bases_of, proofs_of
from modelkeep.flows.remove import taken_out
from modelkeep.flows.settings import ApprovalSettings, RetentionSettings
from modelkeep.flows.standing import NOTHING_SAID, Standing, VersionKey, demand_not_held, standings

# Versions that a request for approval names; its digest binds all of them.
_NAMED_MAX = 4


class Spared(Record, frozen=True):
    """A version that is past retention and stays.

    Attributes:
        reason: why, such as `on hold` or `named by prod`.
    """

    version: str
    reason: str


class Retirement(Record, frozen=True):
    """What goes, or went.

    Attributes:
        versions: as `name:version`.
        spared: what is past retention too, and stays.
        kept: how many others stay.
    """

    versions: tuple[str, ...]
    spared: tuple[Spared, ...]
    kept: int


def retirement(
    keep: OpenKeep,
    settings: RetentionSettings,
    *,
    names: Collection[str] = (),
    served: Collection[str] = (),
) -> Retirement:
    """What is past retention; nothing is changed.

    Args:
        names: these models only; empty for all.
        served: what a running service answers for, as `name:version`.

    Raises:
        MissingError: `model.unknown`.
        IntegrityError: when a manifest is damaged in every store.
    """
    past, reasons, total = _judged(keep, settings, names=names, served=served)
    return Retirement(
        versions=tuple(_text(each) for each in past if each not in reasons),
        spared=tuple(
            Spared(version=_text(each), reason=reasons[each]) for each in past if each in reasons
        ),
        kept=total - len(past),
    )


def retired(
    keep: OpenKeep,
    settings: RetentionSettings,
    *,
    approvals: ApprovalSettings,
    names: Collection[str] = (),
    served: Collection[str] = (),
) -> Retirement:
    """Take what is past retention out of the current snapshot, in one commit.

    Raises:
        MissingError: `model.unknown`.
        RefusedError: `approval.needed`, where `models.remove` needs approval.
        IntegrityError: when a manifest is damaged in every store.
    """
    done = retirement(keep, settings, names=names, served=served)
    if not done.versions:
        return done
    some = ", ".join(done.versions[:_NAMED_MAX]) + "…" * (len(done.versions) > _NAMED_MAX)
    demand_approval(
        keep,
        approvals,
        verb="models.remove",
        subject=f"{len(done.versions)} past retention: {some}",
        details={"versions": done.versions},
    )
    keys = [_key(text) for text in done.versions]
    demand_not_held(keep, keys)
    taken_out(keep, keys)
    return done


@dataclass(frozen=True, slots=True)
class _Scene:
    """What is decided over."""

    settings: RetentionSettings
    manifests: Mapping[VersionKey, Manifest]
    said: Mapping[VersionKey, Standing]
    aliases: tuple[Alias, ...]
    served: frozenset[VersionKey]
    now_ns: int

    def is_over(self, key: VersionKey) -> bool:
        row = self.said.get(key, NOTHING_SAID).deprecation
        return row is not None and row.is_over(self.now_ns)


def _judged(
    keep: OpenKeep,
    settings: RetentionSettings,
    *,
    names: Collection[str],
    served: Collection[str],
) -> tuple[list[VersionKey], dict[VersionKey, str], int]:
    """What is past retention, what of all stays anyway with why, and how many there are."""
    reader = keep.reader()
    snapshot = current_snapshot(keep, reader)
    proofs = proofs_of(keep, reader, snapshot)  # of all names: a lineage goes through many
    record_damages(keep, reader.damages)
    unknown = set(names) - {name for name, _ in proofs}
    if unknown:
        raise MissingError(
            "model.unknown",
            f"there is no model {', '.join(sorted(unknown))}",
            hint="`modelkeep models` lists what the keep holds",
        )
    scene = _Scene(
        settings=settings,
        manifests={key: proof.manifest for key, proof in proofs.items()},
        said=standings(keep),
        aliases=keep.state.rows(Alias),
        served=frozenset(key for key in proofs if _text(key) in served),
        now_ns=keep.clock.now_ns(),
    )
    chosen = [key for key in proofs if not names or key[0] in names]
    return list(_past(scene, chosen)), _reasons(scene), len(chosen)


def _past(scene: _Scene, chosen: list[VersionKey]) -> Iterator[VersionKey]:
    wishes = scene.settings
    since_ns = scene.now_ns - int(wishes.keep_within_s * NS_PER_S)
    rank: dict[str, int] = {}
    places = {}
    for key in reversed(chosen):
        if not scene.is_over(key):  # what has ended takes nobody's place
            places[key] = rank.get(key[0], 0)
            rank[key[0]] = places[key] + 1
    for key in chosen:
        if scene.is_over(key):
            yield key
        elif wishes.keep_last or wishes.keep_within_s:
            is_young = wishes.keep_within_s and scene.manifests[key].admitted_ns >= since_ns
            if not is_young and places[key] >= wishes.keep_last:
                yield key


def _reasons(scene: _Scene) -> dict[VersionKey, str]:
    """Why versions stay whatever is wished; the numbers are those of the module."""
    found: dict[VersionKey, str] = {}
    for key, standing in scene.said.items():
        if standing.hold is not None:
            found[key] = "on hold"  # 1
    for row in scene.aliases:
        found.setdefault((row.model, row.version), f"named by {row.alias}")  # 2
    for key in scene.served:
        found.setdefault(key, "being served")  # 3
    for key in tuple(found):
        for base in bases_of(key, scene.manifests):
            found.setdefault(base, f"{_text(key)} was made from it")  # 4
    for row in scene.aliases:
        back = [key for key in _way_back(row) if key in scene.manifests and not scene.is_over(key)]
        for key in back[: scene.settings.keep_rollbacks]:
            found.setdefault(key, f"{row.alias} can go back to it")  # 5
    newest = {key[0]: key for key in scene.manifests if not scene.is_over(key)}
    for key in newest.values():
        found.setdefault(key, "the newest")  # 6
    return found


def _way_back(row: Alias) -> list[VersionKey]:
    """What an alias can go back to, the nearest first, each once."""
    return [(row.model, each) for each in dict.fromkeys(row.previous) if each != row.version]


def _text(key: VersionKey) -> str:
    return f"{key[0]}:{key[1]}"


def _key(text: str) -> VersionKey:
    name, _, version = text.partition(":")
    return name, int(version)
