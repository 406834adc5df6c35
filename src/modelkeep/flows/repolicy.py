"""Another policy for a version that is kept: the same bytes under a manifest of their own.

No chunk is read or written: a new manifest is signed over what the old one lists, and it becomes
the next version. The one before stays as it is, under its own policy, until it is retired.
"""

from __future__ import annotations

from modelkeep.core.artifact import Manifest, ModelReference
from modelkeep.core.errors import UnavailableError
from modelkeep.core.policy import Policy, demand_bounded
from modelkeep.core.record import replaced, to_json
from modelkeep.flows.approvals import demand_approval
from modelkeep.flows.deposit import entered
from modelkeep.flows.keep import OpenKeep, current_snapshot, record_damages
from modelkeep.flows.registry import held_version
from modelkeep.flows.settings import ApprovalSettings
from modelkeep.kernels.digest import digest_of
from modelkeep.vault.settings import VaultSettings


def repoliced(
    keep: OpenKeep,
    reference: ModelReference,
    policy: Policy,
    *,
    approvals: ApprovalSettings,
    vault: VaultSettings,
) -> tuple[Manifest, str, bool]:
    """Make the next version of a name: these bytes, under this policy.

    The policy of the version before is not asked: it binds who uses a model, and whoever may sign
    for the keep could admit the same file anew. `models.policy` in `[approvals]` asks others.

    Returns:
        The manifest, its digest, and whether it is new; a version that says so already stays.

    Raises:
        MissingError: `model.unknown`.
        RefusedError: `approval.needed`.
        UsageError: `policy.bounds`.
        UnavailableError: `policy.rekey`, while a rekey of the domain is not finished.
    """
    demand_bounded(policy)
    reader = keep.reader()
    found = held_version(keep, reader, current_snapshot(keep, reader), reference)
    record_damages(keep, reader.damages)
    before, digest = found.proof.manifest, found.proof.digest
    if before.policy == policy:
        return before, digest, False
    domain = keep.domains.named(before.domain)
    if domain.key_id != found.key_id:
        raise UnavailableError(
            "policy.rekey",
            f"{before.name}:{before.version} is still under a key that a rekey replaces",
            hint=f"`modelkeep keys rekey {before.domain}` finishes it; then run this again",
        )
    subject = f"{before.name}:{before.version}"
    details = {"manifest": digest, "policy": digest_of(to_json(policy))}
    demand_approval(keep, approvals, verb="models.policy", subject=subject, details=details)
    wanted = replaced(
        before, version=0, admitted_ns=keep.clock.now_ns(), base=subject, policy=policy
    )
    manifest, made = entered(
        keep,
        wanted,
        found.recipe,
        domain=domain,
        kind="model.admitted",
        vault=vault,
        also=(
            lambda version: (
                "model.policy_set",
                {"model": before.name, "version": version, "before": before.version},
            ),
        ),
    )
    return manifest, made, True
