"""Room on a disk that is kept for the day it is full: a file of zeros that is given up at once.

    reserve     holds the room
    full        empty; says that it was given up: nothing but control entries may be written

Order of giving up: reserve is renamed to full (which needs no room) -> full is cut to nothing.
Order of coming back: twice the room is taken under another name -> half of it is let go -> reserve
-> full away. So "full" ends only when there is room for the others again, and does not flap. A
crash between any two steps leaves one of the states above, or a leftover that the next try removes.

A file system that compresses zeros or shares blocks keeps no room this way.
"""

from __future__ import annotations

from pathlib import Path

from modelkeep.adapters.disk import Disk

FULL_NAME = "full"

_NAME = "reserve"
_FRESH_NAME = "reserve.new"


class Reserve:
    """The reserve in one folder; errors are OSError, except where a method says otherwise."""

    def __init__(self, disk: Disk, folder: Path, *, size_bytes: int) -> None:
        self._disk = disk
        self._folder = folder
        self._size_bytes = size_bytes

    def is_given_up(self) -> bool:
        """Whether the disk was full and has not had room again since."""
        return self._disk.size(self._folder / FULL_NAME) is not None

    def give_up(self) -> bool:
        """Let go of the room; whether there was any. From now on it counts as given up."""
        held, full = self._folder / _NAME, self._folder / FULL_NAME
        if self._disk.size(held) is not None:
            self._disk.rename(held, full)
        elif self._disk.size(full) is None:
            self._disk.create(full, b"")
        if not self._disk.size(full):
            return False
        self._disk.truncate(full, 0)
        self._disk.sync(full)  # file systems free blocks for others when that is durable
        self._disk.sync_folder(self._folder)
        return True

    def restore(self) -> bool:
        """Take the room if it is not held; whether it is held now. A full disk is no error."""
        held, fresh = self._folder / _NAME, self._folder / _FRESH_NAME
        try:
            self._disk.unlink(fresh)  # of an earlier try that was cut off
            if self._disk.size(held) != self._size_bytes:
                self._disk.create(fresh, bytes(2 * self._size_bytes))
                self._disk.sync(fresh)
                self._disk.truncate(fresh, self._size_bytes)
                self._disk.sync(fresh)
                self._disk.rename(fresh, held)
            self._disk.unlink(self._folder / FULL_NAME)
            self._disk.sync_folder(self._folder)
        except OSError:
            self._disk.unlink(fresh)
            return False
        return True
