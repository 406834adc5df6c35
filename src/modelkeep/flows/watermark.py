"""Registering watermarks before a release, and claiming them afterwards.

    new      seed = HKDF(ledger's signing seed, "watermark/" mark)   never stored, never shown
             ledger: watermark.registered (commitment, parameters)   -> checkpoint -> witnesses
    release  the manifest names the mark; model.admitted comes after watermark.registered
    claim    reading -> ledger: watermark.claimed -> claim file: seed, proof of the registration
    check    proof -> entry -> commitment -> suspect read again -> corrected p-value

A derived seed survives every recovery, as the ledger's own key does, and there is nothing to lose
or to choose: another seed needs another id, and every id is in the ledger. A claim shows the seed
of its own mark; nothing else can be derived from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from modelkeep.core.errors import IntegrityError, KeepError, MissingError, UsageError
from modelkeep.core.instant import NS_PER_S, rfc3339
from modelkeep.core.record import replaced
from modelkeep.crypto.kdf import derived_key
from modelkeep.crypto.secret import Secret
from modelkeep.crypto.signatures import Signer
from modelkeep.flows.history import log_access
from modelkeep.flows.keep import LogEpoch, OpenKeep, record, replay
from modelkeep.flows.ledger_find import found
from modelkeep.flows.ledger_read import latest_checkpoint
from modelkeep.flows.prove import proven_at
from modelkeep.flows.witnessed import cosignature_names
from modelkeep.ledger.checkpoint import CHECKPOINT_BYTES_MAX, verified_checkpoint
from modelkeep.ledger.cosignature import Witness, verified_cosignatures
from modelkeep.ledger.find import Query
from modelkeep.ledger.log import LogReader
from modelkeep.ledger.proof import inclusion_proof, proof_text
from modelkeep.ledger.proof_file import (
    EntryProof,
    ProvenEntry,
    parsed_proof,
    proof_bytes,
    proven_entry,
    proven_origin,
)
from modelkeep.seal.marks import (
    CLAIMED,
    REGISTERED,
    TRIES_LOG2_MIN,
    Claim,
    Judgement,
    Reading,
    Registration,
    checked_mark,
    checked_method,
    commitment_of,
    corrected,
    demand_committed,
    judged,
    registration_facts,
    registration_in,
)


@dataclass(frozen=True, slots=True)
class Registered:
    """A registration and where it stands.

    Attributes:
        index: of its entry, over all logs of the keep.
        at_ns: when, by the ledger's own clock.
    """

    index: int
    at_ns: int
    registration: Registration

    @property
    def mark(self) -> str:
        """Its id."""
        return self.registration.mark


@dataclass(frozen=True, slots=True)
class CheckedClaim:
    """What a claim came to when it was checked with nothing but keys.

    Attributes:
        judgement: its p-value is corrected by all entries that stand in the log up to the
            registration: as many could have been registrations, and nobody need be believed.
        index: of the registration in its log.
        registered_ns: by the log's own clock.
        witnessed_ns: by which a trusted witness had seen it; 0 if none has.
        is_model: whether a model was read or asked. Answers and texts are different: whoever has
            the seed can write or pick them, at no price.
    """

    judgement: Judgement
    registration: Registration
    origin: str
    index: int
    registered_ns: int
    witnessed_ns: int
    is_model: bool

    @property
    def is_beyond_trial(self) -> bool:
        """Whether so unlikely a reading of somebody else's suspect takes more than can be tried."""
        return self.is_model and self.judgement.tries_log2 >= TRIES_LOG2_MIN


def seed_of(keep: OpenKeep, mark: str) -> Secret:
    """The 32 bytes that a mark is drawn from."""
    return derived_key(keep.keys.ledger_seed, f"watermark/{checked_mark(mark)}")


