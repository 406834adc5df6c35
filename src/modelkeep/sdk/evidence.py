"""What strangers can check: proofs that stand alone, witnesses of the log, time stamps on it.

`verified_proof` needs no keep: it is what a caller runs who was given a proof and a key.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from modelkeep.config import Config
from modelkeep.core.artifact import checked_model_name
from modelkeep.core.errors import IntegrityError, MissingError, RefusedError, UsageError
from modelkeep.core.instant import NS_PER_S, rfc3339
from modelkeep.core.record import Record
from modelkeep.core.verdict import Finding, Severity
from modelkeep.flows.history import log_access
from modelkeep.flows.keep import OpenKeep
from modelkeep.flows.ledger_read import latest_checkpoint
from modelkeep.flows.prove import (
    checked_entry,
    checked_history,
    cosigned_checkpoint,
    proven_at,
    proven_call,
    proven_growth,
)
from modelkeep.flows.timestamp import Stamped, stamps, timestamped
from modelkeep.flows.witness import Cosigned, cosigned_log, witness_of
from modelkeep.flows.witnessed import Seen, announce, quorum_size, witnessed
from modelkeep.ledger.checkpoint import parsed_verifier_key
from modelkeep.ledger.cosignature import Witness, parsed_witness
from modelkeep.ledger.proof_file import (
    POSITION_DIGITS_MAX,
    PROOF_BYTES_MAX,
    EntryProof,
    HistoryProof,
    ProvenEntry,
    ProvenHistory,
    parsed_proof,
    parsed_receipt,
    proven_entry,
    proven_history,
    proven_origin,
)
from modelkeep.ledger.settings import LedgerSettings
from modelkeep.ports.journal import Journal
from modelkeep.ports.store import Store
from modelkeep.ports.timestamp import TimestampAuthority
from modelkeep.wiring import KeepFolder, folder_store, open_journal, read_config


class WitnessReport(Record, frozen=True):
    """What others have seen of the log, and what follows.

    Attributes:
        size: entries of the newest log that the quorum has cosigned lately (without a quorum:
            that any witness has seen); tampering with these is found.
        covered_ns: when the last of them was recorded; 0 for none.
        findings: about the quorum; those of a witness are with it.
    """

    seen: tuple[Seen, ...]
    stamps: tuple[Stamped, ...]
    size: int
    covered_ns: int
    findings: tuple[Finding, ...]

    @property
    def is_whole(self) -> bool:
        """Whether every witness is content and the quorum, if one is asked for, is met."""
        stamped = [each for stamp in self.stamps for each in stamp.findings]
        is_quiet = not any(each.severity is Severity.HIGH for each in (*self.findings, *stamped))
        return is_quiet and all(each.is_whole for each in self.seen)


def verified_proof(
    raw: bytes, *, keys: Sequence[str], witnesses: Sequence[str] = (), quorum: int = 0
) -> ProvenEntry | ProvenHistory:
    """Check a proof file with nothing but keys; no keep, no network.

    Args:
        keys: verifier keys of logs; the one of the proof's log is chosen by its name.
        witnesses: verifier keys of witnesses whose cosignatures count.
        quorum: how many of them there must be.

    Raises:
        UsageError: `ledger.verifier_key`, or `ledger.key_of_other` when no key is the log's.
        IntegrityError: for whatever does not hold.
        RefusedError: `ledger.quorum`.
    """
    proof = parsed_proof(raw)
    known = dict(parsed_verifier_key(key) for key in keys)
    trusted = [parsed_witness(each) for each in witnesses]
    origin = proven_origin(proof)
    public = known.get(origin)
    if public is None:
        raise UsageError(
            "ledger.key_of_other",
            f"the proof is of the log {origin[:200]!r}, and no key given is that log's",
            hint="ask the log's owner for `modelkeep ledger key`",
        )
    found: ProvenEntry | ProvenHistory
    if isinstance(proof, EntryProof):
        found = proven_entry(proof, origin=origin, public=public, witnesses=trusted)
    else:
        found = proven_history(proof, origin=origin, public=public, witnesses=trusted)
    count = len({each.witness.public for each in found.cosignatures})  # names are not counted
    if count < quorum:
        raise RefusedError(
            "ledger.quorum",
            f"{count} of the witnesses have cosigned it, not {quorum}",
            hint="the proof holds; whoever signs the log may have shown others another history",
        )
    return found


class Evidence:
    """Proofs, witnesses and time stamps of an open keep."""

    def __init__(self, keep: OpenKeep, folder: KeepFolder) -> None:
        self._open = keep
        self._folder = folder

    # -- proofs -------------------------------------------------------------------------------

    def prove(self, what: str) -> tuple[EntryProof, ProvenEntry]:
        """Prove a call by its receipt, or an entry by its index.

        Raises:
            UsageError: `receipt.form`.
            MissingError: `receipt.unknown`, `receipt.gone`, `ledger.no_entry` and
                `ledger.unpublished`.
        """
        trusted = self._trusted()
        if what.isascii() and what.isdecimal() and len(what) <= POSITION_DIGITS_MAX:
            proof = proven_at(self._open, int(what), trusted=trusted)
        else:
            name, _ = parsed_receipt(what)
            checked_model_name(name)
            proof = proven_call(self._open, what, open_journal=self._journal, trusted=trusted)
        return proof, checked_entry(proof, self._open)

    def consistency(self, old: bytes) -> tuple[HistoryProof, ProvenHistory]:
        """Prove that the log of an old checkpoint only grew to become the newest one."""
        proof = proven_growth(self._open, old, trusted=self._trusted())
        return proof, checked_history(proof, self._open)

    # -- witnesses ----------------------------------------------------------------------------

    def witness_key(self) -> str:
        """This keep's key as a witness, for [ledger.witness] of those who trust it."""
        return witness_of(self._open.keep_id, self._open.keys).verifier_key

    def cosign(self, store: str | Path, *, key: str) -> Cosigned:
        """Be a witness: cosign the newest checkpoint of another keep's log in its store.

        Args:
            store: the folder of a store of that keep.
            key: verifier key of its log.

        Raises:
            MissingError: `ledger.none`.
            IntegrityError: `witness.rolled_back`, `witness.fork` or `witness.unproven`.
        """
        origin, public = parsed_verifier_key(key)
        there = folder_store(Path(store), str(store), self._folder.world.disk)
        return cosigned_log(self._open, there, origin=origin, public=public)

    def cosigned_checkpoint(self) -> bytes:
        """The newest checkpoint that a trusted witness has cosigned, as one signed note.

        Raises:
            MissingError: `ledger.not_witnessed`.
        """
        return cosigned_checkpoint(self._open, self._trusted())

    def witnessed(self) -> WitnessReport:
        """Compare every log with what every witness holds of it; judge quorum and time stamps."""
        settings = self._settings().witness
        seen = witnessed(self._open, trusted=self._trusted(), abroad=self._abroad())
        origin, now_s = self._open.origin, self._open.clock.now_ns() // NS_PER_S
        findings: list[Finding] = []
        if settings.quorum:
            since_s = now_s - int(settings.age_s_max)
            size = quorum_size(seen, origin=origin, quorum=settings.quorum, since_s=since_s)
            if size < 0:
                findings.append(_unmet(settings.quorum, since_s, seen))
        else:
            size = max((each.size for each in seen if each.origin == origin), default=0)
        covered = self._open.epochs[-1].base + size - 1 if size > 0 else -1
        entries = self._open.history(covered) if covered >= 0 else iter(())
        return WitnessReport(
            seen=seen,
            stamps=stamps(self._open, self._authorities()),
            size=max(size, 0),
            covered_ns=next((entry.at_ns for _, entry in entries), 0),
            findings=tuple(findings),
        )

    def announce(self, label: str) -> None:
        """Say that a store that witnesses is new and may be written to: put a checkpoint there.

        Raises:
            UsageError: `witness.unlisted`.
            MissingError: `ledger.none`.
            UnavailableError: of the store.
        """
        for store in self._abroad():
            if store.label == label:
                access = log_access(self._open, self._open.epochs[-1], self._open.store)
                announce(store, latest_checkpoint(access))
                return
        raise UsageError(
            "witness.unlisted",
            f"{label[:200]!r} is no store that modelkeep.toml lists as a witness",
            hint="[[ledger.witness.stores]] label and path",
        )

    # -- time stamps --------------------------------------------------------------------------

    def timestamp(self, url: str) -> Stamped:
        """Have the newest checkpoint stamped by a listed authority.

        Raises:
            RefusedError: `timestamp.unlisted`.
            UnavailableError: `timestamp.unavailable`.
            IntegrityError: `timestamp.bad`.
        """
        authority = self._authorities().get(url)
        if authority is None:
            raise RefusedError(
                "timestamp.unlisted",
                f"{url[:200]!r} is no authority that modelkeep.toml lists",
                hint="[ledger.timestamp] urls, and roots: a PEM file of their root certificates",
            )
        return timestamped(self._open, authority)

    def _authorities(self) -> dict[str, TimestampAuthority]:
        settings = self._settings().timestamp
        if not settings.urls:
            return {}
        from modelkeep.adapters.timestamp_rfc3161 import (  # noqa: PLC0415 - needed here only
            HttpTimestampAuthority,
        )

        path = self._folder.path / settings.roots
        try:
            pem = path.read_bytes()
        except OSError as error:
            raise MissingError(
                "timestamp.roots",
                f"cannot read [ledger.timestamp] roots {path}: {error.strerror}",
                hint="a PEM file with the authority's root certificate",
            ) from error
        return {
            url: HttpTimestampAuthority(url, roots_pem=pem, wait_s=settings.wait_s_max)
            for url in settings.urls
        }

    # -- what modelkeep.toml says -------------------------------------------------------------

    def _config(self) -> Config:
        return read_config(self._folder)[0]

    def _settings(self) -> LedgerSettings:
        return self._config().ledger

    def _trusted(self) -> tuple[Witness, ...]:
        return tuple(parsed_witness(key) for key in self._settings().witness.keys)

    def _abroad(self) -> tuple[Store, ...]:
        return tuple(
            folder_store(self._folder.path / each.path, each.label, self._folder.world.disk)
            for each in self._settings().witness.stores
        )

    def _journal(self, name: str) -> Journal:
        folder = self._folder.journals_folder / name
        return open_journal(folder, writable=False, disk=self._folder.world.disk)


def read_proof(path: Path) -> bytes:
    """A proof file's bytes.

    Raises:
        MissingError: `file.missing`.
        IntegrityError: `ledger.proof_file`.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(PROOF_BYTES_MAX + 1)
    except OSError as error:
        raise MissingError("file.missing", f"{path}: {error.strerror}") from error
    if len(raw) > PROOF_BYTES_MAX:
        raise IntegrityError("ledger.proof_file", f"{path} is too long for a proof")
    return raw


def _unmet(quorum: int, since_s: int, seen: Sequence[Seen]) -> Finding:
    last = max((each.at_s for each in seen), default=0)
    since = rfc3339(since_s * NS_PER_S)
    when = f"the last cosignature is of {rfc3339(last * NS_PER_S)}" if last else "there is none"
    return Finding(
        rule="ledger.quorum",
        severity=Severity.HIGH,
        subject="ledger.witness",
        evidence=f"fewer than {quorum} witnesses have cosigned since {since}; {when}",
    )
