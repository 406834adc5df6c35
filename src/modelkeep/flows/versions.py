"""Versions as an operator lives with them: promoted, rolled back, deprecated, held.

A promotion moves an alias to a version that may be served, with the approval of others where
`[approvals]` asks for it. What they agree to names the version, the one before and the digest of
the manifest: it cannot be used for other bytes, nor after the alias has moved meanwhile. A rollback
goes back along what the alias named before, and nowhere else, so that it is no way around.
"""

from __future__ import annotations

from modelkeep.core.artifact import Manifest, ModelReference, checked_model_name, parsed_reference
from modelkeep.core.entry import Fact
from modelkeep.core.errors import MissingError, RefusedError, UsageError
from modelkeep.core.policy import Use
from modelkeep.core.record import Record, replaced
from modelkeep.core.rows import Alias, Deprecation, Hold
from modelkeep.flows.approvals import demand_approval
from modelkeep.flows.keep import OpenKeep, current_snapshot, record, record_damages
from modelkeep.flows.registry import DEFAULT_ALIAS, proof_of, resolved, set_alias
from modelkeep.flows.settings import ApprovalSettings
from modelkeep.flows.standing import (
    demand_not_ended,
    deprecation_text,
    standing_of,
    warnings_of,
)
from modelkeep.flows.traffic import traffic_ended, traffic_of
from modelkeep.seal.policy import demand_permitted
from modelkeep.seal.trust import VerifiedManifest

NOTE_CHARS_MAX = 1000


class Move(Record, frozen=True):
    """Where an alias is, and where it was.

    Attributes:
        previous: the version that it named before; 0 for none.
        digest: of the manifest of the version that it names now.
        is_new: whether it moved; it may have been there already.
        skipped: versions that a rollback passed over, with why.
        warnings: what whoever did this ought to hear.
    """

    model: str
    alias: str
    version: int
    previous: int
    digest: str
    is_new: bool
    skipped: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def promoted(
    keep: OpenKeep,
    reference: ModelReference,
    alias: str,
    *,
    approvals: ApprovalSettings,
    note: str = "",
    force: bool = False,
) -> Move:
    """Move an alias to a version that may be served; nothing happens if it is there already.

    Args:
        reference: names a version by its number, or by another alias.
        force: also one that is deprecated, until its end.

    Raises:
        UsageError: `promote.version`, `model.alias` or `version.note`.
        MissingError: `model.unknown`.
        RefusedError: `policy.use`, `policy.expired`, `version.ended`, `promote.deprecated` or
            `approval.needed`.
    """
    if not reference.selector:
        raise UsageError(
            "promote.version",
            f"{reference.name} does not say which version",
            hint=f"such as {reference.name}:3, or another alias",
        )
    _demand_note(note)
    proof = _proof(keep, reference)
    name, version = proof.manifest.name, proof.manifest.version
    row = _alias_row(keep, name, checked_alias(alias))
    _demand_servable(keep, proof.manifest)
    deprecation = standing_of(keep, name, version).deprecation
    if deprecation is not None and not force:
        raise RefusedError(
            "promote.deprecated",
            deprecation_text(deprecation, keep.clock.now_ns()),
            hint="promote another version, or give --force",
        )
    move = _move(keep, proof, alias, row)
    if move.is_new:
        _demand_move(keep, approvals, "models.promote", move)
        record(keep, "model.promoted", _facts(move, note))
        rule = traffic_of(keep, name)
        if rule is not None and rule.canary == version and alias == DEFAULT_ALIAS:
            traffic_ended(keep, name, reason="promoted")
    return move


def aliased(
    keep: OpenKeep, reference: ModelReference, alias: str, *, approvals: ApprovalSettings
) -> Move:
    """Point an alias at a version, unchecked; where promotions need approval, so does this.

    Raises:
        UsageError: `model.alias`.
        MissingError: `model.unknown`.
        RefusedError: `approval.needed`.
    """
    row = _alias_row(keep, reference.name, checked_alias(alias))
    proof = _proof(keep, reference)
    move = _move(keep, proof, alias, row)
    if move.is_new:
        _demand_move(keep, approvals, "models.promote", move)
        exactly = replaced(reference, selector=str(move.version))
        set_alias(keep, exactly, alias)
    return move


