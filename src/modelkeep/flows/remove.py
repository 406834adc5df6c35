"""Remove: an artifact version leaves the current snapshot; its number is not used again.

Earlier snapshots hold it until they are pruned, and so it can still be restored from them.
"""

from __future__ import annotations

from collections.abc import Collection

from modelkeep.core.artifact import parsed_reference
from modelkeep.core.entry import Fact
from modelkeep.core.errors import MissingError, RefusedError, UsageError
from modelkeep.core.record import Record, replaced
from modelkeep.core.rows import Alias
from modelkeep.flows.commit import committed
from modelkeep.flows.keep import OpenKeep, current_head
from modelkeep.flows.standing import VersionKey, demand_not_held
from modelkeep.vault.snapshot import ArtifactEntry, Snapshot


class Removal(Record, frozen=True):
    """What is to go, or went.

    Attributes:
        versions: as `name:version`.
        aliases: those that name one of them, as `name:alias`.
    """

    versions: tuple[str, ...]
    aliases: tuple[str, ...]


def removal(keep: OpenKeep, text: str) -> Removal:
    """What a removal would take; nothing is changed.

    Args:
        text: NAME:VERSION, or NAME for all of its versions.

    Raises:
        UsageError: `model.name` or `remove.alias_name`.
        MissingError: `model.unknown`.
    """
    return _removal(keep, _keys(keep, text))


def removed(
    keep: OpenKeep, text: str, *, served: Collection[str] = (), force: bool = False
) -> Removal:
    """Take artifact versions out of the current snapshot.

    Args:
        served: what a running service answers for, as `name:version`.
        force: also what aliases name; these then name nothing.

    Raises:
        UsageError: `model.name` or `remove.alias_name`.
        MissingError: `model.unknown`.
        RefusedError: `remove.held`, `remove.served` or `remove.alias`.
    """
    keys = _keys(keep, text)
    doomed = _removal(keep, keys)
    demand_not_held(keep, keys)
    answering = [each for each in doomed.versions if each in served]
    if answering:
        raise RefusedError(
            "remove.served",
            f"{', '.join(answering)} is being served",
            hint="serve another version first (`alias`), restart the service, then remove this one",
        )
    if doomed.aliases and not force:
        raise RefusedError(
            "remove.alias",
            f"{', '.join(doomed.aliases)} would name nothing",
            hint="point the alias at another version, or give --force",
        )
    taken_out(keep, keys)
    return doomed


def taken_out(keep: OpenKeep, keys: Collection[VersionKey]) -> None:
    """Take these versions out of the current snapshot in one commit; the caller asked who minds."""
    head = current_head(keep)
    before = keep.reader().snapshot(head.snapshot)
    after = replaced(
        before,
        taken_ns=keep.clock.now_ns(),
        parent=head.snapshot,
        artifacts=tuple(each for each in before.artifacts if (each.name, each.version) not in keys),
        retired=(*before.retired, *keys),
        indexes=(),
    )
    aliases = _aliases_of(keep, keys)
    facts: list[tuple[str, dict[str, Fact]]] = []
    for model in dict.fromkeys(name for name, _ in keys):
        gone = tuple(str(version) for name, version in keys if name == model)
        named = tuple(f"{row.model}:{row.alias}" for row in aliases if row.model == model)
        facts.append(("model.removed", {"model": model, "versions": gone, "aliases": named}))
    committed(keep, after, *facts)


def _removal(keep: OpenKeep, keys: Collection[VersionKey]) -> Removal:
    return Removal(
        versions=tuple(f"{name}:{version}" for name, version in keys),
        aliases=tuple(f"{row.model}:{row.alias}" for row in _aliases_of(keep, keys)),
    )


def _aliases_of(keep: OpenKeep, keys: Collection[VersionKey]) -> list[Alias]:
    return [row for row in keep.state.rows(Alias) if (row.model, row.version) in keys]


def _keys(keep: OpenKeep, text: str) -> tuple[VersionKey, ...]:
    entries = _chosen(keep.reader().snapshot(current_head(keep).snapshot), text)
    return tuple((each.name, each.version) for each in entries)


def _chosen(snapshot: Snapshot, text: str) -> list[ArtifactEntry]:
    reference = parsed_reference(text)
    if reference.selector and not reference.selector.isdecimal():
        raise UsageError(
            "remove.alias_name",
            f"{text} names a version by its alias, which may move",
            hint="write the number: `modelkeep models` shows it",
        )
    chosen = [
        each
        for each in snapshot.artifacts
        if each.name == reference.name
        and (not reference.selector or each.version == int(reference.selector))
    ]
    if not chosen:
        raise MissingError(
            "model.unknown",
            f"there is no model {text}",
            hint="`modelkeep models` lists what the keep holds",
        )
    return chosen
