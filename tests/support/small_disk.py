"""A simulated disk that is full at some point."""

from __future__ import annotations

import errno

from modelkeep.testing.power import SimulatedDisk


class SmallDisk(SimulatedDisk):
    """Holds so many bytes; a write that does not fit is cut off half-way, as a real one is."""

    def __init__(self, capacity_bytes, fuse=None):
        super().__init__(fuse)
        self.capacity_bytes = capacity_bytes

    @property
    def free_bytes(self):
        return self.capacity_bytes - sum(len(file.seen) for file in self._seen.values())

    def create(self, path, raw):
        room = max(self.free_bytes, 0)
        super().create(path, bytes(raw)[:room])
        self._demand(len(raw) <= room)

    def append(self, path, raw):
        room = max(self.free_bytes, 0)
        super().append(path, bytes(raw)[:room])
        self._demand(len(raw) <= room)

    def after_power_cut(self, fuse=None):
        left = super().after_power_cut(fuse)
        small = SmallDisk(self.capacity_bytes, fuse)
        small._seen, small._durable = left._seen, left._durable
        return small

    @staticmethod
    def _demand(fits):
        if not fits:
            raise OSError(errno.ENOSPC, "No space left on device")
