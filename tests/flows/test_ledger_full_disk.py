"""Goal: a full disk refuses calls and takes control entries, and ends when there is room again.

Method: a recorder process on a small tmpfs of its own, filled by somebody else. The same on a
simulated disk, with the power cut before every change, is in tests/contract/test_journal_file.py.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time

import pytest
from recorder_service import Service

from modelkeep.adapters.disk import RealDisk
from modelkeep.adapters.journal_file import JournalFile
from modelkeep.core.entry import Entry
from modelkeep.core.errors import UnavailableError
from modelkeep.flows.ledger_read import read_entries
from modelkeep.ledger.settings import LedgerSettings

DISK_MIB = 12
SETTINGS = LedgerSettings(reserve_bytes=2 * 1024 * 1024)


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root may mount a tmpfs")
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m,mode=0700", "modelkeep", str(folder)]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"no tmpfs here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)  # noqa: S607


@pytest.fixture
def service(small_disk):
    service = Service(small_disk, labels=("main",), settings=SETTINGS)
    yield service
    service.close()


def fill(path):
    """Take whatever room there is, as another program would."""
    with contextlib.suppress(OSError), path.open("ab", buffering=0) as ballast:
        for size in (64 * 1024, 1):
            with contextlib.suppress(OSError):
                while ballast.write(bytes(size)) == size:
                    pass


def until(is_true, seconds=15.0):
    deadline = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def recorded(service, numbers):
    client = service.client()
    for number in numbers:
        client.record([Entry(kind="x.done", at_ns=number, actor="test")])


def refused(calls):
    with pytest.raises(UnavailableError) as full:
        calls.append([b"call" * 100])
    return full.value.code == "ledger.full"


def test_a_full_disk_keeps_room_for_control_entries(small_disk, service):
    full = small_disk / "wal" / "full"
    calls = JournalFile(
        RealDisk(), small_disk / "journals" / "gateway-0", refused_by=full, writable=True
    )
    service.start()
    recorded(service, range(10))
    calls.append([b"call"] * 10)
    fill(small_disk / "ballast")
    recorded(service, range(10, 60))
    until(full.exists)
    fill_again = os.statvfs(small_disk).f_bfree
    assert fill_again > 100, "the reserve's room is there for control entries"
    assert refused(calls)
    assert service.ended(signal.SIGKILL) == -signal.SIGKILL  # and it starts on a full disk
    service.start()
    recorded(service, range(60, 80))
    assert refused(calls)
    (small_disk / "ballast").unlink()
    until(lambda: not full.exists())
    assert calls.append([b"call"]) == 10
    recorded(service, range(80, 90))
    time.sleep(0.6)
    assert service.ended() == 0
    entries = [entry for _, entry in read_entries(service.access())]
    assert [entry.at_ns for entry in entries if entry.kind == "x.done"] == list(range(90))
    kinds = [entry.kind for entry in entries]
    assert "ledger.full" in kinds
    assert "ledger.room" in kinds[kinds.index("ledger.full") :]
    assert sum(entry.facts["count"] for entry in entries if entry.kind == "calls.batch") == 11
    assert service.report("main").is_whole
