"""The recorder as a real process: killed, restarted, misused; nothing acknowledged is lost."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import modelkeep
from modelkeep.adapters.disk import RealDisk
from modelkeep.adapters.journal_file import JournalFile
from modelkeep.adapters.recorder_client import (
    MESSAGE_BYTES_MAX,
    RecorderClient,
    RecordRequest,
    framed,
)
from modelkeep.adapters.store_folder import FolderStore
from modelkeep.core.entry import Entry
from modelkeep.core.errors import UnavailableError, UsageError
from modelkeep.core.record import to_json
from modelkeep.crypto.secret import Secret
from modelkeep.crypto.signatures import Signer
from modelkeep.flows.ledger_read import LogAccess, read_entries
from modelkeep.ledger.batch import batch_of, prove_record, verify_record
from modelkeep.ledger.log import LogReader
from modelkeep.ledger.settings import LedgerSettings
from modelkeep.ledger.verify import verified_log
from modelkeep.workers.plan import RecorderPlan, StorePlan

ORIGIN = "example.org/keep/main"
SEED, BODY_KEY = b"s" * 32, b"b" * 32
PUBLIC = Signer(Secret(SEED)).public
SOURCES = str(Path(modelkeep.__file__).parent.parent)


def memory_file(name, raw):
    fd = os.memfd_create(name)
    os.write(fd, raw)
    return fd


class Service:
    """What a supervisor holds for a recorder."""

    def __init__(self, folder):
        self.folder = folder
        self.run_folder = folder / ("deep" * 25) / "run"
        self.run_folder.mkdir(parents=True)
        folder_fd = os.open(self.run_folder, os.O_RDONLY)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(f"/proc/self/fd/{folder_fd}/recorder.sock")
        self.listener.listen(64)
        os.close(folder_fd)
        self.lifeline, self.lifeline_held = os.pipe()
        self.seed = memory_file("seed", SEED)
        self.body_key = memory_file("body-key", BODY_KEY)
        self.plan = RecorderPlan(
            listen_fd=self.listener.fileno(),
            lifeline_fd=self.lifeline,
            sign_seed_fd=self.seed,
            body_key_fd=self.body_key,
            origin=ORIGIN,
            wal_folder=str(folder / "wal"),
            journals_folder=str(folder / "journals"),
            stores=(
                StorePlan(label="main", path=str(folder / "main")),
                StorePlan(label="offsite", path=str(folder / "offsite")),
            ),
            settings=LedgerSettings(),
        )
        self.process = None

    def start(self):
        plan_fd = memory_file("plan", to_json(self.plan))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "modelkeep.workers.recorder", "--plan-fd", str(plan_fd)],
            pass_fds=(
                self.listener.fileno(),
                self.lifeline,
                self.seed,
                self.body_key,
                plan_fd,
            ),
            env={"PYTHONPATH": SOURCES},
        )
        os.close(plan_fd)
        return self

    def ended(self, number):
        self.process.send_signal(number)
        return self.process.wait(20)

    def client(self, timeout_s=20.0):
        return RecorderClient(self.run_folder, timeout_s=timeout_s)

    def store(self, label):
        return FolderStore(self.folder / label, label)

    def access(self, label="main"):
        return LogAccess(self.store(label), ORIGIN, PUBLIC, Secret(BODY_KEY))

    def report(self, label):
        return verified_log(
            self.store(label), origin=ORIGIN, public=PUBLIC, body_key=Secret(BODY_KEY)
        )

    def close(self):
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.listener.close()
        for fd in {self.lifeline, self.seed, self.body_key}:
            os.close(fd)
        if self.lifeline_held >= 0:
            os.close(self.lifeline_held)


@pytest.fixture
def service(tmp_path):
    service = Service(tmp_path)
    yield service
    service.close()


def entry(number, who="test"):
    return Entry(kind="x.done", at_ns=number, actor=who, facts={"number": number})


def until(is_true, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def size_in(service, label):
    return LogReader(service.store(label), ORIGIN).latest(public=PUBLIC).size


@pytest.mark.slow
def test_a_killed_recorder_loses_nothing_that_was_acknowledged(service):
    told, stop = {}, threading.Event()

    def record(who):
        client, number = service.client(), 0
        while not stop.is_set():
            entries = [entry(number + at, who) for at in range(3)]
            try:
                first = client.record(entries)
            except UnavailableError:
                continue  # killed between our request and its answer
            told.update({first + at: each for at, each in enumerate(entries)})
            number += 3

    frames = []
    journal = JournalFile(
        RealDisk(),
        service.folder / "journals" / "gateway-0",
        segment_bytes_max=5_000,
        writable=True,
    )
    threads = [threading.Thread(target=record, args=(who,)) for who in ("a", "b")]
    service.start()
    for thread in threads:
        thread.start()
    for _ in range(4):
        for _ in range(6):
            fresh = [b"record %d" % (len(frames) + at) for at in range(7)]
            journal.append(fresh)
            frames += fresh
            time.sleep(0.08)
        assert service.ended(signal.SIGKILL) == -signal.SIGKILL
        service.start()
    stop.set()
    for thread in threads:
        thread.join()
    assert service.ended(signal.SIGTERM) == 0
    assert len(told) > 50
    for label in ("main", "offsite"):
        found = dict(read_entries(service.access(label)))
        assert {index: found[index] for index in told} == told
        assert service.report(label).is_whole
        assert_batches_cover(found.values(), frames)


def assert_batches_cover(entries, frames):
    at = 0
    for batch in filter(None, map(batch_of, entries)):
        assert (batch.journal, batch.first) == ("gateway-0", at)
        inside = frames[batch.first : batch.end]
        proof = prove_record(inside, position=0)
        root = bytes.fromhex(batch.root)
        verify_record(inside[0], position=0, count=batch.count, proof=proof, root=root)
        at = batch.end
    assert at == len(frames)


def test_a_checkpoint_reaches_every_store_within_a_second(service):
    service.start()
    service.client().record([entry(0)])
    for number in range(1, 4):
        start = time.monotonic()
        assert service.client().record([entry(number)]) == number
        until(lambda number=number: size_in(service, "offsite") > number)
        assert time.monotonic() - start < 1.5  # a second, and this machine's load


def test_the_recorder_ends_with_its_supervisor_and_publishes_the_rest(service):
    service.start()
    service.client().record([entry(0), entry(1)])
    os.close(service.lifeline_held)
    service.lifeline_held = -1
    assert service.process.wait(20) == 0
    assert size_in(service, "main") == size_in(service, "offsite") == 2


def test_a_store_that_is_away_holds_up_nobody_and_catches_up(service):
    offsite = service.folder / "offsite"
    offsite.write_bytes(b"not a folder")
    service.start()
    for number in range(5):
        start = time.monotonic()
        service.client().record([entry(number)])
        assert time.monotonic() - start < 5 or number == 0
    until(lambda: size_in(service, "main") >= 6)  # the failure is recorded too
    offsite.unlink()
    until(lambda: offsite.is_dir() and size_in(service, "offsite") == size_in(service, "main"))
    until(lambda: size_in(service, "offsite") >= 7)  # that it caught up is recorded too
    assert service.ended(signal.SIGTERM) == 0
    kinds = [found.kind for _, found in read_entries(service.access("offsite"))]
    assert kinds.count("ledger.store_failed") == 1
    assert kinds.count("ledger.store_caught_up") == 1


def connected(service):
    folder_fd = os.open(service.run_folder, os.O_RDONLY)
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(f"/proc/self/fd/{folder_fd}/recorder.sock")
    connection.settimeout(10)
    os.close(folder_fd)
    return connection


def test_misuse_of_the_socket_hurts_only_itself(service):
    service.start()
    good = framed(RecordRequest(entries=(entry(0),)))
    with connected(service) as stalled:
        stalled.sendall(good[:-3])
        for bad in (
            (MESSAGE_BYTES_MAX + 1).to_bytes(4, "big"),
            good + b"x",
            b"\xff" * 100,
        ):
            with connected(service) as connection, contextlib.suppress(ConnectionResetError):
                connection.sendall(bad)
                assert connection.recv(10) == b""
        with connected(service) as connection:
            connection.sendall(b"\0\0\0\x03abc")
            assert b"record.msgpack" in connection.recv(1000)
        assert service.client().record([entry(0)]) == 0
    many = [connected(service) for _ in range(70)]
    for connection in many:
        connection.close()
    assert service.client().record([entry(1)]) == 1


def test_what_cannot_be_recorded_is_refused_and_the_rest_goes_on(service):
    service.start()
    long = Entry(kind="x", at_ns=0, actor="x", facts={"text": "a" * 70_000})
    with pytest.raises(UsageError, match=r"ledger\.entry_size"):
        service.client().record([long])
    with pytest.raises(UsageError, match=r"ledger\.request_size"):
        service.client().record([long] * 20)
    assert service.client().record([entry(0)]) == 0


def test_nobody_there_is_unavailable(tmp_path):
    with pytest.raises(UnavailableError, match=r"ledger\.unavailable"):
        RecorderClient(tmp_path / "nowhere").record([entry(0)])
    with pytest.raises(UnavailableError, match=r"ledger\.unavailable"):
        RecorderClient(tmp_path).record([entry(0)])


def test_a_damaged_call_journal_is_said_once_and_the_others_go_on(service):
    for name in ("gateway-0", "gateway-1"):
        journal = JournalFile(RealDisk(), service.folder / "journals" / name, writable=True)
        journal.append([b"first"])
        journal.append([b"second"])
        journal.close()
    [path] = (service.folder / "journals" / "gateway-0").glob("*.journal")
    raw = bytearray(path.read_bytes())
    raw[60] ^= 1
    path.write_bytes(raw)
    service.start()
    service.client().record([entry(0)])
    time.sleep(0.6)
    assert service.ended(signal.SIGTERM) == 0
    found = [each for _, each in read_entries(service.access())]
    assert [each.facts["journal"] for each in found if each.kind == "calls.damaged"] == [
        "gateway-0"
    ]
    assert [each.facts["journal"] for each in found if each.kind == "calls.batch"] == ["gateway-1"]