def registered_new(
    keep: OpenKeep, mark: str, method: str, parameters: str, *, model: str = ""
) -> Registered:
    """Register a mark, once and for ever under its id; do it before anybody sees the model.

    Args:
        parameters: everything beside the seed that decides how a suspect is read, as JSON.

    Raises:
        UsageError: `mark.name`, `mark.method` or `mark.exists`.
    """
    checked_mark(mark)
    checked_method(method)
    known = registrations(keep)
    if any(each.mark == mark for each in known):
        raise UsageError(
            "mark.exists",
            f"a mark {mark} is registered already, and a registration does not change",
            hint="choose another id; `modelkeep watermark list` shows those that are taken",
        )
    registration = Registration(
        mark=mark,
        method=method,
        parameters=parameters,
        commitment=commitment_of(mark, method, parameters, seed_of(keep, mark).reveal()),
        ordinal=len(known) + 1,
        model=model,
    )
    index = record(keep, REGISTERED, registration_facts(registration))
    at_ns = next(entry.at_ns for _, entry in keep.history(index))
    return Registered(index, at_ns, registration)


def registrations(keep: OpenKeep) -> tuple[Registered, ...]:
    """Every mark of the keep, in the order of registration; reads the whole ledger."""
    replay(keep)
    return tuple(
        Registered(index, entry.at_ns, registration_in(entry))
        for index, entry in found(keep, Query(kind=REGISTERED))
        if entry.kind == REGISTERED
    )


def registered(
    keep: OpenKeep, mark: str, *, method: str = "", among: Sequence[Registered] | None = None
) -> Registered:
    """One mark, whose seed is proven to be the one that was committed to.

    Args:
        among: the keep's `registrations`, where they are known.

    Raises:
        MissingError: `mark.unknown`.
        UsageError: `mark.method`, when it is not of the method that is asked for.
        IntegrityError: `mark.commitment`.
    """
    for each in registrations(keep) if among is None else among:
        if each.mark == checked_mark(mark):
            if method and each.registration.method != method:
                raise UsageError(
                    "mark.method", f"{mark} is of the method {each.registration.method}"
                )
            demand_committed(each.registration, seed_of(keep, mark).reveal())
            return each
    raise MissingError(
        "mark.unknown",
        f"no mark {mark[:120]!r} is registered",
        hint="`modelkeep watermark list` shows them, `modelkeep watermark new` registers one",
    )


def claimed(
    keep: OpenKeep,
    mark: Registered,
    reading: Reading,
    *,
    tests: int,
    suspect: str,
    trusted: Sequence[Witness] = (),
    checkpoint: bytes | None = None,
) -> Claim:
    """Claim that a suspect carries a mark; the ledger knows, and the seed is shown from now on.

    Args:
        tests: how many marks might have been read.
        suspect: digest of what was examined.
        trusted: witnesses; the proof leads to the earliest checkpoint that one of them has seen.
        checkpoint: a note that others have had for longer, to prove it against instead.

    Raises:
        MissingError: `ledger.unpublished`, while the registration is under no checkpoint.
        UsageError: `mark.checkpoint`, when that note does not cover the registration.
    """
    proof = _early_proof(keep, mark.index, trusted, checkpoint)
    record(
        keep,
        CLAIMED,
        {
            "mark": mark.mark,
            "method": mark.registration.method,
            "p_value": corrected(reading, tests),
            "suspect": suspect,
        },
    )
    return Claim(
        seed=seed_of(keep, mark.mark).reveal(),
        suspect=suspect,
        reading=reading,
        proof=proof_bytes(proof).decode(),
    )


def opened_claim(
    claim: Claim, *, logs: dict[str, bytes], witnesses: Sequence[Witness] = ()
) -> tuple[Registration, ProvenEntry]:
    """Steps 1 to 3 of checking a claim (`seal.marks`); what comes back is proven.

    Args:
        logs: public keys of logs by their origins.

    Raises:
        UsageError: `ledger.key_of_other`, when the claim is of a log that none of the keys is of.
        IntegrityError: `mark.claim`, `mark.entry`, `mark.commitment`, `ledger.*`.
    """
    proof = parsed_proof(claim.proof.encode())
    if not isinstance(proof, EntryProof) or proof.receipt:
        raise IntegrityError("mark.claim", "the claim's proof is not one of an entry")
    origin = proven_origin(proof)
    if origin not in logs:
        raise UsageError(
            "ledger.key_of_other",
            f"the proof is of the log {origin[:200]!r}, and no key given is that log's",
            hint="ask the log's owner for `modelkeep ledger key`",
        )
    proven = proven_entry(proof, origin=origin, public=logs[origin], witnesses=witnesses)  # 1
    registration = registration_in(proven.entry)  # 2
    demand_committed(registration, claim.seed)  # 3
    return registration, proven


