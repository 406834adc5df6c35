"""Verbs for strangers and witnesses: prove, verify-proof, consistency, cosign, timestamp."""

from __future__ import annotations

import argparse
from pathlib import Path

from modelkeep.cli.opened import opened
from modelkeep.cli.output import print_json, safe_text
from modelkeep.core.errors import MissingError, UsageError
from modelkeep.core.instant import NS_PER_S, rfc3339
from modelkeep.core.record import as_plain
from modelkeep.ledger.checkpoint import CHECKPOINT_BYTES_MAX
from modelkeep.ledger.proof_file import ProvenEntry, ProvenHistory, proof_bytes


def prove(options: argparse.Namespace) -> int:
    """Prove that one call or entry was recorded."""
    from modelkeep.flows.prove import record_facts  # noqa: PLC0415 - `verify-proof` need not load it

    with opened(options) as keep:
        proof, proven = keep.ledger.evidence.prove(options.what)
    raw = proof_bytes(proof)
    _save(options.output, raw)
    if options.json:
        print_json({**_entry_facts(proven), "tlog_proof": proof.tlog_proof, "proof": raw.decode()})
        return 0
    if proven.record is not None:
        print(f"{proven.receipt} was recorded and is proven:")
        print(safe_text(f"  record      {record_facts(proven.record)}"))
    print(f"  in the log  entry {proven.index}, body and inclusion verified")
    if options.output is None:
        print(proof.tlog_proof, end="")
    else:
        print(safe_text(f"the proof is in {options.output}: `modelkeep ledger verify-proof`"))
    return 0


def verify_proof(options: argparse.Namespace) -> int:
    """Check a proof with nothing but keys."""
    from modelkeep.sdk.evidence import read_proof, verified_proof  # noqa: PLC0415

    found = verified_proof(
        read_proof(options.file),
        keys=options.key,
        witnesses=options.witness,
        quorum=max(options.quorum, 0),
    )
    facts = _entry_facts(found) if isinstance(found, ProvenEntry) else _history_facts(found)
    if options.json:
        print_json(facts)
    else:
        print("the proof holds:")
        for name, value in facts.items():
            print(safe_text(f"  {name:<12} {value}"))
    return 0


def consistency(options: argparse.Namespace) -> int:
    """Prove that the log of an old checkpoint only grew."""
    try:
        with options.checkpoint.open("rb") as file:
            old = file.read(CHECKPOINT_BYTES_MAX + 1)
    except OSError as error:
        raise MissingError("file.missing", f"{options.checkpoint}: {error.strerror}") from error
    with opened(options) as keep:
        proof, proven = keep.ledger.evidence.consistency(old)
    raw = proof_bytes(proof)
    _save(options.output, raw)
    if options.json:
        print_json({**_history_facts(proven), "proof": raw.decode()})
    elif options.output is None:
        print(raw.decode(), end="")
    else:
        print(f"the first {proven.old.size} of {proven.new.size} entries are what they were")
    return 0


def cosign(options: argparse.Namespace) -> int:
    """Be a witness of another keep's log."""
    with opened(options) as keep:
        done = keep.ledger.evidence.cosign(options.store, key=options.key)
    _save(options.output, done.note.encode())
    if options.json:
        print_json(as_plain(done))
    else:
        grown = f"goes on from {done.before}" if done.before else "is the first seen of this log"
        print(safe_text(f"cosigned {done.origin} at {done.size} entries; it {grown}"))
        print(f"  witness key  {done.witness}")
    return 0


def timestamp(options: argparse.Namespace) -> int:
    """Have the newest checkpoint stamped by a time stamping authority."""
    with opened(options) as keep:
        done = keep.ledger.evidence.timestamp(options.tsa)
    if options.json:
        print_json(as_plain(done))
    else:
        print(safe_text(f"{done.size} entries existed at {rfc3339(done.at_ns)}: {done.authority}"))
    return 0


def _entry_facts(found: ProvenEntry) -> dict[str, object]:
    from modelkeep.flows.prove import record_facts  # noqa: PLC0415 - see above

    facts: dict[str, object] = {
        "origin": found.checkpoint.origin,
        "entry": found.index,
        "kind": found.entry.kind,
        "at": rfc3339(found.entry.at_ns),
        "actor": found.entry.actor,
        "facts": dict(found.entry.facts),
        "size": found.checkpoint.size,
        "cosigned": _cosigned(found),
    }
    if found.record is not None:
        facts = {"receipt": found.receipt, "record": record_facts(found.record), **facts}
    return facts


def _history_facts(found: ProvenHistory) -> dict[str, object]:
    return {
        "origin": found.new.origin,
        "old_size": found.old.size,
        "size": found.new.size,
        "cosigned": _cosigned(found),
    }


def _cosigned(found: ProvenEntry | ProvenHistory) -> list[str]:
    return [
        f"{each.witness.name} at {rfc3339(each.at_s * NS_PER_S)}" for each in found.cosignatures
    ]


def _save(path: Path | None, raw: bytes) -> None:
    """Write a new file, or none."""
    if path is None:
        return
    try:
        with path.open("xb") as file:
            file.write(raw)
    except FileExistsError:
        raise UsageError("output.exists", f"{path} exists", hint="name another file") from None
