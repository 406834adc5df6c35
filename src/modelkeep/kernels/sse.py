"""Server-sent events: cutting a stream of bytes into the data of its events, within bounds.

As the HTML standard has it (section 9.2.6): lines end in LF, CR or CRLF; a blank line ends an
event; `data` lines of one event are joined by LF; comments and other fields are skipped; what no
blank line ended is dropped. Deliberately absent: names, ids and reconnection, which no language
model's stream needs. However a stream is cut into parts, its events are the same, and the time for
it grows with its bytes alone.
"""

from __future__ import annotations

from collections.abc import Iterator

from modelkeep.core.errors import IntegrityError

# One event of a stream of text is under a kilobyte; a vector of 4,096 numbers is 90 kB.
EVENT_BYTES_MAX = 1024 * 1024
_MARK = b"\xef\xbb\xbf"


class EventReader:
    """Takes bytes as they come, gives the data of each event that is complete."""

    __slots__ = ("_after_cr", "_bytes_max", "_data", "_is_first", "_line", "_size_bytes")

    def __init__(self, bytes_max: int = EVENT_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._line = bytearray()  # that is not complete
        self._data: list[bytes] = []
        self._size_bytes = 0  # of the lines of the event that is not complete
        self._is_first = True
        self._after_cr = False

    def events(self, part: bytes) -> Iterator[bytes]:
        """The data of the events that `part` completes; events without data are none.

        Raises:
            IntegrityError: `upstream.size`, for an event that is larger than allowed.
        """
        if self._after_cr and part:
            part = part.removeprefix(b"\n")
            self._after_cr = False
        self._after_cr = self._after_cr or part.endswith(b"\r")
        *lines, rest = part.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        for line in lines:
            self._line += line
            yield from self._ended()
        self._line += rest
        self._demand(self._size_bytes + len(self._line))

    def _ended(self) -> Iterator[bytes]:
        """Take a line that is complete."""
        line = bytes(self._line)
        self._line.clear()
        if self._is_first:
            self._is_first = False
            line = line.removeprefix(_MARK)
        self._size_bytes += len(line)
        self._demand(self._size_bytes)
        if line:
            field, _, value = line.partition(b":")
            if field == b"data":
                self._data.append(value.removeprefix(b" "))
            return
        data, self._data, self._size_bytes = self._data, [], 0
        if data:
            yield b"\n".join(data)

    def _demand(self, size_bytes: int) -> None:
        if size_bytes > self._bytes_max:
            raise IntegrityError(
                "upstream.size", f"an event is larger than {self._bytes_max} bytes"
            )
