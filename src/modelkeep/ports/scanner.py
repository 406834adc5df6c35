"""Judging files somewhere that they can do no harm: what goes there, and what comes back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from modelkeep.core.artifact import Schema
from modelkeep.core.record import Record
from modelkeep.core.verdict import Finding
from modelkeep.ports.sandbox import Measure


@dataclass(frozen=True, slots=True)
class Unjudged:
    """A file that nobody has looked into yet.

    Attributes:
        name: as it would stand in a manifest, below the folder that is judged.
        raw: its bytes; never looked into by who only hands them on.
        fd: a descriptor of the same bytes that can only be read, -1 for none: then they are copied.
        forget: drops the pages of `raw` that were looked at.
    """

    name: str
    raw: memoryview
    fd: int = -1
    forget: Callable[[], None] = lambda: None


class Judged(Record, frozen=True):
    """What came of one file.

    Attributes:
        kind: what its content is, as `kernels.formats` names it.
        schema: what a model takes and gives, where nothing was found against it and it says so.
    """

    findings: tuple[Finding, ...]
    kind: str
    schema: Schema | None = None


class Scanner(Protocol):
    """Looks into files."""

    def start(self) -> None:
        """Get ready ahead of the first use, while the caller goes on; idempotent.

        Raises:
            UnavailableError: `scan.worker.start`.
        """
        ...

    def judge(
        self, files: Iterable[Unjudged], *, sizes: Mapping[str, int], settings: Record
    ) -> Iterator[Judged]:
        """One judgement for each file, in their order; several files may be looked into at once.

        What goes wrong with a file is a finding against it that denies it, never an error: it took
        too long (`scan.worker.timeout`), its judge ended (`scan.worker.crashed`) or said what is no
        judgement (`scan.worker.answer`). At most a few files are asked for ahead of the caller.

        Args:
            sizes: of all files that are judged together, by name: a graph's tensors may lie in one.
            settings: the scanner's own (`scan.settings.ScanSettings`).

        Raises:
            UnavailableError: `scan.worker.start`, when there is nobody to judge.
        """
        ...

    def explain(self) -> tuple[Measure, ...]:
        """What keeps a file that is looked into from doing harm, measure by measure.

        Raises:
            UnavailableError: `scan.worker.start`.
        """
        ...

    def close(self) -> None:
        """End it; idempotent."""
        ...
