"""The recorder as a real process: killed, restarted, misused; nothing acknowledged is lost."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time

import pytest
from command import wait_until
from recorder_service import ORIGIN, PUBLIC, Service

from modelkeep.adapters.disk import RealDisk
from modelkeep.adapters.journal_file import JournalFile
from modelkeep.adapters.recorder_client import (
    MESSAGE_BYTES_MAX,
    RecorderClient,
    RecordRequest,
    framed,
)
from modelkeep.core.entry import Entry
from modelkeep.core.errors import UnavailableError, UsageError
from modelkeep.flows.ledger_read import read_entries
from modelkeep.ledger.batch import batch_of, prove_record, verify_record
from modelkeep.ledger.log import LogReader


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
    threads = [threading.Thread(target=record, args=(who,), daemon=True) for who in ("a", "b")]
    service.start()
    for thread in threads:
        thread.start()
    for _ in range(4):
        before = len(told)
        for _ in range(6):
            fresh = [b"record %d" % (len(frames) + at) for at in range(7)]
            journal.append(fresh)
            frames += fresh
            time.sleep(0.08)
        wait_until(lambda: len(told) > before + 12, 60)  # noqa: B023  # called before it changes
        assert service.ended(signal.SIGKILL) == -signal.SIGKILL
        service.start()
    stop.set()
    for thread in threads:
        thread.join()
    assert service.ended(signal.SIGTERM) == 0
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
