"""The limiter of one machine keeps the promises of its port, whatever cuts it short."""

import asyncio
import os
import signal
import struct
import subprocess
import sys
import time

import pytest

from modelkeep.adapters import limiter_shared
from modelkeep.adapters.limiter_shared import SharedLimiter
from modelkeep.core.errors import IntegrityError, UnavailableError
from modelkeep.ports.limiter import Change, Meter
from modelkeep.testing.limiter_contract import LimiterContract
from tests.arch.source import ROOT

MINUTE = 60 * 10**9
CALLS = Meter(b"calls".ljust(16), MINUTE, 100)


class TestSharedLimiter(LimiterContract):
    @pytest.fixture
    def workers(self, tmp_path):
        return lambda: SharedLimiter(tmp_path / "limits")


def lent(limiter, least=1, *, meter=CALLS, changes=()):
    return asyncio.run(limiter.lease(meter, least=least, wish=0, changes=changes)).amount


def closed(limiter):
    asyncio.run(limiter.close())


class Machine:
    """Clocks that a test turns."""

    def __init__(self, path):
        self.path = path
        self.boottime_ns = 1_000 * 10**9
        self.wall_ns = 1_700_000_000 * 10**9
        self.boot_id = b"1" * 16

    def limiter(self):
        return SharedLimiter(
            self.path,
            boottime_ns=lambda: self.boottime_ns,
            wall_ns=lambda: self.wall_ns,
            boot_id=self.boot_id,
        )

    def reboot(self, *, down_s):
        self.boot_id = os.urandom(16)
        self.boottime_ns = 5 * 10**9
        self.wall_ns += down_s * 10**9


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path / "limits")


def test_the_wall_clock_changes_nothing_while_the_machine_runs(machine):
    limiter = machine.limiter()
    assert lent(limiter, 100) == 100
    for wall_ns in (0, 2**62):
        machine.wall_ns = wall_ns
        other = machine.limiter()
        assert lent(other) == 0
        closed(other)
    closed(limiter)


def test_a_budget_goes_on_after_a_reboot(machine):
    day = Meter(b"day".ljust(16), 86_400 * 10**9, 100)
    limiter = machine.limiter()
    assert lent(limiter, 100, meter=day) == 100
    closed(limiter)
    machine.reboot(down_s=3600)
    limiter = machine.limiter()
    assert lent(limiter, meter=day) == 0
    machine.boottime_ns += (86_400 - 3600 + 864) * 10**9
    assert lent(limiter, meter=day) == 1
    closed(limiter)


def test_a_wall_clock_set_back_over_a_reboot_gives_nothing_away(machine):
    limiter = machine.limiter()
    assert lent(limiter, 100) == 100
    closed(limiter)
    machine.reboot(down_s=-86_400)
    limiter = machine.limiter()
    assert lent(limiter) == 0
    machine.boottime_ns += 61 * 10**9
    assert lent(limiter) == 1
    closed(limiter)


def test_a_clock_that_goes_back_gives_nothing_away(machine):
    limiter = machine.limiter()
    assert lent(limiter, 60) == 60
    machine.boottime_ns -= 900 * 10**9
    assert lent(limiter, 41) == 0
    assert lent(limiter, 40) == 40
    closed(limiter)


class _Cut(BaseException):
    pass


class _Fused:
    """A mapping that takes only so many more bytes, like a writer that is killed."""

    def __init__(self, mapping, fuse):
        self._mapping, self.fuse = mapping, fuse

    def __getitem__(self, at):
        return self._mapping[at]

    def __setitem__(self, at, raw):
        for offset, byte in zip(
            range(at.start, at.stop) if isinstance(at, slice) else (at,),
            raw if isinstance(at, slice) else (raw,),
            strict=True,
        ):
            if self.fuse <= 0:
                raise _Cut
            self.fuse -= 1
            self._mapping[offset] = byte

    def __getattr__(self, name):
        return getattr(self._mapping, name)

    def __buffer__(self, flags):
        return memoryview(self._mapping)


