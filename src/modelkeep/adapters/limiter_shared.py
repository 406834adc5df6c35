"""The limiter of one machine: a file that every gateway maps, no server.

Layout, little-endian:

    0     page of the header: magic, sets, ways, salt, crc; at 256 and 512 the two slots of the
          clock; at 1024 the incarnation of each of 64 workers, a random number
    4096  sets of 16 entries of 2,048 bytes; a meter's entry is in the set that its key says

    entry 0     state: 0 free, 1 being made or dropped, 2 in use
          8     key, window_ns, crc
          40    when somebody was last refused a place (places only)
          48    slot A: turn, head, 101 counts, crc
          896   slot B

An update writes the older slot, under the lock of its set; the newer valid slot counts. So whoever
is killed halfway has changed nothing, and was not yet told that it may use anything. Only a disk
can damage both slots, with the machine down: then the meter is closed for one window, and places
are free, as nobody lives who holds one. If the name of an entry is damaged, its set takes no new
meter for a day, as nobody knows whose use it counted.

A meter that counts nothing any more makes room for another one. When all 16 entries of a set count
something, a new meter of that set is refused.

The locks are the kernel's (open file descriptions, byte ranges past the file's end) and end with
their holder. So does the sign that a worker lives: the lock of its number. Places are counted per
worker and incarnation; those of the dead count as free when somebody needs them.

Time is CLOCK_BOOTTIME, the same for all processes, through suspension, whatever the wall clock
does. After a reboot it goes on where it stopped, plus what the wall clock says has passed since,
never less than nothing: a wall clock that was set back makes windows longer, one that was set
forward while the machine was down makes them end.

A power cut loses what was counted since the last sync (5 s).
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
import struct
import threading
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

from modelkeep.adapters.range_locks import RangeLocks
from modelkeep.core.errors import IntegrityError, UnavailableError
from modelkeep.gate.quota import RING, Ring, begins_ns, bucket_of
from modelkeep.ports.limiter import Change, Lease, Meter

SETS, WAYS = 512, 16  # 8,192 meters: 16 MiB, taken from the disk at once: a full one cannot fail us
WORKERS_MAX = 64
SYNC_NS = 5_000_000_000
CLOCK_NS = 1_000_000_000
LOST_NS = 86_400_000_000_000 * 51 // 50  # a day and two buckets of it
_MAGIC = b"mklimit0"
_HEADER = struct.Struct("<8sII16s")
_HEADER_AT, _CLOCK_AT, _INCARNATIONS_AT, _TABLE_AT = 0, 256, 1024, 4096
_CLOCK_SLOT = 256
_CLOCK = struct.Struct("<Q16sqqqq")  # turn, boot, boottime, offset, time, wall clock
_ENTRY = 2048
_NAME = struct.Struct("<16sQ")
_SLOT = struct.Struct(f"<QQ{RING}Q")
_U64, _U32 = struct.Struct("<Q"), struct.Struct("<I")
_NAME_AT, _WANTED_AT, _SLOTS_AT, _SLOT_BYTES = 8, 40, 48, 848
_FREE, _MAKING, _USED = 0, 1, 2
# Lock 0 is the clock's, then one per worker, then one per set.
_CLOCK_LOCK, _SETS_LOCK = 0, 1 + WORKERS_MAX
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class SharedLimiter:
    """Limits of all workers that map one file; its operations never suspend.

    Args:
        path: made if it is not there.
        boottime_ns: of the machine, for tests.
        wall_ns: asked only after a reboot.
        boot_id: 16 bytes that name the machine's present run; empty asks the machine.
    """

    def __init__(
        self,
        path: Path,
        *,
        boottime_ns: Callable[[], int] = lambda: time.clock_gettime_ns(time.CLOCK_BOOTTIME),
        wall_ns: Callable[[], int] = time.time_ns,
        boot_id: bytes = b"",
    ) -> None:
        self._boottime_ns = boottime_ns
        self._wall_ns = wall_ns
        self._boot_id = boot_id or _boot_id()
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._locks = RangeLocks(self._fd)
        try:
            self._locks.take(_CLOCK_LOCK, wait_s=5.0)
            self._map = self._mapped(path)
            self._offset_ns = self._begun_clock()
            self._locks.let_go(_CLOCK_LOCK)
            self._worker = self._registered()
        except BaseException:
            os.close(self._fd)
            raise
        self._held: set[bytes] = set()
        self._looked_ns = self._clock_ns = self._synced_ns = self.now_ns()
        self._syncing: threading.Thread | None = None

    # ---- the port -------------------------------------------------------------------------------

    def now_ns(self) -> int:
        return self._boottime_ns() + self._offset_ns

    async def lease(
        self, meter: Meter, *, least: int, wish: int, changes: Sequence[Change] = ()
    ) -> Lease:
        place = self._place(meter.key)
        self._locks.take(_SETS_LOCK + place)
        try:
            return self._leased(meter, place, least=least, wish=wish, changes=changes)
        finally:
            self._locks.let_go(_SETS_LOCK + place)

    async def hold(self, meter: Meter, change: int, *, spare: int = 0) -> int:
        place = self._place(meter.key)
        self._locks.take(_SETS_LOCK + place)
        try:
            return self._changed(meter, place, change, spare=spare)
        finally:
            self._locks.let_go(_SETS_LOCK + place)

    async def tend(self) -> frozenset[bytes]:
        now_ns = self.now_ns()
        if now_ns - self._clock_ns >= CLOCK_NS:
            self._clock_ns = now_ns
            self._locks.take(_CLOCK_LOCK)
            self._write_clock()
            self._locks.let_go(_CLOCK_LOCK)
        if now_ns - self._synced_ns >= SYNC_NS and self._worker == self._first_worker():
            self._synced_ns = now_ns
            self._sync()
        since_ns, self._looked_ns = self._looked_ns, now_ns
        wanted = set()
        for key in self._held:
            at = self._placed(key, self._place(key))
            if at >= 0 and _U64.unpack_from(self._map, at + _WANTED_AT)[0] >= since_ns:
                wanted.add(key)
        return frozenset(wanted)

    async def close(self) -> None:
        if self._fd < 0:
            return
        if self._syncing is not None:
            self._syncing.join()
        with contextlib.suppress(UnavailableError):
            self._locks.take(_CLOCK_LOCK)
            self._write_clock()
        with contextlib.suppress(OSError):
            os.fdatasync(self._fd)
        self._map.close()  # it has a descriptor of its own to the same locks
        os.close(self._fd)  # its locks go with it, and so its places
        self._fd = -1

    # ---- what the port promises, under the lock of a set ----------------------------------------

    def _leased(
        self, meter: Meter, place: int, *, least: int, wish: int, changes: Sequence[Change]
    ) -> Lease:
        window_ns, limit = meter.window_ns, meter.limit
        now_ns = self.now_ns()  # under the lock: nobody has seen a later bucket
        bucket = bucket_of(now_ns, window_ns)
        is_new = least > 0 or any(each.amount > 0 for each in changes)
        at = self._found(meter, place, now_ns, make=is_new)
        if at < 0:
            return Lease(0, bucket, now_ns)
        turn, ring = self._read(at, meter, bucket)
        bucket = ring.head
        for each in changes:
            if each.amount < 0:
                ring.give_back(each.bucket, -each.amount)
            else:
                ring.charge(each.amount)
        amount = ring.lend(least=least, wish=wish, limit=limit) if least else 0
        if amount or changes:
            self._write(at, turn, ring)
        if amount or not least:
            return Lease(amount, bucket, begins_ns(bucket + 1, window_ns))
        opens = ring.opens(least, limit)
        return Lease(0, bucket, now_ns, begins_ns(opens, window_ns) if opens >= 0 else -1)

    def _changed(self, meter: Meter, place: int, change: int, *, spare: int) -> int:
        at = self._found(meter, place, self.now_ns(), make=change > 0)
        if at < 0:
            return change  # its entry was dropped: nothing of it is held
        turn, ring = self._read(at, meter, 0)
        held = self._living(ring)
        mine = held.get(self._worker, 0)
        got = -min(mine, -change)
        if change > 0:
            got = _places(meter.limit - sum(held.values()), change, spare)
            if not got:
                self._reap(held)
                got = _places(meter.limit - sum(held.values()), change, spare)
            if not got:
                _U64.pack_into(self._map, at + _WANTED_AT, self.now_ns())
        held[self._worker] = mine + got
        ring.counts = [
            self._incarnation(each) << 32 | held[each] if held.get(each) else 0
            for each in range(RING)
        ]
        self._write(at, turn, ring)
        if held[self._worker]:
            self._held.add(meter.key)
        else:
            self._held.discard(meter.key)
        return got

    # ---- the file -------------------------------------------------------------------------------

    def _mapped(self, path: Path) -> mmap.mmap:
        """Make the file, or check that it is ours.

        Raises:
            IntegrityError: `limits.file`.
        """
        size = _TABLE_AT + SETS * WAYS * _ENTRY
        if os.fstat(self._fd).st_size == 0:
            header = _HEADER.pack(_MAGIC, SETS, WAYS, os.urandom(16))
            os.pwrite(self._fd, header + _U32.pack(zlib.crc32(header)), _HEADER_AT)
            _allocated(self._fd, size)
            os.fsync(self._fd)
        raw = os.pread(self._fd, _HEADER.size + 4, _HEADER_AT)
        header, crc = raw[: _HEADER.size], raw[_HEADER.size :]
        is_whole = len(crc) == 4 and _U32.unpack(crc)[0] == zlib.crc32(header)
        if (
            not is_whole
            or _HEADER.unpack(header)[:3] != (_MAGIC, SETS, WAYS)
            or os.fstat(self._fd).st_size < size
        ):
            raise IntegrityError(
                "limits.file",
                f"{path.name} does not count limits, or is damaged",
                hint=f"remove {path}: every limit begins anew",
            )
        self._salt = _HEADER.unpack(header)[3]
        return mmap.mmap(self._fd, size)

    def _begun_clock(self) -> int:
        """How far the limiter's time is ahead of this boot's."""
        found = self._clock()
        now_ns = self._boottime_ns()
        if found is None:
            offset_ns = 0
        else:
            _, boot_id, boottime_ns, offset_ns, last_ns, wall_ns = found
            if boot_id != self._boot_id or now_ns < boottime_ns:
                passed_ns = max(0, self._wall_ns() - wall_ns)
                offset_ns = last_ns + passed_ns - now_ns
        self._offset_ns = offset_ns
        self._write_clock()
        return offset_ns

    def _clock(self) -> tuple[int, bytes, int, int, int, int] | None:
        found = None
        for at in (_CLOCK_AT, _CLOCK_AT + _CLOCK_SLOT):
            raw = self._map[at : at + _CLOCK.size]
            if _U32.unpack_from(self._map, at + _CLOCK.size)[0] == zlib.crc32(raw) and any(raw):
                clock = _CLOCK.unpack(raw)
                if found is None or clock[0] > found[0]:
                    found = clock
        return found

    def _write_clock(self) -> None:
        found = self._clock()
        turn = found[0] + 1 if found is not None else 1
        now_ns = self._boottime_ns()
        raw = _CLOCK.pack(
            turn, self._boot_id, now_ns, self._offset_ns, now_ns + self._offset_ns, self._wall_ns()
        )
        at = _CLOCK_AT + turn % 2 * _CLOCK_SLOT
        self._map[at : at + len(raw) + 4] = raw + _U32.pack(zlib.crc32(raw))

    def _sync(self) -> None:
        """Write what changed to the disk, beside the loop."""
        if self._syncing is None or not self._syncing.is_alive():
            self._syncing = threading.Thread(target=os.fdatasync, args=(self._fd,), daemon=True)
            self._syncing.start()

    # ---- workers --------------------------------------------------------------------------------

    def _registered(self) -> int:
        """Take a number that no living worker has.

        Raises:
            UnavailableError: `gate.limiter`.
        """
        for number in range(WORKERS_MAX):
            if self._locks.is_taken_now(1 + number):
                at = _INCARNATIONS_AT + 8 * number
                drawn = int.from_bytes(os.urandom(4), "little") | 1
                _U64.pack_into(self._map, at, drawn)
                return number
        raise UnavailableError(
            "gate.limiter", f"more than {WORKERS_MAX} gateways count limits on this machine"
        )

    def _incarnation(self, worker: int) -> int:
        return int(_U64.unpack_from(self._map, _INCARNATIONS_AT + 8 * worker)[0])

    def _living(self, ring: Ring) -> dict[int, int]:
        """Places by worker, without those of earlier lives."""
        held = {}
        for worker, count in enumerate(ring.counts[:WORKERS_MAX]):
            if count and count >> 32 == self._incarnation(worker):
                held[worker] = count & 0xFFFFFFFF
        return held

    def _reap(self, held: dict[int, int]) -> None:
        """Take away what dead workers hold."""
        for worker in [each for each in held if each != self._worker]:
            if not self._is_alive(worker):
                del held[worker]

    def _is_alive(self, worker: int) -> bool:
        return self._locks.is_held_elsewhere(1 + worker)

    def _first_worker(self) -> int:
        for worker in range(self._worker):
            if self._is_alive(worker):
                return worker
        return self._worker

    # ---- entries --------------------------------------------------------------------------------

    def _found(self, meter: Meter, place: int, now_ns: int, *, make: bool) -> int:
        """Where the entry of a meter is; -1 where there is none and none is to be made.

        Raises:
            UnavailableError: `gate.limiter`, when there is no room for another meter.
        """
        at = self._placed(meter.key, place)
        if at >= 0 or not make:
            return at
        first = _TABLE_AT + place * WAYS * _ENTRY
        entries = range(first, first + WAYS * _ENTRY, _ENTRY)
        for at in entries:
            if self._map[at] == _USED and self._name(at) is None:
                self._demand_past(at, now_ns)
        for at in entries:
            if self._map[at] != _USED or self._is_empty(at, now_ns):
                self._make(at, meter, now_ns)
                return at
        raise UnavailableError(
            "gate.limiter",
            "more callers than limits can be counted for",
            hint="try again later; `each` of [[limits]] says what is counted apart",
        )

    def _placed(self, key: bytes, place: int) -> int:
        first = _TABLE_AT + place * WAYS * _ENTRY
        for at in range(first, first + WAYS * _ENTRY, _ENTRY):
            name = at + _NAME_AT
            if self._map[at] == _USED and self._map[name : name + 16] == key and self._name(at):
                return at
        return -1

    def _name(self, at: int) -> tuple[bytes, int] | None:
        """Whose entry this is and its window; None where that is damaged."""
        name = at + _NAME_AT
        raw = self._map[name : name + _NAME.size]
        if _U32.unpack_from(self._map, name + _NAME.size)[0] != zlib.crc32(raw):
            return None
        key, window_ns = _NAME.unpack(raw)
        return key, window_ns

    def _demand_past(self, at: int, now_ns: int) -> None:
        """Free an entry that lost its name a day ago; before, nobody knows whose use it counted.

        Raises:
            UnavailableError: `gate.limiter`.
        """
        until_ns = _U64.unpack_from(self._map, at + _WANTED_AT)[0]
        if 0 < until_ns <= now_ns:
            self._map[at] = _FREE
            return
        if not 0 < until_ns <= now_ns + LOST_NS:
            _U64.pack_into(self._map, at + _WANTED_AT, now_ns + LOST_NS)
        raise UnavailableError(
            "gate.limiter",
            "a part of what callers used up is damaged, and closed for a day",
            hint="or stop the service and remove the file of limits in run/: all begin anew",
        )

    def _is_empty(self, at: int, now_ns: int) -> bool:
        name = self._name(at)
        if name is None:
            return False
        key, window_ns = name
        bucket = bucket_of(now_ns, window_ns) if window_ns else 0
        ring = self._read(at, Meter(key, window_ns, 1), bucket)[1]
        if window_ns:
            return not ring.total
        held = self._living(ring)
        self._reap(held)
        return not any(held.values())

    def _make(self, at: int, meter: Meter, now_ns: int) -> None:
        self._map[at] = _MAKING
        head = bucket_of(now_ns, meter.window_ns) if meter.window_ns else 0
        name = _NAME.pack(meter.key, meter.window_ns)
        body = name + _U32.pack(zlib.crc32(name))
        self._map[at + _NAME_AT : at + _NAME_AT + len(body)] = body
        _U64.pack_into(self._map, at + _WANTED_AT, 0)
        slot = _SLOT.pack(1, head, *[0] * RING)
        both = slot + _U32.pack(zlib.crc32(slot))
        for start in (at + _SLOTS_AT, at + _SLOTS_AT + _SLOT_BYTES):
            self._map[start : start + len(both)] = both
        self._map[at] = _USED

    def _read(self, at: int, meter: Meter, bucket: int) -> tuple[int, Ring]:
        """The newest whole slot's turn and counts as of a bucket; closed if there is none."""
        one, other = at + _SLOTS_AT, at + _SLOTS_AT + _SLOT_BYTES
        if _U64.unpack_from(self._map, one)[0] < _U64.unpack_from(self._map, other)[0]:
            one, other = other, one
        for start in (one, other):
            raw = self._map[start : start + _SLOT.size]
            if _U32.unpack_from(self._map, start + _SLOT.size)[0] == zlib.crc32(raw):
                turn, head, *counts = _SLOT.unpack(raw)
                ring = Ring(head, counts)
                if meter.window_ns:
                    ring.roll(bucket)
                return turn, ring
        ring = Ring(bucket)
        if meter.window_ns:
            ring.fill(meter.limit)
        self._write(at, 1, ring)
        self._write(at, 2, ring)
        return 3, ring

    def _write(self, at: int, turn: int, ring: Ring) -> None:
        turn += 1
        start = at + _SLOTS_AT + turn % 2 * _SLOT_BYTES
        raw = _SLOT.pack(turn, ring.head, *ring.counts)
        self._map[start : start + _SLOT.size + 4] = raw + _U32.pack(zlib.crc32(raw))

    def _place(self, key: bytes) -> int:
        """The number of a key's set; a salt keeps it from being chosen."""
        digest = hashlib.blake2b(key, digest_size=4, key=self._salt).digest()
        return int.from_bytes(digest, "little") % SETS


def _allocated(fd: int, size: int) -> None:
    """Take the whole file from the disk: a write to a mapped hole of a full disk is a SIGBUS.

    Raises:
        UnavailableError: `gate.limiter`.
    """
    try:
        os.posix_fallocate(fd, 0, size)
    except OSError as error:
        os.ftruncate(fd, 0)
        raise UnavailableError(
            "gate.limiter",
            f"no room for the file of limits ({size} bytes): {error.strerror}",
            hint="free some of the disk that the run folder is on",
        ) from error


def _places(free: int, least: int, spare: int) -> int:
    """How many of the free places somebody gets who needs `least`."""
    if free < least:
        return 0
    return least + min(spare, (free - least) // 8)


def _boot_id() -> bytes:
    try:
        return bytes.fromhex(_BOOT_ID.read_text().strip().replace("-", ""))
    except (OSError, ValueError):
        return bytes(16)
