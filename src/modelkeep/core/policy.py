"""What may be done with a model: a record that is signed with its manifest."""

from __future__ import annotations

from enum import StrEnum
from itertools import chain

from modelkeep.core.errors import UsageError
from modelkeep.core.record import Record

# What floats of 64 bits have behind the point.
_DECIMALS_MAX = 15
# The year 2262, and the largest number that every reader of a manifest takes.
_INSTANT_NS_MAX = 2**63 - 1
_REPLICAS_MAX = 2**31 - 1
# A policy is read with every manifest: it names a fleet, not a population.
_NAMES_MAX = 1024
_NAME_CHARS_MAX = 256


class Use(StrEnum):
    """What a model can be used for."""

    SERVE = "serve"  # a replica answers calls with it
    LOAD = "load"  # a program gets its tensors in memory
    RESTORE = "restore"  # its plaintext is written to a path
    EXPORT = "export"  # it is sealed to somebody else
    TRAIN = "train"  # another version is made from it


class Output(StrEnum):
    """How much of an answer leaves the gateway."""

    FULL = "full"
    ROUNDED = "rounded"  # floating-point outputs, to `decimals` digits
    LABELS = "labels"  # floating-point outputs become 1 at the largest of a row, 0 elsewhere


class Policy(Record, frozen=True):
    """What may be done with one version of a model; the default permits everything.

    Attributes:
        loaders: actors that may load, restore or export it (`cli:alice`, `supervisor`); empty for
            whoever can open the keep.
        not_after_ns: from this instant (ns since the Unix epoch) on it is not used; 0 for never.
        hosts: identifiers (UEID) of the hosts that may load it, each proven by an attestation;
            empty for any host, unproven.
        replicas_max: processes that may serve it at once; 0 for any number.
        uses: what it may be used for; empty for everything.
        output: how much of an answer leaves.
        decimals: digits after the point where outputs are rounded.
    """

    loaders: tuple[str, ...] = ()
    not_after_ns: int = 0
    hosts: tuple[str, ...] = ()
    replicas_max: int = 0
    uses: tuple[Use, ...] = ()
    output: Output = Output.FULL
    decimals: int = 2


ANYTHING = Policy()


def demand_bounded(policy: Policy) -> None:
    """Check that a policy says something that can be meant, wherever it comes from.

    Raises:
        UsageError: `policy.bounds`.
    """
    bounds = {
        "replicas_max": 0 <= policy.replicas_max <= _REPLICAS_MAX,
        "decimals": 0 <= policy.decimals <= _DECIMALS_MAX,
        "not_after": 0 <= policy.not_after_ns <= _INSTANT_NS_MAX,
        "uses": len(policy.uses) <= len(Use),
        # An empty name would be that of a host that proved nothing.
        "loaders or hosts": max(len(policy.loaders), len(policy.hosts)) <= _NAMES_MAX
        and all(0 < len(each) <= _NAME_CHARS_MAX for each in chain(policy.loaders, policy.hosts)),
    }
    wrong = [name for name, is_good in bounds.items() if not is_good]
    if wrong:
        raise UsageError(
            "policy.bounds",
            f"a policy is out of bounds: {', '.join(wrong)}",
            hint="docs/guide/policy.md says what each key may be",
        )
