"""When one connection is read: a stretch at a time, and not while it has sent too much ahead.

A client that sends as fast as it can would keep the event loop to itself: what the kernel has is
handed over until it has no more. After each stretch the others have their turn; what is only
thrown away waits longer, so that the rest of a refused body costs little.
"""

from __future__ import annotations

import asyncio

# What is read at a stretch, and how long nothing is read after one that is thrown away: 25 MiB/s.
STRETCH_BYTES = 256 * 1024
DISCARD_PAUSE_S = 0.01


class Reading:
    """Pauses and resumes a transport, for two reasons that do not know of each other."""

    __slots__ = ("_came_bytes", "_is_held", "_is_resting", "_loop", "_transport")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._came_bytes = 0
        self._is_held = False
        self._is_resting = False

    def begin(self, transport: asyncio.Transport) -> None:
        """Read from here."""
        self._transport = transport

    def end(self) -> None:
        """The transport is gone."""
        self._transport = None

    def came(self, count: int, *, discarding: bool) -> None:
        """Note what was read; rest after a stretch."""
        self._came_bytes += count
        if self._came_bytes < STRETCH_BYTES or self._is_resting:
            return
        self._came_bytes = 0
        self._pause()
        self._is_resting = True
        if discarding:
            self._loop.call_later(DISCARD_PAUSE_S, self._rested)
        else:
            self._loop.call_soon(self._rested)

    def hold(self) -> None:
        """Read no more until `release`."""
        self._pause()
        self._is_held = True

    def release(self) -> None:
        """Read on, if it was held."""
        if self._is_held:
            self._is_held = False
            self._resume()

    def _rested(self) -> None:
        self._is_resting = False
        self._resume()

    def _pause(self) -> None:
        if not (self._is_held or self._is_resting) and self._is_open():
            assert self._transport is not None
            self._transport.pause_reading()

    def _resume(self) -> None:
        if not (self._is_held or self._is_resting) and self._is_open():
            assert self._transport is not None
            self._transport.resume_reading()

    def _is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()
