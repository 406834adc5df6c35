"""RFC 3161 time stamps on checkpoints: an authority says that a tree existed at some time.

newest checkpoint -> the authority's answer, verified -> the stamp beside it in every store -> entry
A stamp holds the note that it stamps, so it proves its time when the checkpoint itself is long
superseded. It says nothing about what came later, and nothing about what else was signed: that is
what witnesses are for.
"""

from __future__ import annotations

from collections.abc import Mapping

from modelkeep.core.errors import IntegrityError, KeepError, UnavailableError
from modelkeep.core.instant import NS_PER_S, rfc3339
from modelkeep.core.record import Record
from modelkeep.core.verdict import Finding, Severity
from modelkeep.crypto.signatures import Signer
from modelkeep.flows.history import log_access
from modelkeep.flows.keep import OpenKeep, record
from modelkeep.flows.ledger_read import latest_checkpoint
from modelkeep.ledger.beside import TIMESTAMP, Beside, beside_name, parsed_beside
from modelkeep.ledger.cosignature import bare_note
from modelkeep.ledger.log import LogReader
from modelkeep.ledger.stamp import (
    STAMP_BYTES_MAX,
    Stamp,
    author_of,
    checkpoint_beside,
    parsed_stamp,
    stamp_bytes,
)
from modelkeep.ports.store import Store
from modelkeep.ports.timestamp import TimestampAuthority


class Stamped(Record, frozen=True):
    """A checkpoint whose time is stated by an authority.

    Attributes:
        at_ns: the instant that it states; 0 when nobody here can verify it.
        object: name of the stamp; in which store says `store`.
    """

    origin: str
    size: int
    authority: str
    at_ns: int
    object: str
    store: str
    findings: tuple[Finding, ...] = ()


def timestamped(keep: OpenKeep, authority: TimestampAuthority) -> Stamped:
    """Have the newest checkpoint stamped, and keep the stamp in every store that answers.

    Raises:
        MissingError: `ledger.none`.
        UnavailableError: `timestamp.unavailable`, or of the first store.
        IntegrityError: `timestamp.bad`.
    """
    epoch = keep.epochs[-1]
    access = log_access(keep, epoch, keep.store)
    checkpoint = latest_checkpoint(access)
    note = bare_note(checkpoint.raw, origin=epoch.origin, public=access.public)
    answer = authority.stamped(note)
    at_ns = authority.stamped_ns(answer, note)
    at_s = keep.clock.now_ns() // NS_PER_S
    beside = Beside(TIMESTAMP, checkpoint.size, author_of(authority.url), at_s)
    name = beside_name(LogReader(keep.store, epoch.origin).prefix, beside)
    raw = stamp_bytes(Stamp(note=note.decode(), answer=answer, url=authority.url))
    keep.store.put(name, raw)
    for store in keep.stores[1:]:
        try:
            store.put(name, raw)
        except UnavailableError:
            continue  # one copy is enough: a stamp proves itself
    record(
        keep,
        "ledger.timestamped",
        {
            "origin": epoch.origin,
            "size": checkpoint.size,
            "authority": authority.url,
            "at_s": at_ns // NS_PER_S,
        },
    )
    return Stamped(
        origin=epoch.origin,
        size=checkpoint.size,
        authority=authority.url,
        at_ns=at_ns,
        object=name,
        store=keep.store.label,
    )


def stamps(keep: OpenKeep, authorities: Mapping[str, TimestampAuthority]) -> tuple[Stamped, ...]:
    """Verify every time stamp in every store; each object once, from the first store that has it.

    That the stamped trees are of our history, `ledger.verify` checks.

    Args:
        authorities: by URL; a stamp of another one is noted and not believed.
    """
    found: dict[str, Stamped] = {}
    for epoch in keep.epochs:
        for store in keep.stores:
            for name in _stamp_names(store, LogReader(store, epoch.origin).prefix):
                if name not in found:
                    try:
                        found[name] = _read(keep, epoch.origin, store, name, authorities)
                    except KeepError:
                        continue  # a verification of the store names it
    return tuple(found[name] for name in sorted(found))


def _stamp_names(store: Store, prefix: str) -> list[str]:
    try:
        return [stat.name for stat in store.list(f"{prefix}{TIMESTAMP}/")]
    except UnavailableError:
        return []


def _read(
    keep: OpenKeep,
    origin: str,
    store: Store,
    name: str,
    authorities: Mapping[str, TimestampAuthority],
) -> Stamped:
    beside = parsed_beside(LogReader(store, origin).prefix, name)
    raw = store.get(name, length=STAMP_BYTES_MAX + 1)
    if beside is None:
        raise IntegrityError("ledger.stamp", f"{name} names no time stamp")
    checkpoint_beside(raw, beside, origin=origin, public=Signer(keep.keys.ledger_seed).public)
    stamp = parsed_stamp(raw)
    at_ns, findings = _verified(stamp, name, authorities)
    return Stamped(
        origin=origin,
        size=beside.size,
        authority=stamp.url,
        at_ns=at_ns,
        object=name,
        store=store.label,
        findings=findings,
    )


def _verified(
    stamp: Stamp, name: str, authorities: Mapping[str, TimestampAuthority]
) -> tuple[int, tuple[Finding, ...]]:
    authority = authorities.get(stamp.url)
    try:
        if authority is not None:
            at_ns = authority.stamped_ns(stamp.answer, stamp.note.encode())
            evidence = f"existed at {rfc3339(at_ns)}, says {stamp.url}"
            return at_ns, (_finding(name, Severity.NOTE, evidence),)
    except IntegrityError as error:
        return 0, (_finding(name, Severity.HIGH, error.message),)
    evidence = f"{stamp.url} is not listed in [ledger.timestamp]: not verified"
    return 0, (_finding(name, Severity.NOTE, evidence),)


def _finding(name: str, severity: Severity, evidence: str) -> Finding:
    return Finding(rule="ledger.stamp", severity=severity, subject=name, evidence=evidence)
