"""The operating system's clock and randomness."""

from __future__ import annotations

import os
import time


class SystemClock:
    """The machine's own clock."""

    def now_ns(self) -> int:
        return time.time_ns()

    def monotonic_ns(self) -> int:
        return time.monotonic_ns()


class SystemEntropy:
    """The kernel's random generator."""

    def random_bytes(self, count: int) -> bytes:
        return os.urandom(count)
