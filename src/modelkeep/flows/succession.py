"""What a new version of a model takes over from the one before it."""

from __future__ import annotations

from modelkeep.core.artifact import Manifest
from modelkeep.core.errors import IntegrityError
from modelkeep.core.policy import ANYTHING, Policy
from modelkeep.seal.trust import VerifiedManifest


def policy_after(
    latest: VerifiedManifest | None, name: str, said: Policy | None, *, has_before: bool
) -> Policy:
    """What was said, or what the version before was under: nobody lifts a rule by not naming it.

    Raises:
        IntegrityError: `policy.before`.
    """
    if said is not None:
        return said
    if latest is None and has_before:
        raise IntegrityError(
            "policy.before",
            f"the latest version of {name} cannot be read, so its policy is not known",
            hint="`modelkeep check --repair`; or say which policy: --policy FILE, or none",
        )
    return ANYTHING if latest is None else latest.manifest.policy


def says_the_same(held: Manifest, wanted: Manifest) -> bool:
    """Whether a version would be the one that is there: its bytes, and what is signed with them.

    Canary, base and note count where they are given: nothing of that is dropped without a word.
    """
    return (
        (held.files, held.policy, held.card, held.marks)
        == (wanted.files, wanted.policy, wanted.card, wanted.marks)
        and wanted.canary in (None, held.canary)
        and wanted.base in ("", held.base)
        and wanted.note in ("", held.note)
    )
