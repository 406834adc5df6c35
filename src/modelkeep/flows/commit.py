"""The point of no return of a change to what the keep holds: snapshot -> ledger -> head."""

from __future__ import annotations

from modelkeep.core.entry import Entry, Fact
from modelkeep.core.errors import UnavailableError
from modelkeep.core.record import to_msgpack
from modelkeep.crypto.kdf import SALT_BYTES
from modelkeep.flows.keep import OpenKeep, replay
from modelkeep.vault.objects import sealed_object
from modelkeep.vault.snapshot import Snapshot


def committed(keep: OpenKeep, after: Snapshot, *facts: tuple[str, dict[str, Fact]]) -> None:
    """Make a snapshot the one that counts.

    It is sealed and stored; then the ledger gets the facts and `vault.committed` in one write.
    Once that is durable the commit has happened: replaying the ledger writes the head.

    Raises:
        UnavailableError: `vault.conflict`, when another commit came first.
    """
    number = keep.state.applied().head + 1
    name, raw = sealed_object(
        "snapshot",
        to_msgpack(after),
        domain=keep.keys.own,
        signer=keep.keys.signer,
        salt=keep.entropy.random_bytes(SALT_BYTES),
    )
    keep.store.put(name, raw)
    at_ns = keep.clock.now_ns()
    head: tuple[str, dict[str, Fact]] = ("vault.committed", {"head": number, "snapshot": name})
    keep.recorder.record(
        [Entry(kind=kind, at_ns=at_ns, actor=keep.actor, facts=of) for kind, of in (*facts, head)]
    )
    replay(keep)
    if keep.state.applied().snapshot != name:
        # A request of an earlier command that had given up was recorded first after all.
        raise UnavailableError(
            "vault.conflict",
            f"another commit took head {number} first; this one does not count",
            hint="run the same command again",
        )