def rolled_back(
    keep: OpenKeep,
    name: str,
    alias: str,
    *,
    approvals: ApprovalSettings,
    to: int = 0,
    note: str = "",
) -> Move:
    """Move an alias back to what it named before.

    Versions that are gone, or cannot be served any more, are passed over.

    Args:
        to: one of the versions that it named before; 0 for the last one that can be served.

    Raises:
        MissingError: `rollback.alias`.
        UsageError: `model.alias` or `version.note`.
        RefusedError: `rollback.history`, `rollback.nowhere`, `policy.*`, `version.ended` or
            `approval.needed`.
    """
    _demand_note(note)
    row = _alias_row(keep, name, checked_alias(alias))
    if row is None:
        raise MissingError(
            "rollback.alias",
            f"there is no alias {name}:{alias}",
            hint=f"`modelkeep promote {name}:VERSION --to {alias}` makes it",
        )
    if to and to not in row.previous:
        raise RefusedError(
            "rollback.history",
            f"{name}:{alias} has not named version {to} before, as far as is remembered",
            hint=f"it named {', '.join(map(str, row.previous)) or 'no other'}; `modelkeep promote` "
            "moves it elsewhere",
        )
    proof, skipped = _way_back(keep, row, to)
    move = _move(keep, proof, alias, row, skipped=skipped)
    _demand_move(keep, approvals, "models.rollback", move)
    traffic_ended(keep, name, reason="rolled back")  # first: a canary is part of what went wrong
    record(keep, "model.rolled_back", _facts(move, note))
    return move


def deprecated(
    keep: OpenKeep,
    reference: ModelReference,
    *,
    until_ns: int = 0,
    replaced_by: str = "",
    note: str = "",
) -> Deprecation:
    """Say that a version should not be used any more. Saying the same again changes nothing.

    Args:
        until_ns: from when on no new start of the service takes it; 0 for never.
        replaced_by: the version to use; it must be there.

    Raises:
        UsageError: `version.alias_name`, `version.note` or `deprecate.self`.
        MissingError: `model.unknown`.
    """
    name, version = _numbered(keep, reference)
    _demand_note(note)
    instead = ""
    if replaced_by:
        other = parsed_reference(replaced_by)
        instead = f"{other.name}:{resolved(other, current_snapshot(keep), keep.state)}"
    if instead == f"{name}:{version}":
        raise UsageError("deprecate.self", f"{instead} cannot replace itself")
    facts: dict[str, Fact] = {
        "model": name,
        "version": version,
        "until_ns": until_ns,
        "replaced_by": instead,
        "note": note,
    }
    before = standing_of(keep, name, version).deprecation
    if before is None or any(getattr(before, key) != value for key, value in facts.items()):
        record(keep, "model.deprecated", facts)
    row = standing_of(keep, name, version).deprecation
    assert row is not None
    return row


def undeprecated(keep: OpenKeep, reference: ModelReference) -> bool:
    """Take a deprecation back; whether there was one.

    Raises:
        UsageError: `version.alias_name`.
        MissingError: `model.unknown`.
    """
    name, version = _numbered(keep, reference)
    if standing_of(keep, name, version).deprecation is None:
        return False
    record(keep, "model.undeprecated", {"model": name, "version": version})
    return True


def held(keep: OpenKeep, reference: ModelReference, *, note: str = "") -> Hold:
    """Say that a version must not go. Saying the same again changes nothing.

    Raises:
        UsageError: `version.alias_name` or `version.note`.
        MissingError: `model.unknown`.
    """
    name, version = _numbered(keep, reference)
    _demand_note(note)
    before = standing_of(keep, name, version).hold
    if before is None or before.note != note:
        record(keep, "model.held", {"model": name, "version": version, "note": note})
    row = standing_of(keep, name, version).hold
    assert row is not None
    return row


def unheld(keep: OpenKeep, reference: ModelReference, *, approvals: ApprovalSettings) -> bool:
    """Lift a hold; whether there was one.

    Raises:
        UsageError: `version.alias_name`.
        MissingError: `model.unknown`.
        RefusedError: `approval.needed`.
    """
    name, version = _numbered(keep, reference)
    row = standing_of(keep, name, version).hold
    if row is None:
        return False
    subject, details = f"{name}:{version}", {"held_ns": row.since_ns}
    demand_approval(keep, approvals, verb="models.unhold", subject=subject, details=details)
    record(keep, "model.unheld", {"model": name, "version": version})
    return True


def warnings_for(keep: OpenKeep, reference: str) -> tuple[str, ...]:
    """What whoever uses the version that a reference names ought to hear; mostly nothing.

    Raises:
        MissingError: `model.unknown`.
    """
    named = parsed_reference(reference)
    if all(row.model != named.name for row in keep.state.rows(Deprecation)):
        return ()
    version = resolved(named, current_snapshot(keep), keep.state)
    return warnings_of(keep, named.name, version)