def cut_after(limiter, fuse, act):
    """Whether an act was cut; the limiter's own mapping comes back, its locks are open."""
    whole = limiter._map
    limiter._map = _Fused(whole, fuse)
    try:
        act()
    except _Cut:
        return True
    finally:
        limiter._map = whole
    return False


@pytest.fixture
def fused(monkeypatch):
    """struct reads through our mapping too, before Python 3.12 knows `__buffer__`."""

    class _Reading:
        def __init__(self, form):
            self._form = form

        def unpack_from(self, mapping, at):
            return self._form.unpack(mapping[at : at + self._form.size])

        def pack_into(self, mapping, at, *values):
            mapping[at : at + self._form.size] = self._form.pack(*values)

        def __getattr__(self, name):
            return getattr(self._form, name)

    for name in ("_U64", "_U32"):
        monkeypatch.setattr(limiter_shared, name, _Reading(getattr(limiter_shared, name)))


@pytest.mark.usefixtures("fused")
@pytest.mark.verify("limits")
def test_a_writer_cut_at_any_byte_of_an_update_has_changed_nothing(machine, count):
    limiter = machine.limiter()
    assert lent(limiter, 10) == 10
    step = count(37, full=1)
    for fuse in range(0, 2000, step):
        if not cut_after(limiter, fuse, lambda: lent(limiter, 20)):
            break
        # A worker that opens the file now sees what was there before, and can go on.
        other = machine.limiter()
        assert lent(other, 91) == 0
        assert lent(other, 90) == 90
        assert lent(other, 0, changes=[Change(now_bucket(other), -90)]) == 0
        closed(other)
    else:
        pytest.fail("no update took so few bytes")
    assert fuse > 500
    assert lent(limiter, 70) == 70
    closed(limiter)


def now_bucket(limiter):
    return limiter_shared.bucket_of(limiter.now_ns(), MINUTE)


@pytest.mark.usefixtures("fused")
@pytest.mark.verify("limits")
def test_a_writer_cut_at_any_byte_of_a_new_entry_leaves_room_for_it(machine, count):
    limiter = machine.limiter()
    step = count(41, full=1)
    for fuse in range(0, 4000, step):
        meter = Meter(fuse.to_bytes(16, "big"), MINUTE, 100)
        if not cut_after(limiter, fuse, lambda meter=meter: lent(limiter, 20, meter=meter)):
            break
        other = machine.limiter()
        assert lent(other, 101, meter=meter) == 0
        assert lent(other, 100, meter=meter) == 100
        closed(other)
    else:
        pytest.fail("no entry took so few bytes")
    closed(limiter)


def entry_of(limiter, meter):
    return limiter._placed(meter.key, limiter._place(meter.key))


def test_an_entry_whose_counts_are_lost_is_closed_for_its_window(machine):
    limiter = machine.limiter()
    assert lent(limiter, 1) == 1
    at = entry_of(limiter, CALLS) + limiter_shared._SLOTS_AT
    for start in (at, at + limiter_shared._SLOT_BYTES):
        limiter._map[start + 40] ^= 1
    assert lent(limiter) == 0
    machine.boottime_ns += MINUTE
    assert lent(limiter) == 0
    machine.boottime_ns += MINUTE // 100
    assert lent(limiter, 100) == 100
    closed(limiter)


def test_an_entry_whose_newest_counts_are_torn_goes_on_from_those_before(machine):
    limiter = machine.limiter()
    assert [lent(limiter, 10), lent(limiter, 10)] == [10, 10]
    at = entry_of(limiter, CALLS) + limiter_shared._SLOTS_AT
    newest = max(
        (at, at + limiter_shared._SLOT_BYTES),
        key=lambda start: struct.unpack_from("<Q", limiter._map, start)[0],
    )
    limiter._map[newest + 500] ^= 1
    assert lent(limiter, 91) == 0
    assert lent(limiter, 90) == 90
    closed(limiter)


def test_a_set_whose_entry_lost_its_name_takes_nobody_new_for_a_day(machine):
    limiter = machine.limiter()
    assert lent(limiter, 1) == 1
    limiter._map[entry_of(limiter, CALLS) + limiter_shared._NAME_AT] ^= 1
    with pytest.raises(UnavailableError, match="damaged"):
        lent(limiter)
    machine.boottime_ns += limiter_shared.LOST_NS
    assert lent(limiter, 100) == 100
    closed(limiter)


