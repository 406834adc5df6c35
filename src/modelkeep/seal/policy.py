"""Whether a model's own policy permits what is about to be done with it; silence permits nothing.

1. The use is one of those that are listed. 2. The actor is one of those that are listed. 3. It is
not too late. 4. The host is one of those that are listed, and was proven to be.
"""

from __future__ import annotations

from modelkeep.core.artifact import Manifest
from modelkeep.core.errors import RefusedError
from modelkeep.core.instant import rfc3339
from modelkeep.core.policy import Policy, Use

# To its owner, and to whoever got it from him.
_CHANGED = "`modelkeep policy NAME --set FILE` changes it, in the keep that owns it"


def demand_permitted(
    manifest: Manifest, use: Use, *, actor: str, now_ns: int, host: str = ""
) -> None:
    """Go on only if the policy permits this; the numbers are those of the module.

    Args:
        host: identifier (UEID) that an attestation proved; empty when none did.

    Raises:
        RefusedError: `policy.use`, `policy.loader`, `policy.expired` or `policy.host`.
    """
    policy, what = manifest.policy, f"{manifest.name}:{manifest.version}"
    if policy.uses and use not in policy.uses:  # 1
        raise RefusedError(
            "policy.use",
            f"the policy of {what} permits {', '.join(policy.uses)}, not {use}",
            hint=_CHANGED,
        )
    if policy.loaders and actor not in policy.loaders:  # 2
        raise RefusedError(
            "policy.loader",
            f"the policy of {what} lets {', '.join(policy.loaders)} load it only"
            + (f", and this is {actor}" if actor else ""),
            hint=_CHANGED,
        )
    if policy.not_after_ns and now_ns >= policy.not_after_ns:  # 3
        raise expired(what, policy)
    if policy.hosts and host not in policy.hosts:  # 4
        raise RefusedError(
            "policy.host",
            f"the policy of {what} binds it to other hosts"
            if host
            else f"the policy of {what} binds it to hosts, and this one proved nothing",
            hint="`modelkeep attest show` prints what this host can prove",
        )


def expired(what: str, policy: Policy) -> RefusedError:
    """The refusal of a model whose time is over."""
    return RefusedError(
        "policy.expired",
        f"the policy of {what} ended at {rfc3339(policy.not_after_ns)[:19]}Z",
        hint=_CHANGED,
    )
