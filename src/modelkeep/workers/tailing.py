"""Following the call journals: what is new in each becomes one entry of kind `calls.batch`.

How far a journal is covered is what the ledger says of it, so nothing is committed twice and
nothing is left out, whenever the recorder is killed. Only durable frames are seen (the journal's
marks), so no power cut can take back a record that a batch committed to.

Records that were dropped before they were committed are a `calls.gap`, damage is one
`calls.damaged`; both are entries, and the other journals go on.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from modelkeep.adapters.disk import RealDisk
from modelkeep.adapters.journal_file import JournalFile
from modelkeep.core.entry import Entry, Fact
from modelkeep.core.errors import IntegrityError, MissingError
from modelkeep.ledger.batch import batch_entry

ACTOR = "recorder"
# A batch's frames are in memory at once; 16,384 records of a call are about 8 MiB.
BATCH_BYTES_MAX = 16 * 1024 * 1024


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


class CallTails:
    """All call journals below one folder, one sub-folder each.

    Args:
        covered: for journals, the positions up to which the ledger covers them.
    """

    def __init__(
        self,
        folder: Path,
        *,
        covered: Callable[[Collection[str]], dict[str, int]],
        records_max: int,
    ) -> None:
        self._folder = folder
        self._covered = covered
        self._records_max = records_max
        self._tails: dict[str, _Tail] = {}

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

    def _discover(self) -> None:
        try:
            found = {path.name: path for path in self._folder.iterdir() if path.is_dir()}
        except FileNotFoundError:
            return
        fresh = found.keys() - self._tails.keys()
        if not fresh:
            return
        for name, position in self._covered(fresh).items():
            journal = JournalFile(RealDisk(), found[name], writable=False)
            self._tails[name] = _Tail(journal, position)

    def _step(self, name: str, tail: _Tail, now_ns: int) -> Step | None:
        if tail.damaged_at == tail.position:
            return None  # said once; a person has to look at it
        frames: list[bytes] = []
        size_bytes = 0
        try:
            for _, frame in islice(tail.journal.read(tail.position), self._records_max):
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
        return Step(name, first, Entry(kind="calls.gap", at_ns=now_ns, actor=ACTOR, facts=facts))