def checked_claim(
    claim: Claim,
    registration: Registration,
    proven: ProvenEntry,
    again: Reading,
    *,
    suspect: str,
    is_model: bool,
) -> CheckedClaim:
    """Steps 4 and 5: what the suspect gave when it was read again.

    Args:
        suspect: its digest.
        is_model: whether it is a model, which was read or asked.

    Raises:
        IntegrityError: `mark.suspect`, when another suspect was claimed; `mark.differs`, when it
            was read otherwise.
    """
    if claim.suspect != suspect:
        raise IntegrityError(
            "mark.suspect",
            "the claim is about another suspect than this",
            expected=claim.suspect,
            got=suspect,
        )
    if again != claim.reading:  # 4
        raise IntegrityError(
            "mark.differs",
            f"the claim says {claim.reading.hits} of {claim.reading.trials} hits; it is "
            f"{again.hits} of {again.trials}",
        )
    judgement = judged(registration, again, tests=proven.index + 1)  # 5
    seen_s = min((each.at_s for each in proven.cosignatures), default=0)
    return CheckedClaim(
        judgement=judgement,
        registration=registration,
        origin=proven.checkpoint.origin,
        index=proven.index,
        registered_ns=proven.entry.at_ns,
        witnessed_ns=seen_s * NS_PER_S,
        is_model=is_model,
    )


def demand_before(done: CheckedClaim, before_ns: int, *, is_witnessed: bool) -> None:
    """Go on only if the registration is older than the suspect.

    Args:
        is_witnessed: the log's own clock does not do.

    Raises:
        IntegrityError: `mark.priority`.
    """
    at_ns = done.witnessed_ns if is_witnessed else done.registered_ns
    if at_ns <= 0 or at_ns >= before_ns:
        when = f"was at {rfc3339(at_ns)}" if at_ns > 0 else "has been seen by none of the witnesses"
        raise IntegrityError(
            "mark.priority",
            f"the registration {when}, not before {rfc3339(before_ns)}",
            hint="a mark that was registered after a suspect appeared says nothing about it",
        )


def _early_proof(
    keep: OpenKeep, index: int, trusted: Sequence[Witness], checkpoint: bytes | None
) -> EntryProof:
    """A proof of an entry that leads to a checkpoint as old as can be had."""
    proof = proven_at(keep, index, trusted=trusted)
    epoch = next(each for each in reversed(keep.epochs) if each.base <= index)
    at = index - epoch.base
    note = checkpoint or _earliest_note(keep, epoch, at, trusted)
    if note is None:
        return proof
    public = Signer(keep.keys.ledger_seed).public
    early = verified_checkpoint(note, origin=epoch.origin, public=public)
    newest = latest_checkpoint(log_access(keep, epoch, keep.store))
    if not at < early.size <= newest.size:
        raise UsageError(
            "mark.checkpoint",
            f"a checkpoint of {early.size} entries does not cover entry {at}",
            hint="give one that was signed after the registration",
        )
    # A tree's nodes are those of every later tree as well, so the newest tiles prove the older.
    log = LogReader(keep.store, epoch.origin)
    path = inclusion_proof(at, size=early.size, range_root=log.range_root(newest.size))
    return replaced(proof, tlog_proof=proof_text(at, proof=path, checkpoint=early))


def _earliest_note(
    keep: OpenKeep, epoch: LogEpoch, at: int, trusted: Sequence[Witness]
) -> bytes | None:
    """The note over an entry that a trusted witness has seen first."""
    public = Signer(keep.keys.ledger_seed).public
    notes: list[tuple[int, bytes]] = []
    for store, name in cosignature_names(keep.stores, epoch.origin) if trusted else ():
        try:
            raw = store.get(name, length=CHECKPOINT_BYTES_MAX + 1)
            checkpoint, signed = verified_cosignatures(
                raw, origin=epoch.origin, public=public, witnesses=trusted
            )
        except KeepError:
            continue  # `ledger verify` names it
        if signed and at < checkpoint.size:
            notes.append((min(each.at_s for each in signed), raw))
    return min(notes)[1] if notes else None
