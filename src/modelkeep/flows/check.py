"""Check: does every store hold what it must, and are its bytes what they claim; repair if asked.

Structure (names, sizes, small objects, series, every chunk of every recipe) always; with
`read_data` packs are read, authenticated segment by segment, decoded and hashed against their ids:
all of them, or a share that the keep's entropy chooses. Packs are read by all workers, in an order
in which bases come just before the deltas to them. The ledger's objects are judged by
`ledger.verify`, which knows its tree.

Each object is read once, each snapshot and recipe of a store twice. In memory: the names of one
store's objects, its index, a pack for each thread and its two successors, and 128 MiB of bases.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from modelkeep.core.errors import (
    IntegrityError,
    KeepError,
    MissingError,
    UnavailableError,
    UsageError,
)
from modelkeep.core.limits import OBJECT_BYTES_MAX
from modelkeep.core.names import key_id_of, series_name
from modelkeep.core.record import Record
from modelkeep.core.verdict import Finding, Severity
from modelkeep.flows.create import ConfigCopy, Unlocked
from modelkeep.flows.keep import LogEpoch, OpenKeep, current_head, record, record_damages
from modelkeep.flows.keyring import Keyring
from modelkeep.flows.loss import Loss, losses
from modelkeep.flows.repair import Repair
from modelkeep.flows.store_format import StoreFormat
from modelkeep.flows.values import demand_kept, swept
from modelkeep.ledger.verify import LogReport
from modelkeep.ports.range_store import read_into, uncached
from modelkeep.ports.store import Store
from modelkeep.vault.check import Bases, demand_content, in_order, needed
from modelkeep.vault.load import Reader
from modelkeep.vault.objects import Numbered, latest, opened_member
from modelkeep.vault.replicate import CONTENT_KINDS, MOVING_KINDS, VALUE_KINDS, kind_of
from modelkeep.vault.snapshot import Head

_SERIES: dict[str, type[Numbered]] = {
    "format": StoreFormat,
    "keyring": Keyring,
    "config": ConfigCopy,
    "log": LogEpoch,
    "head": Head,
}


class CheckReport(Record, frozen=True):
    """What a check saw.

    Attributes:
        repaired: objects that were replaced, or made again, from what other stores hold.
        lost: what no store has any more; looked for when a repair was asked for.
        whole: versions that nothing is lost of, as `name:version`; likewise.
    """

    objects: int
    size_bytes: int
    findings: tuple[Finding, ...]
    repaired: int
    lost: tuple[Loss, ...] = ()
    whole: tuple[str, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether nothing is left to repair."""
        return not any(each.severity is Severity.HIGH for each in self.findings)


def demand_object(keep: OpenKeep | Unlocked, name: str, raw: bytes, *, reader: Reader) -> None:
    """Check one object of the vault, whatever its kind.

    Args:
        reader: where the bases of deltas are read from.

    Raises:
        IntegrityError: the first thing that is wrong with it.
    """
    kind, public = kind_of(name), keep.keys.signer.public
    if kind in CONTENT_KINDS:
        demand_content(name, raw, reader=reader)
    elif kind in VALUE_KINDS:
        demand_kept(keep.keys, name, raw)
    elif kind in _SERIES:
        opened_member(_SERIES[kind], name, raw, kind=kind, public=public)
    else:
        raise IntegrityError("check.unknown", f"{name} is nothing that modelkeep writes")


def checked(
    keep: OpenKeep,
    *,
    read_data: float,
    repair: bool,
    logs: Sequence[tuple[str, LogReport]] = (),
    progress: Callable[[int], None] = lambda _: None,
) -> CheckReport:
    """Check every store, and with `repair` make good what can be.

    Args:
        read_data: which share of the packs is read, from 0 (False) to 1 (True).
        logs: what a verification of the ledger found in each store; it joins the report.

    Raises:
        UsageError: `check.share`.
    """
    if not 0 <= read_data <= 1:
        raise UsageError("check.share", "a share is above 0 % and at most 100 %")
    check = _Check(keep, share=float(read_data), repair=repair, progress=progress)
    current_head(keep)
    swept(keep)
    for store in keep.stores:
        try:
            check.store(store)
        except KeepError as error:
            check.note("check.store", store, store.label, str(error))
    for label, log in logs:
        check.log(label, log)
    lost, whole = losses(keep, check.repairing.lost) if repair else ((), ())
    for each in lost:
        check.findings.append(
            Finding("check.lost", Severity.HIGH, each.version, f"in no store: {each.text}")
        )
    report = CheckReport(
        objects=check.objects,
        size_bytes=check.size_bytes,
        findings=tuple(check.findings),
        repaired=check.repaired,
        lost=lost,
        whole=whole,
    )
    record(
        keep,
        "check.done",
        {
            "objects": report.objects,
            "read_data": read_data > 0,
            "share": float(read_data),
            "findings": len(report.findings),
            "repaired": report.repaired,
            "lost": tuple(each.version for each in lost),
        },
    )
    return report


