"""Proving that a whole log in a store is what its latest checkpoint signed.

    1. The highest valid checkpoint counts; invalid members of the series are findings.
    2. Every tile above level 0 is read; then every bundle: leaves are hashed and compared with
       the stored tile of level 0, bodies are opened and compared with their commitments.
    3. Where a stored hash and a recomputed one differ, what is above decides who is wrong: a full
       tile must hash to its place in the tile above, the partial tiles together to the signed
       root. So a finding names the object, and in it the entry or hash, with expected and got.
    4. The tiles that were found right must give the signed root.
    5. Every older checkpoint that is kept must be of the same history, with its partial tiles; so
       must every checkpoint that a witness or a time stamping authority has signed as well.
    6. Every other object of the log is either a leftover of a crash (a note, its content checked
       as far as the tree reaches) or does not belong there.

A log without its body key is checked without step 2's bodies. What cannot be found from one
store alone is a rollback of everything at once: give `at_least` (a witness, another store).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from modelkeep.core.errors import IntegrityError, KeepError, MissingError
from modelkeep.core.limits import FINDINGS_MAX
from modelkeep.core.verdict import Finding, Severity
from modelkeep.crypto.secret import Secret
from modelkeep.ledger.beside import Beside, parsed_beside
from modelkeep.ledger.checkpoint import Checkpoint
from modelkeep.ledger.entry import CommittedBody, opened_bodies
from modelkeep.ledger.log import LogReader
from modelkeep.ledger.stamp import STAMP_BYTES_MAX, checkpoint_beside
from modelkeep.ledger.tiles import (
    Place,
    checkpoint_name,
    parsed_checkpoint_size,
    parsed_entry_bundle,
    parsed_place,
    parsed_tile,
    partial_places,
    place_name,
    width_at,
)
from modelkeep.ledger.tree import (
    TILE_WIDTH,
    Edge,
    leaf_hash,
    level_count,
    levels_of,
    root_of,
)
from modelkeep.ports.store import Store

T = TypeVar("T")
Hashes = Sequence[bytes]

_ATTEMPTS = 3
# Differences that are told of one object; a bundle that is all wrong must not hide the next one.
_DIFFERENCES_MAX = 4


@dataclass(frozen=True, slots=True)
class LogReport:
    """What a verification found.

    Attributes:
        size: entries under the checkpoint that counts.
        objects: how many objects were read.
        findings: at most FINDINGS_MAX, and as many notes (leftovers that a crash may leave).
        findings_total: how many there were.
    """

    origin: str
    size: int
    root: bytes
    objects: int
    bodies_checked: bool
    findings: tuple[Finding, ...]
    findings_total: int

    @property
    def is_whole(self) -> bool:
        """Whether nothing but notes was found."""
        return all(finding.severity is Severity.NOTE for finding in self.findings)


def verified_log(
    store: Store,
    *,
    origin: str,
    public: bytes,
    body_key: Secret | None,
    at_least: Checkpoint | None = None,
) -> LogReport:
    """Read every object of a log and say exactly what is not as it was signed.

    Args:
        at_least: a checkpoint seen elsewhere; the log must have it in its history.

    Raises:
        MissingError: `ledger.none`, when there is no checkpoint, valid or not.
        IntegrityError: `ledger.checkpoint`, when there are some and none is valid.
        UnavailableError: `store.read`.
    """
    log = LogReader(store, origin)
    for _ in range(_ATTEMPTS):
        report = _Verification(log, public, body_key).run(at_least)
        if report.is_whole or log.latest(public=public).size == report.size:
            break
        # The log grew while it was read: what is missing may only have been superseded.
    return report


def demand_whole(report: LogReport) -> None:
    """Go on only with a log in which nothing is damaged.

    Raises:
        IntegrityError: with the code of the first finding, located in its message.
    """
    for finding in report.findings:
        if finding.severity is not Severity.NOTE:
            raise IntegrityError(
                finding.rule,
                f"{finding.subject}: {finding.evidence}",
                hint="replace it from another store: `modelkeep ledger verify --repair`",
                object=finding.subject,
                findings=report.findings_total,
            )


class _Verification:
    """One walk over one log."""

    def __init__(self, log: LogReader, public: bytes, body_key: Secret | None) -> None:
        self._log = log
        self._public = public
        self._body_key = body_key
        self._findings: list[Finding] = []
        self._found = 0
        self._objects = 0
        self._size = 0
        self._root = b""

    def run(self, at_least: Checkpoint | None) -> LogReport:
        names = {stat.name for stat in self._log.store.list(self._log.prefix)}
        checkpoint = self._latest()
        self._size, self._root = checkpoint.size, checkpoint.root
        stored = self._upper_tiles()
        parents = self._full_bundles(stored)
        self._edge(stored, self._settled(stored, parents))
        self._history(names, at_least)
        self._others(names)
        return LogReport(
            origin=self._log.origin,
            size=self._size,
            root=self._root,
            objects=self._objects,
            bodies_checked=self._body_key is not None,
            findings=tuple(self._findings),
            findings_total=self._found,
        )

    # -- step 1 -------------------------------------------------------------------------------

    def _latest(self) -> Checkpoint:
        latest = self._log.latest(public=self._public)
        for finding in latest.skipped:
            self._report(finding)
        if latest.checkpoint is not None:
            self._objects += 1
            return latest.checkpoint
        if latest.sizes:
            raise IntegrityError(
                "ledger.checkpoint",
                f"{self._log.store.label}: none of {len(latest.sizes)} checkpoints of "
                f"{self._log.origin} is valid",
                hint="is it the right log, and the right key?",
            )
        raise MissingError(
            "ledger.none", f"{self._log.store.label} holds no log of {self._log.origin}"
        )

    # -- steps 2 and 3 ------------------------------------------------------------------------

    def _upper_tiles(self) -> dict[tuple[int, int], tuple[bytes, ...] | None]:
        """All tiles above level 0; None for one that cannot be read."""
        stored = {}
        for level in range(1, levels_of(self._size)):
            for index in range(-(-level_count(self._size, level) // TILE_WIDTH)):
                stored[level, index] = self._tile(level, index)
        return stored

    def _full_bundles(
        self, stored: dict[tuple[int, int], tuple[bytes, ...] | None]
    ) -> list[bytes | None]:
        """Check every full bundle; the root of each level-0 tile, where it is known."""
        parents: list[bytes | None] = []
        for index in range(self._size // TILE_WIDTH):
            above = stored.get((1, index // TILE_WIDTH))
            parent = above[index % TILE_WIDTH] if above is not None else None
            hashes = self._bundle(index, partial(_hashes_to, parent=parent))
            parents.append(root_of(hashes) if hashes is not None else None)
        return parents

    def _bundle(self, index: int, is_right: Callable[[Hashes], bool]) -> Hashes | None:
        """Check one bundle of entries, its tile and its bodies; its hashes, as far as believed."""
        width = width_at(self._size, 0, index)
        name = self._name("tile/entries", index)
        leaves = self._read(name, lambda: self._log.leaves(self._size, index=index))
        tile = self._tile(0, index)
        computed = [leaf_hash(leaf) for leaf in leaves] if leaves is not None else None
        believed: Hashes | None = tile if computed is None else computed
        if computed is not None and tile is not None and list(tile) != computed:
            tile_is_right, leaves_are_right = is_right(tile), is_right(computed)
            believed = tile if tile_is_right else computed
            if not leaves_are_right:
                self._differ("ledger.entry", name, index, expected=tile, got=computed)
            if not tile_is_right:
                subject = self._name("tile/0", index)
                self._differ("ledger.tile", subject, None, expected=computed, got=tile)
        self._bodies(index, width, believed)
        return believed

    def _bodies(self, index: int, width: int, hashes: Hashes | None) -> None:
        name = self._name("body", index)
        key = self._body_key
        if key is None:
            if self._log.store.stat(name) is None and self._is_needed(name):
                self._find("ledger.missing", name, "the object is missing")
            return
        bodies = self._read(name, lambda: self._log.bodies(self._size, index=index, body_key=key))
        if bodies is None:
            return
        for at in range(width):
            number = index * TILE_WIDTH + at
            got = leaf_hash(bodies[at].leaf)
            if hashes is not None and got != hashes[at]:
                self._find(
                    "ledger.body",
                    name,
                    f"entry {number}: the body is not what its leaf commits to: "
                    f"expected {hashes[at].hex()}, got {got.hex()}",
                )
            self._readable(name, number, bodies[at])

    def _readable(self, name: str, number: int, body: CommittedBody) -> None:
        try:
            body.entry()
        except IntegrityError as error:
            self._find("ledger.body", name, f"entry {number}: {error.message}")

    def _settled(
        self,
        stored: dict[tuple[int, int], tuple[bytes, ...] | None],
        parents: list[bytes | None],
    ) -> list[Hashes]:
        """Compare tiles above level 0 with what is below them; the partial ones, as believed."""
        edge: list[Hashes] = []
        for level in range(1, levels_of(self._size)):
            above: list[bytes | None] = []
            last: Hashes = ()
            for index in range(-(-len(parents) // TILE_WIDTH)):
                computed = parents[index * TILE_WIDTH : (index + 1) * TILE_WIDTH]
                tile = stored[level, index]
                for at, (got, wanted) in enumerate(zip(tile or (), computed, strict=False)):
                    if wanted is not None and got != wanted:
                        name = self._name(f"tile/{level}", index)
                        self._difference("ledger.tile", name, f"hash {at}", wanted, got)
                believed = [
                    wanted if wanted is not None else (tile[at] if tile is not None else b"")
                    for at, wanted in enumerate(computed)
                ]
                if len(believed) < TILE_WIDTH:
                    last = believed
                else:
                    above.append(root_of(believed) if all(believed) else None)
            edge.append(last)
            parents = above
        return edge

    # -- step 4 -------------------------------------------------------------------------------

    def _edge(
        self,
        stored: dict[tuple[int, int], tuple[bytes, ...] | None],
        partials: list[Hashes],
    ) -> None:
        index, width = divmod(self._size, TILE_WIDTH)

        def is_right(row: Hashes) -> bool:
            return Edge(self._size, [row, *partials]).root() == self._root

        first: Hashes | None = self._bundle(index, is_right) if width else ()
        if first is not None and not is_right(first) and not self._is_damaged():
            got = Edge(self._size, [first, *partials]).root()
            name = checkpoint_name(self._log.prefix, self._size)
            self._difference("ledger.root", name, "root", self._root, got)
        if stored and None in stored.values() and not self._is_damaged():
            raise AssertionError("a tile that cannot be read is a finding")

    # -- step 5 -------------------------------------------------------------------------------

    def _history(self, names: set[str], at_least: Checkpoint | None) -> None:
        prefix = self._log.prefix
        sizes = sorted(
            size for name in names if (size := parsed_checkpoint_size(prefix, name)) is not None
        )
        for size in sizes:
            if size >= self._size:
                continue  # the one that counts, or skipped above it and reported
            name = checkpoint_name(prefix, size)
            older = self._read(name, partial(self._log.checkpoint, size, public=self._public))
            if older is not None:
                self._same_history(older, name)
                self._partials_of(older, names)
        if at_least is not None:
            self._contained(at_least, checkpoint_name(prefix, at_least.size))

    def _contained(self, seen: Checkpoint, name: str) -> None:
        """A checkpoint that somebody else has seen must be in the history."""
        if seen.size > self._size:
            self._find(
                "ledger.rollback",
                name,
                f"expected at least {seen.size} entries, got {self._size}",
            )
        else:
            self._same_history(seen, name)

    def _signed_elsewhere(self, name: str, beside: Beside) -> None:
        raw = self._read(
            name,
            lambda: self._log.store.get(name, length=STAMP_BYTES_MAX + 1),
            may_vanish=True,
        )
        if raw is None:
            return
        check = partial(
            checkpoint_beside, raw, beside, origin=self._log.origin, public=self._public
        )
        seen = self._read(name, check)
        if seen is not None:
            self._contained(seen, name)

    def _same_history(self, older: Checkpoint, name: str) -> None:
        if self._is_damaged():
            return  # roots of damaged tiles would accuse the innocent
        got = self._log.range_root(self._size)(0, older.size)
        if got != older.root:
            self._difference("ledger.fork", name, f"root of {older.size}", older.root, got)

    def _partials_of(self, older: Checkpoint, names: set[str]) -> None:
        for place in partial_places(older.size):
            name = place_name(self._log.prefix, place)
            full = place_name(self._log.prefix, Place(place.kind, place.index, TILE_WIDTH))
            if name in names or full in names:
                continue
            if self._log.store.stat(checkpoint_name(self._log.prefix, older.size)) is not None:
                self._find(
                    "ledger.missing", name, f"checkpoint {older.size} needs it, and it is missing"
                )

    # -- step 6 -------------------------------------------------------------------------------

    def _others(self, names: set[str]) -> None:
        needed = set(partial_places(self._size))
        for name in sorted(names):
            place = parsed_place(self._log.prefix, name)
            if place is None:
                beside = parsed_beside(self._log.prefix, name)
                if beside is not None:
                    self._signed_elsewhere(name, beside)
                elif parsed_checkpoint_size(self._log.prefix, name) is None:
                    self._find("ledger.stray", name, "the object does not belong to a log")
                continue
            count = level_count(self._size, max(place.level, 0))
            if place.index * TILE_WIDTH + place.width > count:
                self._find(
                    "ledger.beyond",
                    name,
                    f"lies beyond checkpoint {self._size}; the next checkpoint will cover it",
                    severity=Severity.NOTE,
                )
            elif place.is_partial and place not in needed:
                self._superseded(name, place)

    def _superseded(self, name: str, place: Place) -> None:
        """A partial object of an older checkpoint must be the beginning of what replaced it."""
        raw = self._read(name, lambda: self._log.store.get(name), may_vanish=True)
        if raw is None or self._is_damaged(kind=place.kind, index=place.index):
            return
        now: tuple[object, ...]
        got: tuple[object, ...] | None
        if place.kind == "tile/entries":
            now = self._log.leaves(self._size, index=place.index)
            got = self._read(name, lambda: parsed_entry_bundle(raw, width=place.width, name=name))
        elif place.kind == "body":
            key = self._body_key
            if key is None:
                return
            now = self._log.bodies(self._size, index=place.index, body_key=key)
            prefix = self._log.prefix
            got = self._read(
                name, lambda: opened_bodies(raw, prefix=prefix, place=place, body_key=key)
            )
        else:
            now = self._log.hashes(self._size, level=place.level, index=place.index)
            got = self._read(name, lambda: parsed_tile(raw, width=place.width, name=name))
        for at, (before, after) in enumerate(zip(got or (), now, strict=False)):
            if before != after:
                self._find("ledger.tile", name, f"place {at} differs from what superseded it")

    # -- reading and reporting ----------------------------------------------------------------

    def _tile(self, level: int, index: int) -> tuple[bytes, ...] | None:
        name = self._name(f"tile/{level}", index)
        return self._read(name, lambda: self._log.hashes(self._size, level=level, index=index))

    def _read(self, name: str, read: Callable[[], T], *, may_vanish: bool = False) -> T | None:
        """Read an object; what is wrong with it becomes a finding."""
        self._objects += 1
        try:
            return read()
        except MissingError:
            if not may_vanish and self._is_needed(name):
                self._find("ledger.missing", name, "the object is missing")
        except IntegrityError as error:
            self._find(_rule(error), name, error.message)
        return None

    def _is_needed(self, name: str) -> bool:
        """Whether a missing object is still needed: an older checkpoint may be gone by now."""
        size = parsed_checkpoint_size(self._log.prefix, name)
        return size is None or size == self._size

    def _name(self, kind: str, index: int) -> str:
        level = max(Place(kind, index, TILE_WIDTH).level, 0)
        place = Place(kind, index, width_at(self._size, level, index))
        return place_name(self._log.prefix, place)

    def _differ(
        self, rule: str, name: str, bundle: int | None, *, expected: Hashes, got: Hashes
    ) -> None:
        pairs = enumerate(zip(expected, got, strict=True))
        wrong = [(at, wanted, here) for at, (wanted, here) in pairs if wanted != here]
        for at, wanted, here in wrong[:_DIFFERENCES_MAX]:
            where = f"hash {at}" if bundle is None else f"entry {bundle * TILE_WIDTH + at}"
            self._difference(rule, name, where, wanted, here)
        if len(wrong) > _DIFFERENCES_MAX:
            self._find(rule, name, f"{len(wrong)} places differ in all")

    def _difference(self, rule: str, name: str, where: str, expected: bytes, got: bytes) -> None:
        self._find(rule, name, f"{where}: expected {expected.hex()}, got {got.hex()}")

    def _find(
        self, rule: str, name: str, evidence: str, *, severity: Severity = Severity.HIGH
    ) -> None:
        self._report(Finding(rule=rule, severity=severity, subject=name, evidence=evidence))

    def _report(self, finding: Finding) -> None:
        """Keep a finding; notes never crowd out damage."""
        self._found += 1
        is_note = finding.severity is Severity.NOTE
        same = sum((each.severity is Severity.NOTE) == is_note for each in self._findings)
        if same < FINDINGS_MAX:
            self._findings.append(finding)

    def _is_damaged(self, *, kind: str = "", index: int = -1) -> bool:
        """Whether damage was found at all, or in one tile or bundle."""
        name = self._name(kind, index) if kind else ""
        return any(
            finding.severity is not Severity.NOTE and (not name or finding.subject == name)
            for finding in self._findings
            if parsed_checkpoint_size(self._log.prefix, finding.subject) is None
        )


def _hashes_to(row: Hashes, *, parent: bytes | None) -> bool:
    return root_of(row) == parent


def _rule(error: KeepError) -> str:
    return error.code if error.code.startswith("ledger.") else "ledger.body"
