"""The stack, the marks and the memo of the pickle machine, with bounds of ours on each."""

from __future__ import annotations

from modelkeep.scan.symbols_values import Value

# Picklers fill maps and lists a thousand items at a time.
HEIGHT_MAX = 400_000


class BreakError(Exception):
    """The loader would stop here with an error."""


class SpentError(Exception):
    """A bound of ours, not of the loader's."""


class Stack:
    """What a stream has pushed, marked and remembered."""

    __slots__ = ("_marks", "_memo_max", "memo", "values")

    def __init__(self, memo_max: int) -> None:
        self.values: list[Value] = []
        self.memo: dict[int, Value] = {}
        self._marks: list[int] = []
        self._memo_max = memo_max

    def copied(self) -> Stack:
        """A stack of its own with the same values."""
        other = Stack(self._memo_max)
        other.values, other.memo = list(self.values), dict(self.memo)
        other._marks = list(self._marks)
        return other

    def push(self, value: Value) -> None:
        """Put one value on top."""
        if len(self.values) >= HEIGHT_MAX:
            raise SpentError(f"puts more than {HEIGHT_MAX} values on the stack")
        self.values.append(value)

    def pop(self) -> Value:
        """Take the top, which lies above the last mark."""
        if len(self.values) <= (self._marks[-1] if self._marks else 0):
            raise BreakError("the stack is empty")
        return self.values.pop()

    def top(self) -> Value:
        """Look at the top."""
        value = self.pop()
        self.values.append(value)
        return value

    def mark(self) -> None:
        """Remember the height."""
        if len(self._marks) >= HEIGHT_MAX:
            raise SpentError(f"puts more than {HEIGHT_MAX} marks on the stack")
        self._marks.append(len(self.values))

    def to_mark(self) -> list[Value]:
        """Take everything above the last mark, and the mark."""
        if not self._marks:
            raise BreakError("there is no mark")
        start = self._marks.pop()
        values = self.values[start:]
        del self.values[start:]
        return values

    def drop(self) -> None:
        """Drop the top, or the mark that lies there."""
        if self._marks and len(self.values) == self._marks[-1]:
            self._marks.pop()
        else:
            self.pop()

    def remember(self, index: int) -> None:
        """Keep the top under a number."""
        value = self.top()
        if len(self.memo) >= self._memo_max:
            raise SpentError(f"remembers more than {self._memo_max} values")
        self.memo[index] = value

    def recall(self, index: int) -> None:
        """Push what was kept under a number."""
        if index not in self.memo:
            raise BreakError(f"nothing was remembered under {index}")
        self.push(self.memo[index])
