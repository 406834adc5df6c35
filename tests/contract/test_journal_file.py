"""JournalFile keeps the Journal's promises: on a real disk, through power cuts, under damage."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path

import pytest
from small_disk import SmallDisk

from modelkeep.adapters.disk import RealDisk
from modelkeep.adapters.journal_file import JournalFile
from modelkeep.core.errors import IntegrityError, UnavailableError, UsageError
from modelkeep.kernels.frames import FRAME_BYTES_MAX, HEADER_BYTES, MARK, MARK_BYTES
from modelkeep.testing.journal_contract import JournalContract, frames_from
from modelkeep.testing.power import Fuse, PowerCut, SimulatedDisk

FOLDER = Path("/journal")


class TestOnARealDisk(JournalContract):
    @pytest.fixture
    def opened(self, tmp_path):
        return lambda writable: JournalFile(
            RealDisk(), tmp_path / "journal", segment_bytes_max=500, writable=writable
        )


class TestOnASimulatedDisk(JournalContract):
    @pytest.fixture
    def opened(self):
        disk = SimulatedDisk()
        return lambda writable: JournalFile(disk, FOLDER, segment_bytes_max=500, writable=writable)


def journal_on(disk, *, writable=True, segment_bytes_max=500):
    return JournalFile(disk, FOLDER, segment_bytes_max=segment_bytes_max, writable=writable)


GROUPS = [[b"%d.%d" % (group, at) * 12 for at in range(group % 4 + 1)] for group in range(12)]


def test_every_power_cut_leaves_what_was_acknowledged():
    def worked(disk):
        """Append all groups; how many frames were acknowledged before the power failed."""
        acknowledged = 0
        with contextlib.suppress(PowerCut):
            journal = journal_on(disk)
            for group in GROUPS:
                journal.append(group)
                acknowledged += len(group)
        return acknowledged

    whole = SimulatedDisk()
    everything = [frame for group in GROUPS for frame in group]
    assert worked(whole) == len(everything)
    for at in range(whole.fuse.count):
        disk = SimulatedDisk(Fuse(at))
        acknowledged = worked(disk)
        left = disk.after_power_cut()
        seen = [frame for _, frame in frames_from(journal_on(left, writable=False))]
        assert seen == everything[: len(seen)]
        again = journal_on(left)
        kept = [frame for _, frame in frames_from(again)]
        assert kept == everything[: len(kept)]
        assert len(kept) >= acknowledged
        assert again.append([b"more"]) == len(kept)


def test_every_power_cut_while_dropping_leaves_what_must_stay():
    full = SimulatedDisk()
    for group in GROUPS:
        journal_on(full).append(group)
    for at in range(20):
        disk = full.after_power_cut(Fuse(at))
        with contextlib.suppress(PowerCut):
            journal_on(disk).drop_before(20)
        left = journal_on(disk.after_power_cut())
        assert [at for at, _ in frames_from(left, 20)] == list(range(20, left.next_position()))
        assert left.next_position() == sum(map(len, GROUPS))


def test_a_reader_never_sees_a_frame_that_a_power_cut_can_take_back():
    whole = SimulatedDisk()
    for group in GROUPS:
        journal_on(whole).append(group)
    for at in range(whole.fuse.count):
        disk = SimulatedDisk(Fuse(at))
        with contextlib.suppress(PowerCut):
            journal = journal_on(disk)
            for group in GROUPS:
                journal.append(group)
        seen = frames_from(journal_on(disk, writable=False))
        kept = frames_from(journal_on(disk.after_power_cut()))
        assert kept[: len(seen)] == seen


def segments(folder):
    return sorted(folder.glob("*.journal"))


def test_a_tail_torn_at_any_byte_is_cut_off(tmp_path):
    journal = JournalFile(RealDisk(), tmp_path, writable=True)
    journal.append([b"first", b"second"])
    [path] = segments(tmp_path)
    before = path.stat().st_size
    journal.append([b"third", b"fourth"])
    raw = path.read_bytes()
    for size in range(before, len(raw) - MARK_BYTES + 1):
        path.write_bytes(raw[:size])
        assert len(frames_from(JournalFile(RealDisk(), tmp_path, writable=False))) == 2
        again = JournalFile(RealDisk(), tmp_path, writable=True)
        kept = [frame for _, frame in frames_from(again)]
        assert kept == [b"first", b"second", b"third", b"fourth"][: len(kept)]
        assert again.append([b"fifth"]) == len(kept)
        assert frames_from(again)[-1] == (len(kept), b"fifth")


def test_a_tail_of_lost_pages_is_cut_off(tmp_path):
    # A file system may have kept the second half of an append that was never synced.
    journal = JournalFile(RealDisk(), tmp_path, writable=True)
    journal.append([b"first"])
    [path] = segments(tmp_path)
    before = path.stat().st_size
    journal.append([b"second" * 10, b"third" * 10])
    raw = bytearray(path.read_bytes()[:-MARK_BYTES])
    raw[before : before + 40] = bytes(40)
    path.write_bytes(raw)
    again = JournalFile(RealDisk(), tmp_path, writable=True)
    assert frames_from(again) == [(0, b"first")]


def test_any_flipped_bit_in_what_was_durable_is_damage(tmp_path):
    journal = JournalFile(RealDisk(), tmp_path, segment_bytes_max=200, writable=True)
    for number in range(6):
        journal.append([b"%d" % number * 30])
    journal.close()
    everything = frames_from(journal)
    for path in segments(tmp_path):
        raw = path.read_bytes()
        is_last = path == segments(tmp_path)[-1]
        for bit in range(0, len(raw) * 8, 11):
            flipped = bytearray(raw)
            flipped[bit // 8] ^= 1 << bit % 8
            path.write_bytes(flipped)
            is_last_mark = is_last and bit // 8 >= len(raw) - MARK_BYTES
            reader = JournalFile(RealDisk(), tmp_path, segment_bytes_max=200, writable=False)
            if is_last_mark:  # its frames are no longer known for durable; a writer keeps them
                assert frames_from(reader) == everything[: len(frames_from(reader))]
                again = JournalFile(RealDisk(), tmp_path, segment_bytes_max=200, writable=True)
                assert frames_from(again) == everything
            else:
                with pytest.raises(IntegrityError, match=r"journal\.damaged"):
                    frames_from(reader)
            path.write_bytes(raw)


def test_a_moved_or_missing_segment_is_damage(tmp_path):
    journal = JournalFile(RealDisk(), tmp_path, segment_bytes_max=100, writable=True)
    for number in range(6):
        journal.append([b"%d" % number * 50])
    paths = segments(tmp_path)
    assert len(paths) >= 4
    raw = paths[1].read_bytes()
    paths[1].unlink()
    with pytest.raises(IntegrityError, match=r"journal\.damaged"):
        frames_from(JournalFile(RealDisk(), tmp_path, writable=False))
    paths[1].write_bytes(paths[2].read_bytes())
    with pytest.raises(IntegrityError, match=r"journal\.damaged"):
        frames_from(JournalFile(RealDisk(), tmp_path, writable=False))
    paths[1].write_bytes(raw)
    assert len(frames_from(JournalFile(RealDisk(), tmp_path, writable=False))) == 6


def test_a_writer_refuses_to_open_over_damage(tmp_path):
    journal = JournalFile(RealDisk(), tmp_path, writable=True)
    journal.append([b"first"])
    journal.append([b"second"])
    [path] = segments(tmp_path)
    raw = bytearray(path.read_bytes())
    raw[HEADER_BYTES + 30] ^= 1
    path.write_bytes(raw)
    with pytest.raises(IntegrityError, match=r"journal\.damaged"):
        JournalFile(RealDisk(), tmp_path, writable=True)
    assert path.read_bytes() == raw  # evidence stays


def test_a_second_writer_is_noticed(tmp_path):
    first = JournalFile(RealDisk(), tmp_path, writable=True)
    first.append([b"a"])
    second = JournalFile(RealDisk(), tmp_path, writable=True)
    second.append([b"b"])
    with pytest.raises(IntegrityError, match=r"journal\.foreign"):
        first.append([b"c"])
    assert frames_from(second) == [(0, b"a"), (1, b"b")]


def test_a_frame_may_look_like_a_mark(tmp_path):
    journal = JournalFile(RealDisk(), tmp_path, writable=True)
    journal.append([MARK + bytes(24), MARK])
    journal.append([MARK * 9])
    assert len(frames_from(JournalFile(RealDisk(), tmp_path, writable=False))) == 3


def test_frames_of_the_greatest_size_pass_and_no_greater(tmp_path):
    journal = JournalFile(RealDisk(), tmp_path, writable=True)
    journal.append([b"a" * FRAME_BYTES_MAX, b"b", b"c" * FRAME_BYTES_MAX])
    with pytest.raises(UsageError, match=r"journal\.frame_size"):
        journal.append([b"a" * (FRAME_BYTES_MAX + 1)])
    sizes = [len(f) for _, f in frames_from(JournalFile(RealDisk(), tmp_path, writable=False))]
    assert sizes == [FRAME_BYTES_MAX, 1, FRAME_BYTES_MAX]


class FailingDisk(SimulatedDisk):
    """Fails the operation named in `fails`, after having done half of it."""

    fails = ""

    def append(self, path, raw):
        half = self.fails == "append" or (self.fails == "mark" and bytes(raw).startswith(MARK))
        super().append(path, bytes(raw)[: len(raw) // 2] if half else raw)
        if half:
            raise OSError(28, "No space left on device")

    def sync(self, path):
        if self.fails == "sync":
            raise OSError(5, "Input/output error")
        super().sync(path)

    def truncate(self, path, size_bytes):
        if self.fails == "truncate":
            raise OSError(5, "Input/output error")
        super().truncate(path, size_bytes)


@pytest.mark.parametrize(("fails", "code"), [("append", "ledger.full"), ("sync", "journal.write")])
def test_a_failed_append_leaves_no_gap(fails, code):
    disk = FailingDisk()
    journal = journal_on(disk, segment_bytes_max=10_000)
    journal.append([b"first"])
    disk.fails = fails
    for _ in range(3):
        with pytest.raises(UnavailableError) as failed:
            journal.append([b"lost", b"too"])
        assert failed.value.code == code
    assert frames_from(journal) == [(0, b"first")]
    assert frames_from(journal_on(disk, writable=False)) == [(0, b"first")]
    disk.fails = ""
    assert journal.append([b"second"]) == 1
    kept = frames_from(journal_on(disk.after_power_cut()))
    assert kept == [(0, b"first"), (1, b"second")]


def test_a_mark_that_cannot_be_written_takes_nothing_back():
    disk = FailingDisk()
    journal = journal_on(disk, segment_bytes_max=10_000)
    disk.fails = "mark"
    assert journal.append([b"first"]) == 0
    assert frames_from(journal) == [(0, b"first")]
    disk.fails = ""
    assert journal.append([b"second"]) == 1
    assert len(frames_from(journal_on(disk, writable=False))) == 2


def test_a_new_segment_that_cannot_be_made_is_made_next_time():
    disk = FailingDisk()
    journal = journal_on(disk, segment_bytes_max=60)
    journal.append([b"a" * 60])
    disk.fails = "sync"
    with pytest.raises(UnavailableError):
        journal.append([b"b"])
    disk.fails = ""
    assert journal.append([b"b"]) == 1
    assert frames_from(journal_on(disk.after_power_cut())) == [(0, b"a" * 60), (1, b"b")]


def test_reading_while_another_thread_appends_gives_whole_frames_in_order(tmp_path):
    writer = JournalFile(RealDisk(), tmp_path, segment_bytes_max=20_000, writable=True)

    def write():
        for number in range(300):
            writer.append([b"%d" % number * 20] * 3)

    thread = threading.Thread(target=write)
    thread.start()
    reader = JournalFile(RealDisk(), tmp_path, segment_bytes_max=20_000, writable=False)
    at = 0
    while at < 900:
        for position, frame in reader.read(at):
            assert position == at
            assert frame == b"%d" % (at // 3) * 20
            at += 1
    thread.join()
    assert [at for at, _ in frames_from(writer)] == list(range(900))


def test_a_segment_ends_after_so_many_frames(tmp_path):
    journal = JournalFile(RealDisk(), tmp_path, segment_frames_max=100, writable=True)
    for _ in range(25):
        journal.append([b"x"] * 10)
    assert [int(path.stem) for path in segments(tmp_path)] == [0, 100, 200]
    assert len(frames_from(JournalFile(RealDisk(), tmp_path, writable=False))) == 250


class CountingDisk(RealDisk):
    """Knows how much was read."""

    read_bytes = 0

    def read(self, path, start=0, length=None):
        raw = super().read(path, start, length)
        self.read_bytes += len(raw)
        return raw


def test_a_reader_of_the_last_frames_does_not_read_the_segment(tmp_path):
    writer = JournalFile(RealDisk(), tmp_path, writable=True)
    for number in range(400):
        writer.append([b"%d" % number * 50] * 100)
    [path] = segments(tmp_path)
    assert path.stat().st_size > 5_000_000
    disk = CountingDisk()
    reader = JournalFile(disk, tmp_path, writable=False)
    assert reader.next_position() == 40_000
    expected = [(39_900 + at, b"399" * 50) for at in range(10, 100)]
    assert frames_from(reader, 39_910) == expected
    assert disk.read_bytes < 1_000_000
    assert [at for at, _ in frames_from(reader)] == list(range(40_000))


# ---- a full disk --------------------------------------------------------------------------------

CONTROL, CALLS = Path("/control"), Path("/calls")
RESERVE_BYTES = 2_000


def control_on(disk):
    return JournalFile(
        disk, CONTROL, segment_bytes_max=1_000, reserve_bytes=RESERVE_BYTES, writable=True
    )


def calls_on(disk):
    return JournalFile(disk, CALLS, refused_by=CONTROL / "full", writable=True)


def appended_until_full(journal, frame):
    """How many frames the journal takes until the disk is full."""
    for count in range(1_000):
        try:
            journal.append([frame])
        except UnavailableError as error:
            return count if error.code == "ledger.full" else -1
    raise AssertionError("it is never full")


def test_a_full_disk_refuses_calls_and_takes_control_entries():
    disk = SmallDisk(20_000)
    control, calls = control_on(disk), calls_on(disk)
    control.append([b"first"])
    taken = appended_until_full(calls, b"call" * 20)
    assert taken > 50
    assert not control.is_out_of_room()
    for number in range(10):  # more than fits without the reserve
        control.append([b"control %d" % number * 4])
    assert control.is_out_of_room()
    assert disk.free_bytes > 500
    assert appended_until_full(calls, b"x") == 0  # what is left is not for calls
    assert appended_until_full(calls_on(disk), b"x") == 0
    assert not control.restore_room()
    assert control.is_out_of_room()
    assert appended_until_full(control, b"c" * 20) > 3
    disk.capacity_bytes += 2 * RESERVE_BYTES + 200
    assert control.restore_room()
    assert not control.is_out_of_room()
    assert calls.append([b"again"]) == taken
    assert disk.size(CONTROL / "reserve") == RESERVE_BYTES
    assert len(frames_from(calls_on(disk.after_power_cut()))) == taken + 1


def full_story(disk):
    """Fill a disk, use up the reserve's room, make room, go on; what was acknowledged."""
    done = {CONTROL: [], CALLS: []}

    def append(journal, folder, frame):
        journal.append([frame])
        done[folder].append(frame)

    with contextlib.suppress(PowerCut):
        control, calls = control_on(disk), calls_on(disk)
        append(control, CONTROL, b"first")
        with contextlib.suppress(UnavailableError):
            for number in range(1_000):
                append(calls, CALLS, b"call %d" % number * 40)
        for number in range(8):
            append(control, CONTROL, b"control %d" % number * 8)
        disk.capacity_bytes += 10_000
        assert control.restore_room()
        append(calls, CALLS, b"after")
        append(control, CONTROL, b"last")
    return done


def test_a_power_cut_around_a_full_disk_loses_nothing():
    capacity = 8_000
    whole = SmallDisk(capacity)
    assert len(full_story(whole)[CONTROL]) == 10
    assert whole.fuse.count > 100
    for at in range(whole.fuse.count):
        disk = SmallDisk(capacity, Fuse(at))
        done = full_story(disk)
        left = disk.after_power_cut()
        left.capacity_bytes = disk.capacity_bytes
        for folder, opened in ((CONTROL, control_on), (CALLS, calls_on)):
            if left.walk(folder) and any(path.suffix for path, _ in left.walk(folder)):
                kept = [frame for _, frame in frames_from(opened(left))]
                assert kept[: len(done[folder])] == done[folder]
        left.capacity_bytes += 10_000
        control, calls = control_on(left), calls_on(left)
        assert control.restore_room()
        assert left.size(CONTROL / "reserve") == RESERVE_BYTES
        control.append([b"more"])
        calls.append([b"more"])
