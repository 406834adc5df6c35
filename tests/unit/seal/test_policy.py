"""The rules of a policy, one by one; silence permits nothing where something is listed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.core.artifact import Manifest
from modelkeep.core.errors import RefusedError
from modelkeep.core.policy import ANYTHING, Policy, Use
from modelkeep.seal.policy import demand_permitted


def manifest(policy):
    return Manifest(
        name="m", version=3, kind="onnx", domain="default", admitted_ns=1, files=(), policy=policy
    )


def refusal(policy, use=Use.SERVE, *, actor="supervisor", now_ns=10, host=""):
    with pytest.raises(RefusedError) as refused:
        demand_permitted(manifest(policy), use, actor=actor, now_ns=now_ns, host=host)
    assert "m:3" in refused.value.message
    assert "`modelkeep " in refused.value.hint
    return refused.value.code


@given(st.sampled_from(Use), st.text(), st.integers(0, 2**63), st.text())
def test_a_model_without_a_policy_permits_everything(use, actor, now_ns, host):
    demand_permitted(manifest(ANYTHING), use, actor=actor, now_ns=now_ns, host=host)


@given(st.sets(st.sampled_from(Use), min_size=1), st.sampled_from(Use))
def test_what_is_not_listed_is_refused(uses, use):
    policy = Policy(uses=tuple(uses))
    if use in uses:
        demand_permitted(manifest(policy), use, actor="a", now_ns=1)
    else:
        assert refusal(policy, use) == "policy.use"


def test_an_actor_must_be_one_of_those_that_are_listed():
    policy = Policy(loaders=("cli:alice",))
    demand_permitted(manifest(policy), Use.LOAD, actor="cli:alice", now_ns=1)
    for actor in ("cli:alic", "cli:alice ", "", "supervisor"):
        assert refusal(policy, actor=actor) == "policy.loader"


def test_the_end_is_the_first_instant_that_is_refused():
    policy = Policy(not_after_ns=100)
    demand_permitted(manifest(policy), Use.SERVE, actor="a", now_ns=99)
    assert refusal(policy, now_ns=100) == "policy.expired"
    assert refusal(policy, now_ns=2**63) == "policy.expired"


def test_a_host_that_proved_nothing_is_none_of_those_that_are_listed():
    policy = Policy(hosts=("AQ1",))
    demand_permitted(manifest(policy), Use.SERVE, actor="a", now_ns=1, host="AQ1")
    assert refusal(policy) == "policy.host"
    assert refusal(policy, host="AQ2") == "policy.host"
