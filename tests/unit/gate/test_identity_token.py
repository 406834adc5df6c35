"""Tokens are read strictly: whatever the bytes, the outcome is claims or the one refusal."""

import contextlib
import json

import pytest
import token_forge as forge
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.core.errors import UsageError
from modelkeep.core.instant import NS_PER_S
from modelkeep.gate.identity_settings import IssuerSettings
from modelkeep.gate.identity_token import Basis, unverified_token, verified_claims

NOW_S = 1_800_000_000
SETTINGS = IssuerSettings(
    label="corp",
    issuer="i",
    audience="us",
    scopes=("infer:*",),
    roles_claim="groups",
    roles={"ml": ("caller", "scraper"), "ops": ("scraper",)},
    tenant_claim="org.name",
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda each: (
        st.lists(each, max_size=3) | st.dictionaries(st.text(max_size=5), each, max_size=3)
    ),
    max_leaves=8,
)
NAMES = st.sampled_from(["iss", "aud", "sub", "exp", "nbf", "iat", "groups", "org", "org.name"])


def read(payload, now_s=NOW_S):
    return verified_claims(payload, SETTINGS, now_ns=now_s * NS_PER_S, basis=Basis(0))


def good(**more):
    usual = {"iss": "i", "aud": "us", "sub": "u", "exp": NOW_S + 60, "groups": [], "org": {}}
    return {**usual, "org": {"name": "default"}, **more}


@given(token=st.binary(max_size=300))
def test_no_bytes_are_a_token_by_chance(token):
    with pytest.raises(UsageError):
        unverified_token(token)


@given(header=JSON, payload=JSON, signature=st.binary(max_size=70))
def test_any_json_in_a_token_is_read_or_refused(header, payload, signature):
    token = forge.compact(header, payload, lambda _: signature)
    with contextlib.suppress(UsageError):
        said = unverified_token(token)
        assert header["alg"] == said.algorithm
        assert payload["iss"] == said.issuer


@given(changes=st.dictionaries(NAMES, JSON, max_size=4))
def test_any_claims_are_read_or_refused(changes):
    with contextlib.suppress(UsageError):
        claims = read(good(**changes))
        assert claims.begins_ns <= NOW_S * NS_PER_S < claims.ends_ns
        assert claims.subject.isprintable()
        assert set(claims.roles or ()) <= {"caller", "scraper"}


@given(name=st.text(max_size=9), values=st.tuples(JSON, JSON))
def test_a_name_that_stands_twice_is_refused_at_any_depth(name, values):
    pair = ",".join(f"{json.dumps(name)}:{json.dumps(each)}" for each in values)
    for text in (f'{{"iss":"i",{pair}}}', f'{{"iss":"i","a":[{{"b":{{{pair}}}}}]}}'):
        token = forge.compact({"alg": "ES256"}, text.encode(), forge.zeros)
        with pytest.raises(UsageError):
            unverified_token(token)


@pytest.mark.parametrize(
    ("groups", "roles"),
    [
        (["ml"], ("caller", "scraper")),
        (["ops", "ml"], ("scraper", "caller")),
        ("ops other", ("scraper",)),
        (["admin"], ()),
        ({"ml": 1}, ()),
        (["ml", 7], ()),
        (["x"] * 300 + ["ml"], ()),
        (None, ()),
    ],
)
def test_roles_are_what_the_configuration_calls_them(groups, roles):
    assert read(good(groups=groups)).roles == roles


def test_a_claim_is_found_by_its_name_or_by_its_path():
    assert read(good()).tenant == "default"
    assert read(good(**{"org.name": "acme"})).tenant == "acme"


@pytest.mark.parametrize("late_s", [29, 30, 31])
def test_the_leeway_ends_where_it_is_said_to(late_s):
    payload = good(exp=NOW_S - late_s)
    if late_s < 30:
        assert read(payload)
    else:
        with pytest.raises(UsageError):
            read(payload)
    early = good(nbf=NOW_S + late_s)
    if late_s <= 30:
        assert read(early)
    else:
        with pytest.raises(UsageError):
            read(early)
