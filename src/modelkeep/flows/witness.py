"""Being a witness: cosign another keep's log if it goes on from what was seen of it last.

    checkpoint, signed by the log's key -> the last that this keep cosigned of that log, from its
    own ledger -> not smaller, and consistent by a proof from the log's own tiles -> recorded here
    -> only then signed, and put beside the checkpoint

The rule is that of C2SP tlog-witness. What breaks it is refused for ever and recorded with both
notes: two signed heads of one log that no one tree holds are evidence against whoever signs it.
A tree that cannot be proven because its tiles are damaged or gone is refused too, but accuses
nobody. One keep is one witness: its lock makes checking and recording one step.
"""

from __future__ import annotations

from modelkeep.core.entry import Fact
from modelkeep.core.errors import IntegrityError, MissingError
from modelkeep.core.instant import NS_PER_S
from modelkeep.core.record import Record
from modelkeep.crypto.hierarchy import KeepKeys
from modelkeep.crypto.kdf import derived_key
from modelkeep.crypto.signatures import Signer
from modelkeep.flows.keep import OpenKeep, record
from modelkeep.flows.ledger_find import newest_first
from modelkeep.ledger.beside import COSIGNATURE, Beside, beside_name, parsed_beside
from modelkeep.ledger.checkpoint import Checkpoint, verified_checkpoint
from modelkeep.ledger.cosignature import Witness, bare_note, cosigned
from modelkeep.ledger.log import LogReader
from modelkeep.ledger.proof import consistency_proof, verify_consistency
from modelkeep.ports.store import Store

COSIGNED_ENTRY = "witness.cosigned"
REFUSED_ENTRY = "witness.refused"
# Cosignatures of one witness that stay in a store; the older ones say less than the newest.
COSIGNATURES_KEPT = 8


class Cosigned(Record, frozen=True):
    """What this keep witnessed.

    Attributes:
        root: hex.
        before: entries of the last checkpoint that it had cosigned; 0 for the first.
        witness: verifier key of this keep as a witness.
        note: the checkpoint with the log's signature and this keep's.
        object: name of the note in the log's store.
    """

    origin: str
    size: int
    root: str
    before: int
    at_s: int
    witness: str
    note: str
    object: str


def witness_of(keep_id: str, keys: KeepKeys) -> Witness:
    """This keep as a witness; its name and key outlive recoveries."""
    return Witness(f"modelkeep.invalid/{keep_id}/witness", _signer(keys).public)


def cosigned_log(keep: OpenKeep, store: Store, *, origin: str, public: bytes) -> Cosigned:
    """Cosign the newest checkpoint of a log in a store, and leave the note there.

    Raises:
        MissingError: `ledger.none`, when the store holds no valid checkpoint of the log.
        IntegrityError: `witness.rolled_back` or `witness.fork`, recorded with the evidence;
            `witness.unproven`, when the store's tiles do not even prove its own checkpoint.
        UnavailableError: of the store; run it again.
    """
    latest = LogReader(store, origin).latest(public=public)
    got = latest.checkpoint
    if got is None:
        raise MissingError("ledger.none", f"{store.label} holds no valid checkpoint of {origin}")
    seen = last_cosigned(keep, origin=origin, public=public)
    if seen is not None:
        _demand_goes_on(keep, LogReader(store, origin), seen=seen, got=got, public=public)
    at_s = keep.clock.now_ns() // NS_PER_S
    bare = bare_note(got.raw, origin=origin, public=public)
    if seen is None or got.size > seen.size:
        facts: dict[str, Fact] = {
            "origin": origin,
            "size": got.size,
            "root": got.root.hex(),
            "note": bare.decode(),
            "at_s": at_s,
        }
        record(keep, COSIGNED_ENTRY, facts)
    witness = witness_of(keep.keep_id, keep.keys)
    checkpoint = Checkpoint(origin, got.size, got.root, bare)
    note = cosigned(checkpoint, name=witness.name, signer=_signer(keep.keys), at_s=at_s)
    beside = Beside(COSIGNATURE, got.size, witness.key_id.hex(), at_s)
    name = _left(store, LogReader(store, origin).prefix, beside, note)
    return Cosigned(
        origin=origin,
        size=got.size,
        root=got.root.hex(),
        before=seen.size if seen is not None else 0,
        at_s=at_s,
        witness=witness.verifier_key,
        note=note.decode(),
        object=name,
    )


