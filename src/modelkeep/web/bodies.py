"""A request's body as it arrives: small ones in the parts that come, large ones in their place.

A large body whose length is known is received where it is to lie, so that it is copied once, out
of TLS; for the others the parts are joined. Room is made in steps, each `GROWTH` times what has
come, and what has come is moved there: a sixteenth of a body is copied again, not all of it at its
end, which stopped every other call for milliseconds. Whoever only says that a large body follows
takes one small step, not all of it. All bodies under way in a gateway share one bound (`Bodies`).
"""

from __future__ import annotations

from modelkeep.adapters.heap import spare
from modelkeep.core.errors import UnavailableError

# From here on an arriving body gets its own room; below, joining what came is as fast.
LARGE_BYTES = 64 * 1024
# The first room of such a body, and how much more there is each time that it is full.
STEP_BYTES = 64 * 1024
GROWTH = 16
# What is received in one turn of the loop.
TURN_BYTES_MAX = 1024 * 1024


class Bodies:
    """How much memory all bodies under way have together, and may have.

    What came counts, and each large body's first step: the kernel gives no memory for room in which
    nothing was written yet. The bound is looked at after each piece, so it is passed by one piece
    of each body that comes in one turn of the loop, at most.
    """

    __slots__ = ("bytes_max", "held_bytes")

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.held_bytes = 0

    @property
    def is_full(self) -> bool:
        """Whether no body may grow."""
        return self.held_bytes > self.bytes_max

    def demand_room(self) -> None:
        """Refuse a body while there is no room.

        Raises:
            UnavailableError: `gate.bodies`.
        """
        if self.is_full:
            raise UnavailableError(
                "gate.bodies",
                "too many bytes of other calls are under way",
                hint="try again after a second",
                retry_after_s=1,
            )


class Body:
    """What has come of one body.

    Args:
        bodies: what it counts against; none in tests.
    """

    __slots__ = ("_bodies", "_held_bytes", "_joined", "_room", "size_bytes", "wanted_bytes")

    def __init__(self, bodies: Bodies | None = None) -> None:
        self._bodies = bodies
        self._held_bytes = 0
        self._joined: bytes | bytearray = b""
        self._room = bytearray()
        self.size_bytes = 0
        self.wanted_bytes = 0

    @property
    def missing_bytes(self) -> int:
        """What is yet to come of an expected body; 0 where none is expected."""
        return max(self.wanted_bytes - self.size_bytes, 0)

    def expect(self, size_bytes: int) -> None:
        """Make room for a large body of a known length."""
        self.wanted_bytes = size_bytes
        self._make_room()
        self._hold(len(self._room))

    def add(self, part: bytes) -> None:
        """Take the next part."""
        if not self.wanted_bytes:
            self._join(part)
            self.size_bytes += len(part)
            self._hold(len(part))
            return
        view = memoryview(part)
        while view:
            room = self.room()
            count = min(len(room), len(view))
            room[:count] = view[:count]
            self.came(count)
            view = view[count:]

    def _join(self, part: bytes) -> None:
        """Keep a part in one place with those before it.

        Kept apart, small ones cost 30 times as much as they hold.
        """
        if isinstance(self._joined, bytearray):
            self._joined += part
        else:
            self._joined = bytearray(self._joined) + part if self._joined else part

    def room(self) -> memoryview:
        """Where the next bytes of an expected body go; empty when it is whole."""
        return memoryview(self._room)[self.size_bytes : self.size_bytes + TURN_BYTES_MAX]

    def came(self, count: int) -> None:
        """Note that so many bytes were put into the room."""
        self.size_bytes += count
        self._hold(max(self.size_bytes - self._held_bytes, 0))
        if self.size_bytes == len(self._room) and self.missing_bytes:
            self._make_room()

    def clear(self) -> None:
        """Forget all that came; nothing more may be put into its room."""
        self._joined, self._room = b"", bytearray()
        self.release()
        self._bodies = None

    def release(self) -> None:
        """Count it as gone: its request is answered, or its client is; idempotent."""
        if self._bodies is not None:
            self._bodies.held_bytes -= self._held_bytes
        self._held_bytes = 0

    def _hold(self, count: int) -> None:
        self._held_bytes += count
        if self._bodies is not None:
            self._bodies.held_bytes += count

    def whole(self) -> bytes | bytearray:
        """All that came."""
        if not self.wanted_bytes:
            return self._joined
        return self._room[: self.size_bytes] if self.missing_bytes else self._room

    def _make_room(self) -> None:
        full = self._room
        room = spare(min(self.wanted_bytes, max(self.size_bytes * GROWTH, STEP_BYTES)))
        room[: len(full)] = full
        self._room = room
