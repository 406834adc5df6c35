"""Following the call journals: what is new becomes a `calls.batch`, what is old is let go of.

How far a journal is covered is what the ledger says of it, so nothing is committed twice and
nothing is left out, whenever the recorder is killed. Only durable frames are seen (the journal's
marks), so no power cut can take back a record that a batch committed to.

Records that were dropped before they were committed are a `calls.gap`, damage is one
`calls.damaged`; both are entries, and the other journals go on.

Segments that were kept long enough and are covered by batches are removed: first the entry
`calls.expired` is durable, then they go, oldest first. A crash between leaves a journal that the
next round says the same of.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from modelkeep.adapters.disk import Disk, RealDisk
from modelkeep.adapters.journal_file import JournalFile
from modelkeep.adapters.journal_segment import Segment
from modelkeep.core.entry import Entry, Fact
from modelkeep.core.errors import IntegrityError, MissingError
from modelkeep.core.instant import NS_PER_S
from modelkeep.flows.ledger_read import Coverage
from modelkeep.ledger.batch import EXPIRED_KIND, GAP_KIND, batch_entry, coverage_entry
from modelkeep.ledger.retention import KeptSegment, kept_from
from modelkeep.ledger.settings import LedgerSettings

ACTOR = "recorder"
# A batch's frames are in memory at once; 16,384 records of a call are about 8 MiB.
BATCH_BYTES_MAX = 16 * 1024 * 1024
# A start reads at most so many entries to know how far the journals are covered: 0.1 s.
COVERED_ENTRIES = 16_384
# Journals in one such entry, which holds 64 KiB: one for each gateway of each recovery.
COVERED_JOURNALS_MAX = 500
DAY_NS = 86_400 * NS_PER_S


@dataclass(slots=True)
class _Tail:
    journal: JournalFile
    position: int
    damaged_at: int = -1


@dataclass(frozen=True, slots=True)
class Step:
    """One entry to append, and where its journal stands once that is durable."""

    name: str
    position: int
    entry: Entry
    is_damage: bool = False


@dataclass(frozen=True, slots=True)
class Expiry:
    """One entry to append, and what may be removed once that is durable."""

    name: str
    position: int
    entry: Entry


def changed_ns(path: Path) -> int:
    """When a file was last written."""
    return path.stat().st_mtime_ns


class CallTails:
    """All call journals below one folder, one sub-folder each.

    Args:
        covered: what the ledger says of the journals; asked once.
        changed_ns: when a segment was last written.

    Attributes:
        covered_at: index of the last entry that said of all journals how far they are covered.
    """

    def __init__(
        self,
        folder: Path,
        *,
        covered: Callable[[], Coverage],
        settings: LedgerSettings,
        disk: Disk | None = None,
        changed_ns: Callable[[Path], int] = changed_ns,
    ) -> None:
        self._folder = folder
        self._covered = covered
        self._settings = settings
        self._disk = disk or RealDisk()
        self._changed_ns = changed_ns
        self._positions: dict[str, int] | None = None
        self._tails: dict[str, _Tail] = {}
        self.covered_at = 0

    def steps(self, now_ns: int) -> list[Step]:
        """What is new: at most one step per journal; `done` moves past it.

        Raises:
            UnavailableError: `journal.read`.
        """
        self._discover()
        found = (self._step(name, tail, now_ns) for name, tail in sorted(self._tails.items()))
        return [step for step in found if step is not None]

    def done(self, steps: Collection[Step]) -> None:
        """The steps' entries are durable."""
        for step in steps:
            tail = self._tails[step.name]
            tail.position = step.position
            if step.is_damage:
                tail.damaged_at = step.position

    def coverage(self, now_ns: int, *, size: int) -> Entry | None:
        """The entry that says how far all journals are covered, when enough was recorded since."""
        if self._positions is None or size - self.covered_at < COVERED_ENTRIES:
            return None
        self._positions |= {name: tail.position for name, tail in self._tails.items()}
        if len(self._positions) > COVERED_JOURNALS_MAX:
            return None  # a start then reads further back
        return coverage_entry(self._positions, at_ns=now_ns)

    def expiries(self, now_ns: int) -> list[Expiry]:
        """Of each journal, what was kept long enough; `let_go` removes it.

        Raises:
            UnavailableError: `journal.read`.
        """
        found = (self._expiry(name, tail, now_ns) for name, tail in sorted(self._tails.items()))
        return [expiry for expiry in found if expiry is not None]

    def let_go(self, expiries: Collection[Expiry]) -> None:
        """The expiries' entries are durable: remove the segments.

        Raises:
            UnavailableError: `journal.write`; the next round tries again.
        """
        for expiry in expiries:
            self._tails[expiry.name].journal.drop_before(expiry.position)

    def _expiry(self, name: str, tail: _Tail, now_ns: int) -> Expiry | None:
        settings = self._settings
        try:
            segments = self._kept(tail.journal.segments())
        except OSError:
            return None  # somebody removed a file meanwhile: the next round sees what is left
        position = kept_from(
            segments,
            covered=tail.position,
            before_ns=now_ns - int(settings.journals_keep_days * DAY_NS),
            bytes_max=settings.journals_keep_bytes,
        )
        if not segments or position == segments[0].first:
            return None
        facts: dict[str, Fact] = {"journal": name, "first": segments[0].first, "next": position}
        return Expiry(
            name, position, Entry(kind=EXPIRED_KIND, at_ns=now_ns, actor=ACTOR, facts=facts)
        )

    def _kept(self, segments: Sequence[Segment]) -> list[KeptSegment]:
        return [
            KeptSegment(each.first, self._disk.size(each.path) or 0, self._changed_ns(each.path))
            for each in segments
        ]

    def _discover(self) -> None:
        names = {
            path.relative_to(self._folder).parts[0] for path, _ in self._disk.walk(self._folder)
        }
        fresh = names - self._tails.keys()
        if not fresh:
            return
        if self._positions is None:
            coverage = self._covered()
            self._positions, self.covered_at = coverage.positions, coverage.at
        for name in fresh:
            journal = JournalFile(self._disk, self._folder / name, writable=False)
            self._tails[name] = _Tail(journal, self._positions.get(name, 0))

    def _step(self, name: str, tail: _Tail, now_ns: int) -> Step | None:
        if tail.damaged_at == tail.position:
            return None  # said once; a person has to look at it
        frames: list[bytes] = []
        size_bytes = 0
        try:
            for _, frame in islice(
                tail.journal.read(tail.position), self._settings.batch_records_max
            ):
                frames.append(frame)
                size_bytes += len(frame)
                if size_bytes >= BATCH_BYTES_MAX:
                    break
        except IntegrityError as error:
            if not frames:
                facts: dict[str, Fact] = {
                    "journal": name,
                    "first": tail.position,
                    "message": error.message,
                }
                entry = Entry(kind="calls.damaged", at_ns=now_ns, actor=ACTOR, facts=facts)
                return Step(name, tail.position, entry, is_damage=True)
        except MissingError:
            return self._gap(name, tail, now_ns)
        if not frames:
            return None
        entry = batch_entry(frames, journal=name, first=tail.position, at_ns=now_ns)
        return Step(name, tail.position + len(frames), entry)

    def _gap(self, name: str, tail: _Tail, now_ns: int) -> Step | None:
        first = tail.journal.first_position()
        if first <= tail.position:
            return None  # read again next time
        facts: dict[str, Fact] = {"journal": name, "first": tail.position, "next": first}
        return Step(name, first, Entry(kind=GAP_KIND, at_ns=now_ns, actor=ACTOR, facts=facts))
