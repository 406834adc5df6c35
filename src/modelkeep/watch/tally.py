"""What one version of a model was asked, as numbers that only grow."""

from __future__ import annotations


class Tally:
    """Answers and refusals of one served version since its gateway started.

    Attributes:
        last_ms: when the last answer left, since the Unix epoch; 0 for never.
    """

    __slots__ = ("fail_count", "fail_ns", "last_ms", "success_count", "success_ns")

    def __init__(self) -> None:
        self.success_count = self.success_ns = 0
        self.fail_count = self.fail_ns = 0
        self.last_ms = 0

    def add(self, *, is_answer: bool, took_ns: int, now_ms: int) -> None:
        """Count one call."""
        if is_answer:
            self.success_count += 1
            self.success_ns += took_ns
            self.last_ms = now_ms
        else:
            self.fail_count += 1
            self.fail_ns += took_ns
