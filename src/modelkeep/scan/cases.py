"""One thing to be judged: its bytes, where it stands, and what judging it may cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from modelkeep.core.verdict import Finding, Severity
from modelkeep.scan.allowance import Allowance
from modelkeep.scan.evidence import found, printable
from modelkeep.scan.settings import ScanSettings


@dataclass(frozen=True, slots=True)
class Place:
    """Where in the nesting a member stands."""

    subject: str
    depth: int
    allowance: Allowance
    is_storage: bool = False

    @property
    def name(self) -> str:
        """The last part of the name: what a loader would open it by."""
        return self.subject.replace("!", "/").rpartition("/")[2]

    def inside(self, name: str) -> Place:
        """The place of a member of this one."""
        return Place(f"{self.subject}!{printable(name)}", self.depth + 1, self.allowance)


Judge = Callable[[memoryview, Place], tuple[Finding, ...]]


@dataclass(frozen=True, slots=True)
class Case:
    """What a parser of one format is given.

    Attributes:
        judge: judges bytes found inside as a file of their own.
    """

    view: memoryview
    place: Place
    settings: ScanSettings
    judge: Judge

    def found(self, rule: str, severity: Severity, text: str) -> Finding:
        """A finding about this case."""
        return found(rule, severity, self.place.subject, text)

    def inner(self, name: str, view: memoryview | bytes) -> tuple[Finding, ...]:
        """Judge bytes found inside, unless they lie too deep."""
        place = self.place.inside(name)
        if place.depth > self.settings.depth_max:
            text = f"lies deeper than {self.settings.depth_max} archives and was not looked at"
            return (found("scan.archive.depth", Severity.MEDIUM, place.subject, text),)
        return self.judge(memoryview(view).cast("B"), place)


Parser = Callable[[Case], tuple[Finding, ...]]