def checked_alias(alias: str) -> str:
    """Accept what may name a version beside its number.

    Raises:
        UsageError: `model.alias` or `model.name`.
    """
    if alias.isdecimal():
        raise UsageError("model.alias", "an alias is not a number", hint="such as prod")
    return checked_model_name(alias)


def _proof(keep: OpenKeep, reference: ModelReference) -> VerifiedManifest:
    """The verified manifest of the version that a reference names now."""
    reader = keep.reader()
    snapshot = current_snapshot(keep, reader)
    version = resolved(reference, snapshot, keep.state)
    proof = proof_of(keep, reader, snapshot, name=reference.name, version=version)
    record_damages(keep, reader.damages)
    return proof


def _alias_row(keep: OpenKeep, name: str, alias: str) -> Alias | None:
    for row in keep.state.rows(Alias):
        if (row.model, row.alias) == (name, alias):
            return row
    return None


def _demand_servable(keep: OpenKeep, manifest: Manifest) -> None:
    """Go on only if a start of the service may take it; who and where is asked there, not here."""
    anybody = replaced(manifest.policy, loaders=(), hosts=())
    demand_permitted(
        replaced(manifest, policy=anybody),
        Use.SERVE,
        actor=keep.actor,
        now_ns=keep.clock.now_ns(),
    )
    demand_not_ended(keep, manifest.name, manifest.version)


def _way_back(keep: OpenKeep, row: Alias, to: int) -> tuple[VerifiedManifest, tuple[str, ...]]:
    """The version to go back to, and those that were passed over, with why.

    Raises:
        RefusedError: `rollback.nowhere`, or why the version that was asked for cannot be it.
    """
    skipped: list[str] = []
    for version in (to,) if to else dict.fromkeys(row.previous):
        if version == row.version:
            continue
        reference = ModelReference(name=row.model, selector=str(version))
        try:
            proof = _proof(keep, reference)
            _demand_servable(keep, proof.manifest)
        except (MissingError, RefusedError) as error:
            skipped.append(error.message)
            if to:
                raise
            continue
        return proof, tuple(skipped)
    raise RefusedError(
        "rollback.nowhere",
        f"{row.model}:{row.alias} names version {row.version} and can go back to none"
        + "".join(f"; {each}" for each in skipped),
        hint=f"`modelkeep promote {row.model}:VERSION --to {row.alias}`",
    )


def _move(
    keep: OpenKeep,
    proof: VerifiedManifest,
    alias: str,
    row: Alias | None,
    *,
    skipped: tuple[str, ...] = (),
) -> Move:
    name, version = proof.manifest.name, proof.manifest.version
    before = row.version if row is not None else 0
    return Move(
        model=name,
        alias=alias,
        version=version,
        previous=before,
        digest=proof.digest,
        is_new=before != version,
        skipped=skipped,
        warnings=warnings_of(keep, name, version),
    )


def _demand_move(keep: OpenKeep, approvals: ApprovalSettings, verb: str, move: Move) -> None:
    """Ask for approval of exactly this move, in words that the approvers can judge."""
    before = f", from {move.previous}" * bool(move.previous)
    said = f" ({'; '.join(move.warnings)})" if move.warnings else ""
    details: dict[str, Fact] = {
        "model": move.model,
        "alias": move.alias,
        "version": move.version,
        "previous": move.previous,
        "manifest": move.digest,
    }
    demand_approval(
        keep,
        approvals,
        verb=verb,
        subject=f"{move.model}:{move.alias} to version {move.version}{before}{said}",
        details=details,
    )


def _facts(move: Move, note: str) -> dict[str, Fact]:
    return {
        "model": move.model,
        "alias": move.alias,
        "version": move.version,
        "previous": move.previous,
        "manifest": move.digest,
        "note": note,
    }


def _numbered(keep: OpenKeep, reference: ModelReference) -> tuple[str, int]:
    """The version that a reference names by its number.

    Raises:
        UsageError: `version.alias_name`.
        MissingError: `model.unknown`.
    """
    if not reference.selector.isdecimal():
        raise UsageError(
            "version.alias_name",
            f"{reference} does not name a version by its number, which alone does not move",
            hint=f"`modelkeep versions {reference.name}` shows it",
        )
    return reference.name, resolved(reference, current_snapshot(keep), keep.state)


def _demand_note(note: str) -> None:
    if len(note) > NOTE_CHARS_MAX:
        raise UsageError("version.note", f"a note is at most {NOTE_CHARS_MAX} characters")