def last_cosigned(keep: OpenKeep, *, origin: str, public: bytes) -> Checkpoint | None:
    """The last checkpoint of a log that this keep cosigned; None for a log that is new to it.

    Raises:
        IntegrityError: `ledger.checkpoint`, when it was signed by another key than the one given:
            a log does not change its key.
    """
    for _, entry in newest_first(keep):
        if entry.kind == COSIGNED_ENTRY and entry.facts.get("origin") == origin:
            note = str(entry.facts.get("note", ""))
            return verified_checkpoint(note.encode(), origin=origin, public=public)
    return None


def _demand_goes_on(
    keep: OpenKeep, log: LogReader, *, seen: Checkpoint, got: Checkpoint, public: bytes
) -> None:
    if got.size < seen.size:
        _refuse(keep, "rolled_back", seen=seen, got=got, public=public)
        raise IntegrityError(
            "witness.rolled_back",
            f"{log.store.label} ends at {got.size} entries; this keep has witnessed {seen.size}",
            hint="a store that is only behind has a newer one beside it: cosign from that one",
            seen=seen.size,
            got=got.size,
        )
    if _proven_root(log, seen.size, got) != seen.root:
        _refuse(keep, "fork", seen=seen, got=got, public=public)
        raise IntegrityError(
            "witness.fork",
            f"{log.origin}: the {got.size} entries signed now do not begin with the {seen.size} "
            "that this keep has witnessed: two histories are signed by one key",
            hint="`modelkeep ledger find --kind witness.refused --json` has both signed notes",
            seen=seen.size,
            got=got.size,
        )


def _proven_root(log: LogReader, old: int, got: Checkpoint) -> bytes:
    """The root over the first `old` entries of a tree, proven from the tree's signed root."""
    try:
        range_root = log.range_root(got.size)
        root = range_root(0, old)
        proof = consistency_proof(old, size=got.size, range_root=range_root)
        verify_consistency(old=old, old_root=root, size=got.size, root=got.root, proof=proof)
    except (IntegrityError, MissingError) as error:
        raise IntegrityError(
            "witness.unproven",
            f"{log.store.label}: the tiles of checkpoint {got.size} do not prove it: "
            f"{error.message}",
            hint="`modelkeep ledger verify --repair` there, then ask again",
        ) from error
    return root


def _refuse(
    keep: OpenKeep, reason: str, *, seen: Checkpoint, got: Checkpoint, public: bytes
) -> None:
    """Record both notes, once for each pair."""
    notes = {
        "seen": bare_note(seen.raw, origin=seen.origin, public=public).decode(),
        "got": bare_note(got.raw, origin=got.origin, public=public).decode(),
    }
    for _, entry in newest_first(keep):
        if entry.kind == COSIGNED_ENTRY and entry.facts.get("origin") == got.origin:
            break
        if entry.kind == REFUSED_ENTRY and entry.facts.items() >= notes.items():
            return
    record(keep, REFUSED_ENTRY, {"origin": got.origin, "reason": reason, **notes})


def _left(store: Store, prefix: str, beside: Beside, note: bytes) -> str:
    """Put the note beside the checkpoint; this witness's oldest notes there make room."""
    name = beside_name(prefix, beside)
    store.put(name, note)
    own = [
        (found.at_s, stat.name)
        for stat in store.list(f"{prefix}{COSIGNATURE}/")
        if (found := parsed_beside(prefix, stat.name)) and found.author == beside.author
    ]
    for _, old in sorted(own)[:-COSIGNATURES_KEPT]:
        store.delete(old)
    return name


def _signer(keys: KeepKeys) -> Signer:
    """The witness's key is the ledger's own affair, and never the key that signs checkpoints."""
    return Signer(derived_key(keys.ledger_seed, "ledger-witness"))
