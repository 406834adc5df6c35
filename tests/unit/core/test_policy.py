"""A policy says only what can be meant, wherever it comes from."""

import pytest

from modelkeep.core.errors import UsageError
from modelkeep.core.policy import Policy, Use, demand_bounded


@pytest.mark.parametrize(
    "policy",
    [
        Policy(decimals=16),
        Policy(decimals=-1),
        Policy(replicas_max=-1),
        Policy(replicas_max=2**31),
        Policy(not_after_ns=-1),
        Policy(not_after_ns=2**63),
        Policy(loaders=("x" * 257,)),
        Policy(loaders=("x",) * 1025),
        Policy(hosts=("",)),  # the name of a host that proved nothing
        Policy(uses=(Use.LOAD,) * 9),
    ],
)
def test_what_cannot_be_meant_is_refused(policy):
    with pytest.raises(UsageError) as refused:
        demand_bounded(policy)
    assert refused.value.code == "policy.bounds"


def test_everything_and_the_largest_policy_can_be_meant():
    demand_bounded(Policy())
    names = ("x" * 256,) * 1024
    demand_bounded(
        Policy(
            loaders=names,
            not_after_ns=2**63 - 1,
            hosts=names,
            replicas_max=2**31 - 1,
            uses=tuple(Use),
            decimals=15,
        )
    )