def test_a_full_table_refuses_new_meters_and_keeps_its_counts(machine, monkeypatch):
    limiter = machine.limiter()
    monkeypatch.setattr(limiter, "_place", lambda _: 3)  # all in one set
    meters = [Meter(bytes([at]) * 16, MINUTE, 10) for at in range(20)]
    for meter in meters[:16]:
        assert lent(limiter, 10, meter=meter) == 10
    with pytest.raises(UnavailableError, match="more callers than"):
        lent(limiter, meter=meters[16])
    assert lent(limiter, meter=meters[0]) == 0
    machine.boottime_ns += 2 * MINUTE  # what counts nothing any more makes room
    assert [lent(limiter, 10, meter=each) for each in meters[4:]] == [10] * 16
    closed(limiter)


def test_a_file_that_is_none_of_ours_is_not_touched(tmp_path):
    path = tmp_path / "limits"
    path.write_bytes(b"something else")
    with pytest.raises(IntegrityError) as caught:
        SharedLimiter(path)
    assert caught.value.code == "limits.file"
    assert path.read_bytes() == b"something else"


HOLDER = """
import asyncio, sys, time
from pathlib import Path
from modelkeep.adapters.limiter_shared import SharedLimiter
from modelkeep.ports.limiter import Meter
limiter = SharedLimiter(Path(sys.argv[1]))
places = Meter(b"p" * 16, 0, 10)
print(asyncio.run(limiter.hold(places, 7)), flush=True)
if sys.argv[2] == "stopped":
    limiter._locks.take(limiter._place(places.key) + 1 + 64)
    print("locked", flush=True)
time.sleep(60)
"""


def holder(path, how):
    started = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path), how],
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": str(ROOT / "src")},
    )
    assert started.stdout.readline() == "7\n"
    return started


def test_the_places_of_a_killed_worker_come_back_at_once(tmp_path):
    started = holder(tmp_path / "limits", "killed")
    limiter = SharedLimiter(tmp_path / "limits")
    places = Meter(b"p" * 16, 0, 10)
    try:
        assert asyncio.run(limiter.hold(places, 4)) == 0
        started.send_signal(signal.SIGKILL)
        started.wait()
        assert asyncio.run(limiter.hold(places, 10)) == 10
        # A worker that takes the dead one's number holds nothing of it.
        again = holder_count(tmp_path / "limits")
        assert again == 0
    finally:
        started.stdout.close()
        closed(limiter)


def holder_count(path):
    limiter = SharedLimiter(path)
    got = asyncio.run(limiter.hold(Meter(b"p" * 16, 0, 10), 1))
    closed(limiter)
    return got


def test_a_worker_that_is_stopped_with_a_lock_does_not_stop_the_others(tmp_path):
    started = holder(tmp_path / "limits", "stopped")
    limiter = SharedLimiter(tmp_path / "limits")
    try:
        assert started.stdout.readline() == "locked\n"
        begun = time.monotonic()
        with pytest.raises(UnavailableError) as caught:
            asyncio.run(limiter.hold(Meter(b"p" * 16, 0, 10), 1))
        assert caught.value.code == "gate.limiter"
        assert time.monotonic() - begun < 1
    finally:
        started.kill()
        started.wait()
        started.stdout.close()
    assert asyncio.run(limiter.hold(Meter(b"p" * 16, 0, 10), 1)) == 1
    closed(limiter)


def test_who_waits_for_a_place_is_heard_by_those_who_hold_some(tmp_path):
    async def scene():
        one, other = (SharedLimiter(tmp_path / "limits") for _ in range(2))
        places = Meter(b"p" * 16, 0, 10)
        assert await one.hold(places, 10) == 10
        assert await one.tend() == frozenset()
        assert await other.hold(places, 1) == 0
        assert await one.tend() == {places.key}
        assert await one.tend() == frozenset()
        await one.close()
        await other.close()

    asyncio.run(scene())
