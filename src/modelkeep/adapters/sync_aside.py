"""Makes files durable beside an event loop: ask with a descriptor, be called back when it is done.

A thread of Python that syncs has to take the interpreter back from the loop twice for each batch,
and makes it wait each time: at eight connections that was a third of a call. So the thread goes
into C once (`kernels/native/sync.c`) and stays there; the two speak through eventfds. Without the
library the same loop runs in Python.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable

import numpy as np

from modelkeep.kernels.native import LIBRARY, address

_STOP = -1


class SyncAside:
    """One file at a time is synced, for one event loop.

    Args:
        done: is called in the loop with 0, or with the number of the error (`errno`).
    """

    def __init__(self, done: Callable[[int], None]) -> None:
        self._done = done
        self._cell = np.zeros(2, np.int32)  # the descriptor, and how it went
        self._asked = os.eventfd(0, os.EFD_CLOEXEC)
        self._finished = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._finished, self._take)
        self._thread = threading.Thread(target=self._serve, name="sync", daemon=True)
        self._thread.start()

    def sync(self, descriptor: int) -> None:
        """Begin; nothing else may be asked for before `done` was called."""
        self._cell[0] = descriptor
        os.eventfd_write(self._asked, 1)

    def close(self) -> None:
        """End the thread; nothing may be under way."""
        self._cell[0] = _STOP
        os.eventfd_write(self._asked, 1)
        self._thread.join()
        self._loop.remove_reader(self._finished)
        for each in (self._asked, self._finished):
            os.close(each)

    def _take(self) -> None:
        os.eventfd_read(self._finished)
        self._done(int(self._cell[1]))

    def _serve(self) -> None:
        if LIBRARY is not None:
            LIBRARY.mk_sync_serve(self._asked, self._finished, address(self._cell))
            return
        while os.eventfd_read(self._asked) and self._cell[0] != _STOP:
            try:
                os.fdatasync(int(self._cell[0]))
            except OSError as error:
                self._cell[1] = error.errno or 1
            else:
                self._cell[1] = 0
            os.eventfd_write(self._finished, 1)
