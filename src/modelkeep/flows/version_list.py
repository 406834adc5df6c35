"""The versions of one name, each with how it stands, and where its aliases have been."""

from __future__ import annotations

from collections.abc import Iterator

from modelkeep.core.card import DataSet
from modelkeep.core.entry import Entry
from modelkeep.core.errors import MissingError
from modelkeep.core.record import Record
from modelkeep.core.rows import Alias, Deprecation, Hold
from modelkeep.flows.keep import OpenKeep, current_snapshot, record_damages
from modelkeep.flows.lineage import proofs_of
from modelkeep.flows.standing import NOTHING_SAID, standings, status_of

MOVES = ("alias.set", "model.promoted", "model.rolled_back")


class VersionFacts(Record, frozen=True):
    """One version, for people.

    Attributes:
        status: `live`, `deprecated`, `ended` or `expired`.
        datasets: what it was trained and judged on.
        run: id of its training run.
        digest: of its manifest.
    """

    version: int
    kind: str
    size_bytes: int
    admitted_ns: int
    aliases: tuple[str, ...]
    status: str
    deprecation: Deprecation | None
    hold: Hold | None
    base: str
    datasets: tuple[DataSet, ...]
    run: str
    digest: str
    note: str


class VersionList(Record, frozen=True):
    """All versions of a name.

    Attributes:
        aliases: with the versions that each named before, the last one first.
    """

    model: str
    versions: tuple[VersionFacts, ...]
    aliases: tuple[Alias, ...]


class AliasMove(Record, frozen=True):
    """One move of an alias, as the ledger says.

    Attributes:
        index: of its entry.
        act: `set`, `promoted` or `rolled_back`.
    """

    index: int
    at_ns: int
    actor: str
    act: str
    alias: str
    version: int
    note: str


def versions_of(keep: OpenKeep, name: str) -> VersionList:
    """The versions of a name, in order.

    Raises:
        MissingError: `model.unknown`.
    """
    reader = keep.reader()
    proofs = proofs_of(keep, reader, current_snapshot(keep, reader), names=(name,))
    record_damages(keep, reader.damages)
    if not proofs:
        raise MissingError(
            "model.unknown",
            f"there is no model {name}",
            hint="`modelkeep models` lists what the keep holds",
        )
    said, now_ns = standings(keep), keep.clock.now_ns()
    aliases = tuple(row for row in keep.state.rows(Alias) if row.model == name)
    found = []
    for key, proof in proofs.items():
        manifest, standing = proof.manifest, said.get(key, NOTHING_SAID)
        found.append(
            VersionFacts(
                version=key[1],
                kind=manifest.kind,
                size_bytes=sum(file.size_bytes for file in manifest.files),
                admitted_ns=manifest.admitted_ns,
                aliases=tuple(row.alias for row in aliases if row.version == key[1]),
                status=status_of(manifest, standing, now_ns),
                deprecation=standing.deprecation,
                hold=standing.hold,
                base=manifest.base,
                datasets=manifest.card.datasets,
                run=manifest.card.run,
                digest=proof.digest,
                note=manifest.note,
            )
        )
    return VersionList(model=name, versions=tuple(found), aliases=aliases)


def moves_of(keep: OpenKeep, name: str) -> Iterator[AliasMove]:
    """Every move of a model's aliases, oldest first; reads the whole ledger."""
    for index, entry in keep.history(0):
        if entry.kind in MOVES and entry.facts.get("model") == name:
            yield _moved(index, entry)


def _moved(index: int, entry: Entry) -> AliasMove:
    version = entry.facts.get("version")
    return AliasMove(
        index=index,
        at_ns=entry.at_ns,
        actor=entry.actor,
        act=entry.kind.rpartition(".")[2],
        alias=str(entry.facts.get("alias")),
        version=version if isinstance(version, int) else 0,
        note=str(entry.facts.get("note", "")),
    )
