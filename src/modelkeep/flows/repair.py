"""Repair: one damaged or missing thing of one store, made good from what any store still holds.

An object that another store has in the same bytes is copied from there. A pack that no other store
has (each encodes by its own policy) is made again from its chunks; an index from the packs that
none names; chunks that no index knows are listed again where a pack holds them, else stored anew.
What no store has any more is remembered as lost. A pack that is damaged where nothing needs it
leaves the indexes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from modelkeep.core.errors import KeepError
from modelkeep.core.names import key_id_of
from modelkeep.flows.keep import OpenKeep, current_head
from modelkeep.ports.store import Store
from modelkeep.vault.check import lacking, recipes
from modelkeep.vault.commit import Writer
from modelkeep.vault.load import Reader
from modelkeep.vault.mend import (
    Wanted,
    drop_packs,
    mended_index,
    mended_packs,
    refilled,
    relisted,
)
from modelkeep.vault.replicate import kind_of
from modelkeep.vault.settings import VaultSettings


@dataclass(slots=True)
class Repair:
    """A repair under way.

    Attributes:
        demand: checks an object, with a reader for the bases of deltas.
        lost: chunks that are needed and in no store, by the id of their key.
    """

    keep: OpenKeep
    demand: Callable[[str, bytes, Reader], None] = field(kw_only=True)
    lost: dict[str, set[bytes]] = field(default_factory=dict)

    def object(self, store: Store, name: str) -> bool:
        """Make one object good; whether that worked."""
        try:
            if self._copied(store, name):
                return True
            kind = kind_of(name)
            if kind not in ("pack", "index") or not self.keep.domains.holds(name):
                return False
            writer, reader = self._writer(store, name), self.keep.reader(may_heal=False)
            if kind == "index":
                return mended_index(writer, reader, name)
            listed = {pack.name for pack in reader.index_of(store, key_id_of(name)).packs()}
            if len(self.keep.stores) == 1 and name not in listed:
                return False  # nobody knows what it holds, and nobody else may have it
            lost = self._needed(key_id_of(name), set(mended_packs(writer, reader, [name]).lost))
            if not lost and store.stat(name) is not None:
                drop_packs(writer, reader, [name])  # nothing needs what it has lost
                store.delete(name)
            elif not lost:
                drop_packs(writer, reader, [name])
        except KeepError:
            return False
        self.lost.setdefault(key_id_of(name), set()).update(lost)
        return not lost

    def chunks(self, store: Store, key_id: str, wanted: set[bytes], snapshot: str) -> bool:
        """Make chunks that no index of a store knows findable there; whether all are.

        Args:
            snapshot: whose recipes name them.
        """
        try:
            writer = self._writer(store, f"pack/{key_id}/00/00")
            relisted(writer, self.keep.reader(may_heal=False))
            reader = self.keep.reader(may_heal=False)  # it reads what was just listed
            index = reader.index_of(store, key_id)
            lengths: dict[bytes, int] = {}
            for name, recipe in recipes(reader, snapshot):
                if key_id_of(name) == key_id:
                    gone = set(lacking(index, recipe)) & wanted
                    places = (each for file in recipe.files for each in file.chunks)
                    lengths.update((each, length) for each, length in places if each in gone)
            done = refilled(
                writer, reader, [Wanted(each, length) for each, length in lengths.items()]
            )
        except KeepError:
            return False
        self.lost.setdefault(key_id, set()).update(done.lost)
        return not done.lost

    def _copied(self, bad: Store, name: str) -> bool:
        """Whether another store had the object whole; it then has replaced the bad one."""
        for store in self.keep.stores:
            if store is bad:
                continue
            try:
                raw = store.get(name)
                others = [each for each in self.keep.stores if each is not bad]
                self.demand(name, raw, self.keep.reader_of(others))
            except KeepError:
                continue
            bad.delete(name)
            bad.put(name, raw)
            return True
        return False

    def _needed(self, key_id: str, chunk_ids: set[bytes]) -> set[bytes]:
        """Those of some chunks that a kept snapshot names."""
        if not chunk_ids:
            return chunk_ids
        reader = self.keep.reader(may_heal=False)
        found: set[bytes] = set()
        for name, recipe in recipes(reader, current_head(self.keep).snapshot):
            if key_id_of(name) == key_id:
                named = {each for file in recipe.files for each, _ in file.chunks}
                found |= chunk_ids & named
        return found

    def _writer(self, store: Store, name: str) -> Writer:
        return self.keep.writer_to(store, self.keep.domains.of(name), VaultSettings())
