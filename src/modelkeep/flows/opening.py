"""What every opening of a keep does first: bring ledger, State, stores and configuration to agree.

first entry of an empty log -> replay into State, finishing commits that lack their head -> what
was healed while reading is recorded -> every store gets the keyring and loses older ones -> a
changed modelkeep.toml goes to the stores
"""

from __future__ import annotations

from collections.abc import Sequence

from modelkeep.core.entry import Entry, Fact
from modelkeep.core.errors import IntegrityError
from modelkeep.core.names import series_number
from modelkeep.core.rows import KeyringMark
from modelkeep.flows.create import config_copy, config_of
from modelkeep.flows.keep import OpenKeep, record, replay
from modelkeep.flows.keyring import settled
from modelkeep.flows.keys import remove_unreadable, shredded_keys, without_dead
from modelkeep.ports.journal import Journal
from modelkeep.vault.objects import member_names, series_member


def agree(keep: OpenKeep, *, journal: Journal, config: bytes, healed: Sequence[str]) -> OpenKeep:
    """Bring everything to agree; each step can be cut and repeated.

    Args:
        config: the exact bytes of modelkeep.toml.
        healed: filled while the history is read: `store:object` for each healed ledger object.
    """
    _begin_log(keep, journal)
    replay(keep)
    _record_healed(keep, healed)
    keep = _with_agreed_ring(keep)
    _keep_config(keep, config)
    return keep


def _begin_log(keep: OpenKeep, journal: Journal) -> None:
    """Record the first entry of an empty log: that the keep was made, or what it goes on from."""
    if journal.next_position() > 0:
        return
    epoch = keep.epochs[-1]
    labels = tuple(store.label for store in keep.stores)
    kind = "keep.created"
    facts: dict[str, Fact] = {"keep_id": keep.keep_id}
    if epoch.number > 0:
        resumed = epoch.resumed.splitlines() or ["", "0", ""]
        kind = "ledger.resumed"
        facts |= {"resumed": resumed[0], "size": int(resumed[1]), "root": resumed[2]}
    entry = Entry(
        kind=kind,
        at_ns=keep.clock.now_ns(),
        actor=keep.actor,
        facts={**facts, "origin": epoch.origin, "base": epoch.base, "stores": labels},
    )
    entries = [entry]
    if epoch.head > 0:
        facts = {"head": epoch.head, "snapshot": epoch.snapshot}
        entries.append(
            Entry(kind="vault.committed", at_ns=entry.at_ns, actor=keep.actor, facts=facts)
        )
    keep.recorder.record(entries)


def _record_healed(keep: OpenKeep, healed: Sequence[str]) -> None:
    for each in healed:
        label, _, name = each.partition(":")
        record(keep, "vault.healed", {"store": label, "object": name, "code": "ledger"})


def _with_agreed_ring(keep: OpenKeep) -> OpenKeep:
    """Record that the root was used; bring every store to hold the keyring that was opened.

    A destruction that was cut short is finished.

    Raises:
        IntegrityError: `keys.rolled_back`, when the ledger knows a newer one than any store holds.
    """
    number = keep.ring.number
    known = max((each.number for each in keep.state.rows(KeyringMark)), default=0)
    if known > number:
        raise IntegrityError(
            "keys.rolled_back",
            f"the ledger knows keyring {known}, the stores hold {number}: it was rolled back",
            hint="`modelkeep recover` from a store that you trust",
        )
    if known < number:
        # A change was written and the power failed before it was recorded.
        record(keep, "keyring.changed", {"number": number, "reason": "found"})
    for label in settled(keep.ring, keep.stores).healed:
        facts: dict[str, Fact] = {"store": label, "object": f"keyring {number}", "code": "keyring"}
        record(keep, "vault.healed", facts)
    record(keep, "key.used", {"key": f"keyring/{number}", "purpose": "unlock"})
    keep, _ = shredded_keys(keep)
    if keep.ring.number > number:
        remove_unreadable(keep)
    without_dead(keep)
    return keep


def _keep_config(keep: OpenKeep, raw: bytes) -> None:
    """Give the stores a sealed copy of a modelkeep.toml that has changed."""
    if config_of(keep.stores, keep.keys)[1] != raw:
        # Past whatever is there, valid or not: a damaged newest copy must not lock anybody out.
        names = member_names(keep.store, "config")
        number = 1 + max((series_number(name) for name in names), default=-1)
        member = config_copy(keep.keys, number, raw, keep.entropy)
        keep.store.put(*series_member("config", member, signer=keep.keys.signer))
        record(keep, "config.changed", {"number": number})
