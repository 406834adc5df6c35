"""A log over memory for tests: a sequencer, its journal, its stores, and what it was told."""

from __future__ import annotations

from pathlib import Path

from modelkeep.adapters.journal_file import JournalFile
from modelkeep.core.entry import Entry
from modelkeep.crypto.secret import Secret
from modelkeep.crypto.signatures import Signer
from modelkeep.flows.ledger import Sequencer
from modelkeep.flows.ledger_read import LogAccess, read_entries
from modelkeep.ledger.tiles import log_prefix
from modelkeep.ledger.verify import verified_log
from modelkeep.testing.memory import MemoryStore, SeededEntropy
from modelkeep.testing.power import SimulatedDisk

ORIGIN = "example.org/keep/main"
PREFIX = log_prefix(ORIGIN)
SIGNER = Signer(Secret(b"s" * 32))
BODY_KEY = Secret(b"b" * 32)


def entry(number, kind="model.admitted"):
    return Entry(kind=kind, at_ns=number, actor="cli:root", facts={"number": number})


def wal_on(disk, segment_bytes_max=20_000):
    return JournalFile(disk, Path("/wal"), segment_bytes_max=segment_bytes_max, writable=True)


def sequencer_over(journal, stores, *, entropy=None, origin=ORIGIN):
    return Sequencer(
        origin=origin,
        journal=journal,
        stores=stores,
        signer=SIGNER,
        body_key=BODY_KEY,
        entropy=entropy or SeededEntropy(),
    )


def access_to(store, journal=None):
    return LogAccess(store, ORIGIN, SIGNER.public, BODY_KEY, journal)


def verified(store, *, body_key=BODY_KEY, at_least=None):
    return verified_log(
        store, origin=ORIGIN, public=SIGNER.public, body_key=body_key, at_least=at_least
    )


def numbers(access, start=0):
    return [(index, found.facts["number"]) for index, found in read_entries(access, start)]


class Log:
    """A log over memory, and what it was told to hold."""

    def __init__(self, *sizes, stores=1):
        self.disk = SimulatedDisk()
        self.stores = [MemoryStore(f"store-{number}") for number in range(stores)]
        self.journal = wal_on(self.disk)
        self.sequencer = sequencer_over(self.journal, self.stores)
        self.size = 0
        for size in sizes:
            self.grow(size)

    def append(self, size):
        assert self.sequencer.append([entry(n) for n in range(self.size, size)]) == self.size
        self.size = size

    def grow(self, size):
        self.append(size)
        return self.sequencer.publish()

    @property
    def store(self):
        return self.stores[0]
