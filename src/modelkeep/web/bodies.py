"""A request's body as it arrives: small ones in the parts that come, large ones in their place.

A large body whose length is known is received where it is to lie, so that it is copied once, out
of TLS; for the others the parts are joined. Room is made a step at a time, each as large as what
has come: whoever only says that a large body follows takes one small step, not all of it. All
bodies under way in a gateway share one bound (`Bodies`).
"""

from __future__ import annotations

from modelkeep.core.errors import UnavailableError

# From here on an arriving body gets its own room; below, joining what came is as fast.
LARGE_BYTES = 64 * 1024
# The first room of such a body, and the largest that is made at once.
STEP_BYTES = 64 * 1024
STEP_BYTES_MAX = 1024 * 1024


class Bodies:
    """How much memory all bodies under way have together, and may have.

    The bound is looked at after each growth, so it is passed by one step of each body that grows
    in one turn of the loop, at most.
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

    __slots__ = ("_bodies", "_held_bytes", "_parts", "_room", "_used", "size_bytes", "wanted_bytes")

    def __init__(self, bodies: Bodies | None = None) -> None:
        self._bodies = bodies
        self._held_bytes = 0
        self._parts: list[bytes | bytearray] = []
        self._room = bytearray()
        self._used = 0
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
        if not self._parts:
            self._parts.append(part)
        elif isinstance(joined := self._parts[0], bytearray):
            joined += part
        else:
            self._parts[0] = bytearray(joined) + part

    def room(self) -> memoryview:
        """Where the next bytes of an expected body go; empty when it is whole."""
        return memoryview(self._room)[self._used :]

    def came(self, count: int) -> None:
        """Note that so many bytes were put into the room."""
        self._used += count
        self.size_bytes += count
        if self._used == len(self._room):
            self._parts.append(self._room)
            self._make_room()

    def clear(self) -> None:
        """Forget all that came; what still comes is counted only."""
        self._parts.clear()
        self._room, self._used = bytearray(), 0
        self.release()

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
        return self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)

    def _make_room(self) -> None:
        step = min(max(self.size_bytes, STEP_BYTES), STEP_BYTES_MAX)
        self._room = bytearray(min(self.missing_bytes, step))
        self._used = 0
        self._hold(len(self._room))
