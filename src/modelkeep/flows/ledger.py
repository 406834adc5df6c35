"""The ledger's sequencer: write-ahead journal -> tiles -> signed checkpoint -> every store.

Order of truth. An entry is recorded when its frame in the write-ahead journal is durable; its
index is the frame's position. What is published is made from durable frames only. Per store:

    entry bundles, body bundles, tiles, in any order -> checkpoint -> superseded objects away
    and when every store has it: journal segments before the oldest kept checkpoint away

The first store is published to; the others get what the first one has, each from its own last
valid checkpoint on: the same objects while they are at hand, else made again out of the journal
or, where that is gone, out of the first store. Records that were just made durable are published
from memory; only what a start finds is read back from the journal. A crash
anywhere leaves objects that the next publication writes again, byte for byte, so nothing that was
acknowledged is lost and no checkpoint contradicts an earlier one. If an object beyond the last
valid checkpoint holds other bytes, it is damage and is replaced (and reported); a valid
checkpoint is never replaced.

A journal that is shorter than a checkpoint in any reachable store was rolled back. Going on
would sign a second history, so opening refuses.

Thread use: `append` in one thread, `publish_first` in one, `replicate(n)` in one per store.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from modelkeep.core.entry import Entry
from modelkeep.core.errors import IntegrityError, KeepError, MissingError, UnavailableError
from modelkeep.crypto.secret import Secret
from modelkeep.flows.ledger_publication import Publication, Publications
from modelkeep.flows.ledger_read import LogAccess, healed_log
from modelkeep.ledger.checkpoint import Checkpoint, checked_origin, signed_checkpoint
from modelkeep.ledger.entry import SALT_BYTES, FrameReader, encoded_body, sealed_frames
from modelkeep.ledger.growth import bundle_start, growth
from modelkeep.ledger.log import LogReader, published_bodies
from modelkeep.ledger.recent import RecentRecords
from modelkeep.ledger.settings import LedgerSettings
from modelkeep.ledger.tiles import (
    checkpoint_name,
    parsed_checkpoint_size,
    parsed_place,
    partial_places,
    place_name,
    superseded,
)
from modelkeep.ledger.tree import TILE_WIDTH, Edge
from modelkeep.ports.batch_store import BatchStore, Object
from modelkeep.ports.entropy import Entropy
from modelkeep.ports.journal import Journal
from modelkeep.ports.note_signer import NoteSigner
from modelkeep.ports.store import Store

# Objects that are made durable together; 64 tiles and bundles are 2 MB.
_TOGETHER = 64


@dataclass(frozen=True, slots=True)
class StoreReport:
    """How far one store got.

    Attributes:
        size: entries under its last checkpoint.
        healed: names of damaged objects that were written anew.
        error: what stopped it; it catches up next time.
    """

    label: str
    size: int
    healed: tuple[str, ...] = ()
    error: KeepError | None = None


@dataclass(slots=True)
class _Copy:
    """Where the log stands in one store."""

    log: LogReader
    checkpoint: Checkpoint | None
    edge: Edge
    kept: list[int]
    is_tidy: bool = False
    healed: list[str] = field(default_factory=list)


class Sequencer:
    """Appends entries durably and publishes them under signed checkpoints.

    Args:
        journal: the write-ahead journal, open for writing; its positions are the log's indices.
        stores: the first is authoritative.
        signer: signs checkpoints and nothing else; its key may be in another process.
        body_key: encrypts bodies in the journal and in the stores.

    Raises:
        IntegrityError: `ledger.behind`, when a store holds a checkpoint beyond the journal.
        UnavailableError: `store.read`, when the first store cannot be read.
    """

    def __init__(
        self,
        *,
        origin: str,
        journal: Journal,
        stores: Sequence[Store],
        signer: NoteSigner,
        body_key: Secret,
        entropy: Entropy,
        settings: LedgerSettings | None = None,
    ) -> None:
        self.origin = checked_origin(origin)
        self._journal = journal
        self._logs = tuple(LogReader(store, origin) for store in stores)
        self._signer = signer
        self._body_key = body_key
        self._entropy = entropy
        self._kept_max = (settings or LedgerSettings()).checkpoints_kept
        self._copies: dict[int, _Copy] = {}
        self._recent = RecentRecords()
        self._at_hand = Publications(count_max=self._kept_max)
        for number, log in enumerate(self._logs):
            try:
                self._demand_not_behind(log, log.latest(public=signer.public).size)
            except UnavailableError:
                if number == 0:
                    raise

    @property
    def size(self) -> int:
        """Entries that are recorded, published or not."""
        return self._journal.next_position()

    @property
    def published_size(self) -> int:
        """Entries under the first store's last checkpoint, as far as this sequencer knows."""
        return self.size_in(0)

    @property
    def stores_count(self) -> int:
        """How many stores there are to publish to."""
        return len(self._logs)

    def append(self, entries: Sequence[Entry]) -> int:
        """Record entries in order; durable on return.

        Returns:
            The index of the first.

        Raises:
            UsageError: `ledger.entry_size`; nothing is recorded.
            UnavailableError: `journal.write`; nothing is recorded.
        """
        first = self._journal.next_position()
        random = self._entropy.random_bytes(SALT_BYTES * (len(entries) + 1))
        records = [
            random[at : at + SALT_BYTES] + encoded_body(entry)
            for at, entry in zip(range(SALT_BYTES, len(random), SALT_BYTES), entries, strict=True)
        ]
        frames = sealed_frames(
            records,
            prefix=self._logs[0].prefix,
            first=first,
            body_key=self._body_key,
            salt=random[:SALT_BYTES],
        )
        if self._journal.append(frames) != first:
            raise AssertionError("the journal has another writer")
        self._recent.add(first, records)
        return first

    def record(self, entries: Sequence[Entry]) -> int:
        """Record entries: the `Recorder` port, in-process."""
        return self.append(entries)

    def publish(self) -> tuple[StoreReport, ...]:
        """Bring every store up to the journal's end, then let go of what all of them have.

        Returns:
            One report per store; only the first store's failure is raised.

        Raises:
            KeepError: what stopped the first store.
        """
        self.publish_first()
        reports = [self.report(0)]
        for number in range(1, len(self._logs)):
            try:
                self.replicate(number)
                reports.append(self.report(number))
            except KeepError as error:
                reports.append(self.report(number, error=error))
        self.release()
        return tuple(reports)

    def publish_first(self) -> Checkpoint | None:
        """Publish to the first store; its checkpoint (None while the log is empty).

        Raises:
            IntegrityError: `ledger.edge`, `ledger.fork`, `ledger.gap`, or of the journal.
            UnavailableError: of the store or the journal; nothing is lost, try again.
        """
        copy = self._copy(0)
        end = self._journal.next_position()
        if end > copy.edge.size:
            before = copy.edge
            records = self._recorded(bundle_start(before.size), end)
            edge, objects = self._grown(copy, end, records)
            checkpoint = signed_checkpoint(
                self.origin, size=end, root=edge.root(), signer=self._signer
            )
            if len(self._logs) > 1:
                fresh = Publication(before.size, before.root(), objects, edge, checkpoint)
                self._at_hand.add(fresh)
            self._commit(copy, edge, checkpoint)
            self._recent.forget_before(bundle_start(end))
        return copy.checkpoint

    def replicate(self, number: int) -> Checkpoint | None:
        """Bring one of the other stores up to the first store's checkpoint.

        Raises:
            KeepError: as `publish_first`; `ledger.fork` before anything is written, when the
                store holds another history.
        """
        wanted = self._copy(0).checkpoint
        copy = self._copy(number)
        while wanted is not None and copy.edge.size < wanted.size:
            ready = self._at_hand.ready(copy.edge.size, end=wanted.size)
            if ready is None:
                self._replicate_anew(copy, wanted)
                break
            self._demand_same_root(copy, copy.edge.root(), ready.root, ready.start)
            self._put_all(copy, ready.objects)
            self._commit(copy, ready.edge, ready.checkpoint)
        return copy.checkpoint

    def _replicate_anew(self, copy: _Copy, wanted: Checkpoint) -> None:
        """Make the objects once more that another store is to have."""
        start = bundle_start(copy.edge.size)
        records = self._recorded(start, wanted.size, otherwise=self._published)
        edge, _ = self._grown(copy, wanted.size, records)
        self._demand_same_root(copy, edge.root(), wanted.root, wanted.size)
        self._commit(copy, edge, wanted)

    def _demand_same_root(self, copy: _Copy, got: bytes, wanted: bytes, size: int) -> None:
        if got != wanted:
            raise IntegrityError(
                "ledger.fork",
                f"{copy.log.store.label}: its tree of {size} entries is not the first store's",
                hint="keep both stores as evidence; recover into a new log",
            )

    def release(self) -> None:
        """Drop from the journal what every store has had for as long as checkpoints are kept."""
        oldest = [
            copy.kept[0] if (copy := self._copies.get(number)) and copy.kept else 0
            for number in range(len(self._logs))
        ]
        self._journal.drop_before(bundle_start(min(oldest)))

    def label_of(self, number: int) -> str:
        """The label of one store."""
        return self._logs[number].store.label

    def report(self, number: int, *, error: KeepError | None = None) -> StoreReport:
        """How far one store got; what was healed is reported once."""
        copy = self._copies.get(number)
        healed = tuple(copy.healed) if copy is not None else ()
        if copy is not None:
            copy.healed.clear()
        return StoreReport(self.label_of(number), self.size_in(number), healed, error)

    # -- where a store stands -----------------------------------------------------------------

    def size_in(self, number: int) -> int:
        """Entries under one store's last checkpoint, as far as this sequencer knows."""
        copy = self._copies.get(number)
        return copy.edge.size if copy is not None else 0

    def _copy(self, number: int) -> _Copy:
        copy = self._copies.get(number)
        if copy is None:
            log = self._logs[number]
            try:
                copy = self._opened(log)
            except (IntegrityError, MissingError) as error:
                healed = self._healed(number, error)
                copy = self._opened(log)
                copy.healed += healed
            if copy.checkpoint is not None:
                self._demand_same_history(number, copy.checkpoint)
            self._copies[number] = copy
        return copy

    def _opened(self, log: LogReader) -> _Copy:
        latest = log.latest(public=self._signer.public)
        if latest.checkpoint is None and latest.sizes:
            # All of them signed by somebody else look the same as the only one damaged. To start
            # anew would replace them, so only another store may decide.
            raise IntegrityError(
                "ledger.checkpoint",
                f"{log.store.label}: none of {len(latest.sizes)} checkpoints of {self.origin} is "
                "valid",
                hint="is it the right signing key? `modelkeep ledger verify` says more",
            )
        self._demand_not_behind(log, latest.size)
        edge = log.edge(latest.checkpoint) if latest.checkpoint is not None else Edge()
        kept = [size for size in latest.sizes if size <= latest.size]
        return _Copy(log, latest.checkpoint, edge, kept)

    def _healed(self, number: int, failure: KeepError) -> tuple[str, ...]:
        """Heal a store whose last tiles are damaged from the first store that can."""
        for source in self._logs[:number] + self._logs[number + 1 :]:
            access = LogAccess(source.store, self.origin, self._signer.public, self._body_key)
            try:
                return healed_log(self._logs[number].store, access)
            except KeepError:
                continue
        raise failure

    def _demand_not_behind(self, log: LogReader, size: int) -> None:
        if size > self._journal.next_position():
            raise IntegrityError(
                "ledger.behind",
                f"{log.store.label} holds a checkpoint of {size} entries, but the write-ahead "
                f"journal ends at {self._journal.next_position()}: it was rolled back",
                hint="recover from that store: a recovered ledger goes on as a new log",
                expected=size,
                got=self._journal.next_position(),
            )

    def _demand_same_history(self, number: int, theirs: Checkpoint) -> None:
        """Compare another store's checkpoint with the first store's tree."""
        ours = self._copies[0].checkpoint if number else None
        if ours is None or theirs.size > ours.size:
            return
        if self._logs[0].range_root(ours.size)(0, theirs.size) != theirs.root:
            raise IntegrityError(
                "ledger.fork",
                f"{self.label_of(number)} holds another history of {theirs.size} entries",
                hint="keep both stores as evidence; recover into a new log",
            )

    # -- growing ------------------------------------------------------------------------------

    def _recorded(
        self,
        start: int,
        end: int,
        *,
        otherwise: Callable[[int, int], Iterator[bytes]] | None = None,
    ) -> Iterator[bytes]:
        """Records [start, end) from memory or the journal, or from elsewhere when it let go."""
        recent = self._recent.between(start, end)
        if recent is not None:
            yield from recent
            return
        frames = FrameReader(self._body_key, prefix=self._logs[0].prefix)
        at = start
        try:
            for at, frame in self._journal.read(start):
                if at >= end:
                    return
                yield frames.record(frame, index=at)
        except MissingError as error:
            if otherwise is None or at != start:
                raise IntegrityError(
                    "ledger.gap",
                    f"entry {at} is neither in the journal nor under a checkpoint",
                    hint="heal the first store from another: `modelkeep ledger verify --repair`",
                    entry=at,
                ) from error
            yield from otherwise(start, end)

    def _published(self, start: int, end: int) -> Iterator[bytes]:
        log, size = self._logs[0], self.size_in(0)
        for index in range(start // TILE_WIDTH, -(-end // TILE_WIDTH)):
            for body in published_bodies(log, size, index=index, body_key=self._body_key):
                if start < end:
                    yield body.record
                start += 1

    def _grown(
        self, copy: _Copy, end: int, records: Iterator[bytes]
    ) -> tuple[Edge, tuple[Object, ...]]:
        """Write the objects of the entries up to `end`; the new edge, and the objects."""
        edge = copy.edge.copy()
        objects: list[Object] = []

        def grown() -> Iterator[Object]:
            for each in growth(edge, records, prefix=copy.log.prefix, body_key=self._body_key):
                if len(self._logs) > 1:
                    objects.append(each)
                yield each

        self._put_all(copy, grown())
        if edge.size != end:
            raise IntegrityError(
                "ledger.gap",
                f"the journal gave entries up to {edge.size} of {end}",
                expected=end,
                got=edge.size,
            )
        return edge, tuple(objects)

    def _commit(self, copy: _Copy, edge: Edge, checkpoint: Checkpoint) -> None:
        """Write the checkpoint, last of all; then remove what no kept checkpoint needs."""
        name = checkpoint_name(copy.log.prefix, checkpoint.size)
        self._put(copy, (name, checkpoint.raw))
        copy.edge, copy.checkpoint = edge, checkpoint
        copy.kept.append(checkpoint.size)
        try:
            self._tidy(copy)
        except UnavailableError:
            copy.is_tidy = False  # leftovers harm nobody: the next publication looks for them

    def _put_all(self, copy: _Copy, objects: Iterable[Object]) -> None:
        """Write objects in any order, together where the store can; all durable on return."""
        store, source = copy.log.store, iter(objects)
        while some := list(islice(source, _TOGETHER)):
            left = store.put_new(some) if isinstance(store, BatchStore) else some
            for each in left:
                self._put(copy, each)

    def _put(self, copy: _Copy, named: Object) -> None:
        """Write an object; one beyond the last valid checkpoint with other bytes is damage."""
        name, raw = named
        store = copy.log.store
        try:
            store.put(name, raw)
        except IntegrityError as error:
            if error.code != "store.exists" or self._is_valid_checkpoint(copy, name):
                raise
            store.delete(name)
            store.put(name, raw)
            copy.healed.append(name)

    def _is_valid_checkpoint(self, copy: _Copy, name: str) -> bool:
        size = parsed_checkpoint_size(copy.log.prefix, name)
        if size is None:
            return False
        try:
            copy.log.checkpoint(size, public=self._signer.public)
        except IntegrityError:
            return False
        return True

    def _tidy(self, copy: _Copy) -> None:
        """Remove old checkpoints, then the partial objects that only they needed."""
        store, prefix = copy.log.store, copy.log.prefix
        gone = copy.kept[: -self._kept_max]
        candidates = [place for size in gone for place in partial_places(size)]
        if not copy.is_tidy:  # once after opening: a crash may have left some
            names = [stat.name for stat in store.list(prefix)]
            sizes = (parsed_checkpoint_size(prefix, name) for name in names)
            gone += [size for size in sizes if size is not None and size < copy.kept[0]]
            places = (parsed_place(prefix, name) for name in names)
            candidates = [place for place in places if place is not None]
        for size in gone:
            store.delete(checkpoint_name(prefix, size))
        del copy.kept[: -self._kept_max]
        for place in superseded(candidates, kept_sizes=copy.kept):
            store.delete(place_name(prefix, place))
        copy.is_tidy = True