@dataclass(slots=True, kw_only=True)
class _Check:
    """One check under way: what it looks at, and what it has seen."""

    keep: OpenKeep = field(kw_only=False)
    share: float
    repair: bool
    progress: Callable[[int], None]
    objects: int = 0
    size_bytes: int = 0
    repaired: int = 0
    findings: list[Finding] = field(default_factory=list)
    repairing: Repair = field(init=False)

    def __post_init__(self) -> None:
        self.repairing = Repair(self.keep, demand=self.demand)

    def demand(self, name: str, raw: bytes, reader: Reader) -> None:
        """Check one object; see `demand_object`."""
        demand_object(self.keep, name, raw, reader=reader)

    def store(self, store: Store) -> None:
        """Every object that is there, then everything that must be."""
        there = {
            stat.name: stat.size_bytes
            for stat in store.list("")
            # The ledger is judged apart, `alive` by whoever uses it, an inbox by who accepts.
            if kind_of(stat.name) not in ("ledger", "alive", "inbox")
        }
        self.objects += len(there)
        small = [name for name in there if kind_of(name) != "pack"]
        small.sort(key=lambda name: kind_of(name) != "format")  # without it nothing is written
        if "format" not in map(kind_of, small):
            self.bad(store, series_name("format", 0), "there is no format")
        self.judge(store, self.small(store, small), there)
        for kind in MOVING_KINDS[1:]:
            if kind not in map(kind_of, small):
                self.bad(store, series_name(kind, 0), f"there is no {kind}")
        if self.repair:
            current_head(self.keep)  # a store that could not take the newest one can now
        if self.share:
            for key_id in sorted({key_id_of(name) for name in there} - {""}):
                self.judge(store, self.packs(store, key_id, there), there)
        self.reachable(store, there)

    def small(self, store: Store, names: Iterable[str]) -> Iterator[tuple[str, KeepError | None]]:
        """Everything but packs."""
        reader = self.keep.reader(may_heal=False)

        def test(name: str) -> tuple[str, KeepError | None]:
            try:
                demand_object(self.keep, name, uncached(store).get(name), reader=reader)
            except KeepError as error:
                return name, error
            return name, None

        return self.keep.workers.map(test, names)

    def packs(
        self, store: Store, key_id: str, there: dict[str, int]
    ) -> Iterator[tuple[str, KeepError | None]]:
        """The packs under one key, or a share of them."""
        others = [each for each in self.keep.stores if each is not store]
        reader = self.keep.reader_of((store, *others))
        names = [name for name in there if name.startswith(f"pack/{key_id}/")]
        if not self.keep.domains.holds(f"pack/{key_id}/00/00"):
            return self.small(store, names)
        ordered, wanted = in_order(reader.index_of(store, key_id))
        listed = set(ordered)
        order = [name for name in ordered if name in there]
        order += [name for name in names if name not in listed]
        bases, free = Bases(wanted), list[bytearray]()

        def test(name: str) -> tuple[str, KeepError | None]:
            size_bytes = min(there[name], OBJECT_BYTES_MAX)
            buffer = free.pop() if free else bytearray()
            if len(buffer) < size_bytes:
                buffer = bytearray(size_bytes)
            try:
                raw = memoryview(buffer)[:size_bytes]
                got = read_into(store, name, 0, raw)
                demand_content(name, raw[:got], reader=reader, bases=bases)
            except KeepError as error:
                return name, error
            finally:
                free.append(buffer)
            return name, None

        return self.keep.workers.map(test, self.sample(order))

    def sample(self, names: Sequence[str]) -> list[str]:
        """A share of the packs, each as likely as any other; one at least."""
        if self.share >= 1 or not names:
            return list(names)
        draws = self.keep.entropy.random_bytes(4 * len(names))
        limit = int(self.share * 2**32)
        number = {
            name: int.from_bytes(draws[4 * at : 4 * at + 4], "big") for at, name in enumerate(names)
        }
        least = min(number.values())
        return [name for name in names if number[name] < limit or number[name] == least]

    def judge(
        self,
        store: Store,
        tested: Iterable[tuple[str, KeepError | None]],
        there: dict[str, int],
    ) -> None:
        """Note what is wrong with objects, and repair it if asked."""
        for name, error in tested:
            self.size_bytes += there[name]
            self.progress(there[name])
            if isinstance(error, IntegrityError):
                self.bad(store, name, str(error))
            elif isinstance(error, UnavailableError | UsageError):
                severity = Severity.MEDIUM
                self.note("check.stray", store, name, str(error), severity=severity)
            elif isinstance(error, MissingError) and error.code == "keys.destroyed":
                severity = Severity.MEDIUM
                self.note("check.shredded", store, name, str(error), severity=severity)

    def reachable(self, store: Store, there: dict[str, int]) -> None:
        """Everything that the store's own head needs, in the size that the index says."""
        keep = self.keep
        own = latest(Head, store, "head", public=keep.public).member
        newest = keep.state.applied().head
        if own.number < newest:
            self.note(
                "check.behind",
                store,
                "head",
                f"head {own.number} of {newest}: run `modelkeep backup`",
                severity=Severity.MEDIUM,
            )
        reader = keep.reader(may_heal=self.repair)
        chunks, bad = wanting(reader, store, there, own.snapshot)
        for name, evidence in bad.items():
            if store.stat(name) is None or kind_of(name) == "pack":
                self.bad(store, name, evidence)
        if self.repair and bad:  # what was dropped with a pack may have been a base
            later, _ = wanting(keep.reader(may_heal=False), store, there, own.snapshot)
            for key_id, lacking in later.items():
                chunks.setdefault(key_id, set()).update(lacking)
        for key_id, lacking in chunks.items():
            self.unknown(store, key_id, lacking, own.snapshot)
        for damage in reader.damages:
            severity = Severity.NOTE if damage.healed else Severity.HIGH
            rule = "check.repaired" if damage.healed else "check.object"
            subject = f"{damage.store}:{damage.object}"
            self.findings.append(Finding(rule, severity, subject, damage.code))
            self.repaired += damage.healed
        record_damages(self.keep, reader.damages)

    def unknown(self, store: Store, key_id: str, lacking: set[bytes], snapshot: str) -> None:
        """Note chunks that no index of a store knows; with `repair`, list or store them anew."""
        subject, count = f"index/{key_id}", len(lacking)
        evidence = f"{count} chunks that are needed are in no index of this store"
        if self.repair and self.repairing.chunks(store, key_id, lacking, snapshot):
            self.repaired += count
            self.note("check.repaired", store, subject, evidence, severity=Severity.NOTE)
            record(
                self.keep,
                "vault.healed",
                {"store": store.label, "object": subject, "code": "check"},
            )
        else:
            self.note("check.object", store, subject, evidence)

    def bad(self, store: Store, name: str, evidence: str) -> None:
        """Note a damaged or missing object; with `repair`, make it good."""
        if self.repair and self.repairing.object(store, name):
            self.repaired += 1
            self.note("check.repaired", store, name, evidence, severity=Severity.NOTE)
            record(
                self.keep,
                "vault.healed",
                {"store": store.label, "object": name, "code": "check"},
            )
        else:
            self.note("check.object", store, name, evidence)

    def log(self, label: str, log: LogReport) -> None:
        """Add what a verification of the ledger found in one store."""
        self.objects += log.objects
        for each in log.findings:
            if each.severity is not Severity.NOTE:
                subject = f"{label}:{each.subject}"
                self.findings.append(Finding(each.rule, each.severity, subject, each.evidence))

    def note(
        self,
        rule: str,
        store: Store,
        name: str,
        evidence: str,
        *,
        severity: Severity = Severity.HIGH,
    ) -> None:
        """Keep one finding."""
        self.findings.append(Finding(rule, severity, f"{store.label}:{name}", evidence))


def wanting(
    reader: Reader, store: Store, there: dict[str, int], snapshot: str
) -> tuple[dict[str, set[bytes]], dict[str, str]]:
    """What a store must have for a snapshot, and has not.

    Args:
        there: its objects and their sizes, as they were listed.

    Returns:
        Chunks that it cannot give, by the id of their key; objects, with what is wrong with them.
    """
    chunks: dict[str, set[bytes]] = {}
    bad: dict[str, str] = {}
    for name, size_bytes in needed(reader, store, snapshot):
        kind, _, rest = name.partition("/")
        if kind == "chunk":
            key_id, _, chunk_id = rest.partition("/")
            chunks.setdefault(key_id, set()).add(bytes.fromhex(chunk_id))
        elif name not in there and store.stat(name) is None:
            bad[name] = f"{name} is missing"
        elif name in there and size_bytes not in (-1, there[name]):
            bad[name] = f"{name} has another size than the index says"
    return chunks, bad
