"""API keys: one key opens, everything else is refused in the same words."""

import dataclasses
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.core.errors import KeepError, RefusedError, UsageError
from modelkeep.core.principal import Principal
from modelkeep.core.rows import RegisteredPrincipal, Role, Token
from modelkeep.gate.authn import Keyring, demand_scope, new_token


@dataclasses.dataclass
class Counting:
    """Entropy that counts up."""

    at: int = 0

    def random_bytes(self, count):
        self.at += 1
        return bytes([self.at]) * count


def made(**more):
    return new_token(Counting(), principal="anna", scopes=("infer:digits",), **more)


def changed(token, **more):
    plain = {name: getattr(token, name) for name in token.__struct_fields__}
    return Token(**{**plain, **more})


def bearer(text):
    return b"Bearer " + text.reveal()


def refusal(keyring, header, now_ns=1):
    with pytest.raises(UsageError) as raised:
        keyring.principal_of(header, now_ns=now_ns)
    assert raised.value.http_status == 401
    return raised.value


def test_a_new_key_has_the_documented_form_and_only_its_hash_is_kept():
    text, token = made()
    key = text.reveal()
    assert len(key) == 3 + 16 + 1 + 43
    assert key.startswith(b"mk_" + token.token_id.encode() + b"_")
    assert token.secret_sha256 == hashlib.sha256(key[-43:]).hexdigest()
    assert key[-43:].decode() not in repr(token)


def test_a_key_opens_for_its_principal():
    text, token = made(tenant="acme")
    principal = Keyring([token]).principal_of(bearer(text), now_ns=1)
    assert principal == Principal(name="anna", tenant="acme", scopes=("infer:digits",))


def test_the_scheme_is_not_case_sensitive_as_http_says():
    text, token = made()
    assert Keyring([token]).principal_of(b"bEARER  " + text.reveal(), now_ns=1)


def test_unknown_wrong_revoked_and_expired_keys_are_refused_alike():
    text, token = made(expires_ns=100)
    good = bearer(text)
    wrong = good[:-1] + (b"A" if good[-1:] != b"A" else b"B")
    assert Keyring([token]).principal_of(good, now_ns=99)
    refusals = [
        refusal(Keyring([]), good),
        refusal(Keyring([token]), wrong),
        refusal(Keyring([token]), good, now_ns=100),
        refusal(Keyring([changed(token, revoked=True)]), good),
        refusal(Keyring([token]), b"Basic " + text.reveal()),
        refusal(Keyring([token]), good + b" "),
        refusal(Keyring([token]), b""),
    ]
    assert {each.code for each in refusals} == {"auth.invalid"}
    assert len({(each.message, each.hint) for each in refusals}) == 1
    assert refusal(Keyring([token]), None).code == "auth.missing"


def test_the_dummy_id_is_no_way_in():
    text, token = made()
    zeros = changed(token, token_id="0" * 16)
    assert refusal(Keyring([zeros]), b"nonsense").code == "auth.invalid"
    assert refusal(Keyring([]), b"Bearer mk_" + b"0" * 16 + b"_" + b"0" * 43)
    assert text


@given(st.binary(max_size=200))
def test_no_header_raises_anything_but_a_refusal(header):
    _, token = made()
    assert refusal(Keyring([token]), header).code == "auth.invalid"


@pytest.mark.parametrize(
    ("scopes", "scope", "is_permitted"),
    [
        (("infer:digits",), "infer:digits", True),
        (("infer:*",), "infer:digits", True),
        (("infer:digits",), "infer:digit", False),
        (("infer:*",), "metrics", False),
        (("metrics",), "metrics", True),
        (("metrics",), "infer:*", False),
        ((), "metrics", False),
    ],
)
def test_scopes(scopes, scope, is_permitted):
    principal = Principal(name="anna", tenant="acme", scopes=scopes)
    if is_permitted:
        demand_scope(principal, scope)
        return
    with pytest.raises(RefusedError) as raised:
        demand_scope(principal, scope)
    assert (raised.value.code, raised.value.http_status) == ("auth.forbidden", 403)
    assert isinstance(raised.value, KeepError)


def registered(**more):
    return RegisteredPrincipal(**{"name": "anna", "tenant": "acme", "roles": ("caller",), **more})


def scopes(text, token, principal, roles=()):
    return Keyring([token], [principal], roles).principal_of(bearer(text), now_ns=1).scopes


def test_every_key_of_a_disabled_principal_is_refused_with_the_same_words():
    text, token = made()
    header = bearer(text)
    disabled = Keyring([token], [registered(disabled=True)])
    assert str(refusal(disabled, header)) == str(refusal(Keyring([]), header))
    assert Keyring([token], [registered()]).principal_of(header, now_ns=1)
    other = Keyring([token], [registered(name="bob", disabled=True)])
    assert other.principal_of(header, now_ns=1)


def test_a_registered_principal_has_its_own_tenant_whatever_the_key_says():
    text, token = made(tenant="before")
    found = Keyring([token], [registered()]).principal_of(bearer(text), now_ns=1)
    assert found.tenant == "acme"


def test_roles_bound_what_a_key_may_do():
    text, token = made()
    night = Role(name="night", scopes=("infer:digits", "approve"))
    assert scopes(text, token, registered()) == ("infer:digits",)
    assert scopes(text, token, registered(roles=("scraper",))) == ()
    assert scopes(text, token, registered(roles=())) == ()
    assert scopes(text, token, registered(roles=("night",)), [night]) == ("infer:digits",)
    assert scopes(text, token, registered(roles=("night",))) == ()


def test_a_key_of_somebody_unregistered_never_approves():
    text, token = new_token(Counting(), principal="anna", scopes=("infer:*", "approve", "operate"))
    assert Keyring([token]).principal_of(bearer(text), now_ns=1).scopes == ("infer:*",)
    approver = registered(roles=("approver",))
    assert scopes(text, token, approver) == ("approve",)
