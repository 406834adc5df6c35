"""The threads that carry the log: what nobody foresaw ends none of them."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from modelkeep.adapters.journal_file import JournalFile
from modelkeep.core.entry import Entry
from modelkeep.core.errors import UnavailableError
from modelkeep.crypto.secret import Secret
from modelkeep.crypto.signatures import Signer
from modelkeep.flows.ledger import Sequencer
from modelkeep.ledger.verify import verified_log
from modelkeep.testing.memory import MemoryStore, SeededEntropy
from modelkeep.testing.power import SimulatedDisk
from modelkeep.workers import publishing
from modelkeep.workers.publishing import Publishers

ORIGIN = "example.org/keep/main"
SIGNER = Signer(Secret(b"s" * 32))
BODY_KEY = Secret(b"b" * 32)


class OddStore(MemoryStore):
    """Raises what it is told to, which no port promises."""

    odd = None

    def put(self, name, raw):
        if self.odd is not None:
            raise self.odd
        super().put(name, raw)


class LostSigner:
    """A keyholder that is away for a while."""

    public = SIGNER.public
    is_away = False

    def sign(self, message, *, context):
        return SIGNER.sign(message, context=context)

    def sign_bare(self, message):
        if self.is_away:
            raise UnavailableError("keyholder.lost", "it does not answer")
        return SIGNER.sign_bare(message)


@pytest.fixture
def world(monkeypatch):
    monkeypatch.setattr(publishing, "RETRY_S_MIN", 0.01)
    monkeypatch.setattr(publishing, "RETRY_S_MAX", 0.02)
    return World()


class World:
    def __init__(self):
        self.stores = [MemoryStore("first"), OddStore("second")]
        self.signer = LostSigner()
        self.sequencer = Sequencer(
            origin=ORIGIN,
            journal=JournalFile(SimulatedDisk(), Path("/wal"), writable=True),
            stores=self.stores,
            signer=self.signer,
            body_key=BODY_KEY,
            entropy=SeededEntropy(),
        )
        self.publishers = Publishers(
            self.sequencer, gather_s=0.001, alive=lambda _number, _size, _at_ns: None
        )
        self.heard = []

    def record(self, count):
        first = self.sequencer.size
        entries = [Entry(kind="x", at_ns=first + n, actor="x") for n in range(count)]
        self.sequencer.append(entries)
        self.publishers.wake()

    def until(self, kind):
        deadline = time.monotonic() + 10
        while kind not in [each for each, _ in self.heard]:
            self.heard += self.publishers.news()
            assert time.monotonic() < deadline, f"nobody says {kind}"
            time.sleep(0.005)
        return next(facts for each, facts in self.heard if each == kind)

    def stop(self):
        self.publishers.stop(first_s=5, others_s=5)
        self.heard += self.publishers.news()


def demand_whole(world):
    for store in world.stores:
        report = verified_log(store, origin=ORIGIN, public=SIGNER.public, body_key=BODY_KEY)
        assert (report.size, report.findings) == (world.sequencer.size, ())


def test_a_defect_is_told_once_stops_nobody_and_ends(world):
    world.stores[1].odd = RuntimeError("odd " * 200)
    world.publishers.start()
    world.record(300)
    facts = world.until("ledger.store_failed")
    assert facts["store"] == "second"
    assert facts["code"] == "ledger.defect"
    assert facts["message"].startswith("RuntimeError: odd odd")
    assert len(facts["message"]) <= publishing.MESSAGE_MAX
    for _ in range(5):  # it goes on failing, and the first store goes on
        world.record(10)
        time.sleep(0.02)
    world.stores[1].odd = None
    assert world.until("ledger.store_caught_up") == {"store": "second"}
    world.stop()
    assert [kind for kind, _ in world.heard] == ["ledger.store_failed", "ledger.store_caught_up"]
    demand_whole(world)


def test_a_keyholder_that_is_away_delays_checkpoints_only(world):
    world.signer.is_away = True
    world.publishers.start()
    world.record(10)
    facts = world.until("ledger.store_failed")
    assert facts["code"] == "keyholder.lost"
    assert world.sequencer.published_size == 0
    world.record(10)
    world.signer.is_away = False
    world.until("ledger.store_caught_up")
    world.stop()
    assert world.sequencer.published_size == 20
    demand_whole(world)
