"""Keys of issuers and tokens of ours: of no use is left out, and nothing is believed too long."""

import contextlib
import time

import pytest
import token_forge as forge
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.adapters import jwt_joserfc
from modelkeep.adapters.jwt_joserfc import Issuer, JoseBearers, KeySet, OwnIssuer, keys_of
from modelkeep.core.errors import IntegrityError, UsageError
from modelkeep.crypto.secret import Secret
from modelkeep.gate.authn import Keyring
from modelkeep.gate.identity_settings import ALGORITHMS, IssuerSettings

EC = ec.generate_private_key(ec.SECP256R1())
GOOD = forge.jwk(EC, kid="good")
NEVER_NS = 2**63
PARTS = st.fixed_dictionaries(
    {},
    optional={
        "kty": st.sampled_from(["RSA", "EC", "OKP", "oct", "", 1, None]) | st.just([]),
        "kid": st.text(max_size=5) | st.integers() | st.none(),
        "use": st.sampled_from(["sig", "enc", 1, None]),
        "alg": st.sampled_from([*ALGORITHMS, "HS256", "none", 1, None]),
        "key_ops": st.sampled_from([["verify"], ["sign"], "verify", 1, None]),
        "crv": st.sampled_from(["P-256", "P-384", "Ed25519", "X25519", "secp256k1", "", 1])
        | st.sampled_from(["not-invented-yet"])
        | st.just([]),
        "x": st.text(max_size=50) | st.sampled_from([GOOD["x"], GOOD["y"]]) | st.integers(),
        "y": st.text(max_size=50) | st.sampled_from([GOOD["x"], GOOD["y"]]) | st.none(),
        "n": st.text(max_size=50) | st.just(forge.b64(b"\xff" * 256)),
        "e": st.sampled_from(["AQAB", "AQ", "Ag", "", "AA", 3]),
        "d": st.text(max_size=5),
    },
)


def settings(**more):
    usual = {"label": "c", "issuer": "i", "audience": "us", "scopes": ("infer:*",)}
    return IssuerSettings(**{**usual, "algorithms": ALGORITHMS, "jwks": "file:/x", **more})


def bearers(keys, **more):
    return JoseBearers(
        [Issuer(settings(**more), KeySet(keys, digest=b"", holds_until_ns=NEVER_NS))]
    )


def claims(**more):
    return {"iss": "i", "aud": "us", "sub": "u", "exp": int(time.time()) + 60, **more}


@given(listed=st.lists(PARTS, max_size=4))
def test_any_set_of_keys_is_read_or_refused(listed):
    with contextlib.suppress(IntegrityError):
        for key in keys_of(forge.jwks(*listed), what="a set"):
            assert key.key_type in ("RSA", "EC", "OKP")
            assert not key.is_private


@given(raw=st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_any_bytes_are_a_set_of_keys_or_refused(raw):
    with pytest.raises(IntegrityError):
        keys_of(raw, what="a set")


def test_what_cannot_verify_is_left_out():
    weak = rsa.generate_private_key(65537, 1024)  # noqa: S505 - weak on purpose
    listed = (
        GOOD,
        forge.jwk(weak, kid="weak"),
        {**GOOD, "kid": "enc", "use": "enc"},
        {**GOOD, "kid": "signs", "key_ops": ["sign"]},
        {**GOOD, "kid": "private", "d": "AQ"},
        {**GOOD, "kid": "other", "alg": "ES384"},
        {"kty": "oct", "k": "AAAA", "kid": "oct"},
        {"kty": "OKP", "crv": "not-invented-yet", "x": GOOD["x"], "kid": "curve"},
        {"kty": ["EC"], "kid": "list"},
    )
    assert [key.kid for key in keys_of(forge.jwks(*listed), what="a set")] == ["good"]


@pytest.mark.parametrize(
    "listed", [[], [GOOD, GOOD], [{**GOOD, "kid": str(n)} for n in range(129)]], ids=len
)
def test_a_set_without_use_or_with_two_of_one_name_is_refused(listed):
    with pytest.raises(IntegrityError):
        keys_of(forge.jwks(*listed), what="a set")


def test_without_a_name_a_key_is_used_only_if_no_other_fits():
    other = forge.jwk(ec.generate_private_key(ec.SECP256R1()), kid="other")
    token = b"Bearer " + forge.compact({"alg": "ES256"}, claims(), forge.es(EC))
    one = Keyring((), bearers=bearers(keys_of(forge.jwks(GOOD), what="a set")))
    assert one.principal_of(token, now_ns=time.time_ns()).name == "jwt:c:u"
    two = Keyring((), bearers=bearers(keys_of(forge.jwks(GOOD, other), what="a set")))
    with pytest.raises(UsageError):
        two.principal_of(token, now_ns=time.time_ns())


@pytest.mark.parametrize("algorithm", ["RS256", "PS256", "ES256", "Ed25519", "EdDSA"])
def test_every_kind_of_signature_is_verified(algorithm):
    made = {
        "RS256": lambda: (key := rsa.generate_private_key(65537, 2048), forge.rs(key)),
        "PS256": lambda: (key := rsa.generate_private_key(65537, 2048), forge.ps(key)),
        "ES256": lambda: (EC, forge.es(EC)),
        "Ed25519": lambda: (key := ed25519.Ed25519PrivateKey.generate(), forge.ed(key)),
        "EdDSA": lambda: (key := ed25519.Ed25519PrivateKey.generate(), forge.ed(key)),
    }
    key, sign = made[algorithm]()
    found = bearers(keys_of(forge.jwks(forge.jwk(key, kid="k")), what="a set"))
    token = forge.compact({"alg": algorithm, "kid": "k"}, claims(), sign)
    assert found.claims_of(token, now_ns=time.time_ns()).subject == "u"
    with pytest.raises(UsageError):
        found.claims_of(token[:-8] + b"AAAAAAAA", now_ns=time.time_ns())


def test_what_is_remembered_is_bounded(monkeypatch):
    monkeypatch.setattr(jwt_joserfc, "VERIFIED_MAX", 5)
    found = bearers(keys_of(forge.jwks(GOOD), what="a set"))
    for number in range(12):
        token = forge.compact({"alg": "ES256"}, claims(sub=f"u{number}"), forge.es(EC))
        found.claims_of(token, now_ns=time.time_ns())
    assert len(found._verified) == 5


def test_a_remembered_token_ends_when_it_says():
    ends_s = int(time.time()) + 60
    token = forge.compact({"alg": "ES256"}, claims(exp=ends_s), forge.es(EC))
    keyring = Keyring((), bearers=bearers(keys_of(forge.jwks(GOOD), what="a set"), leeway_s=0.0))
    header = b"Bearer " + token
    for at_ns in (ends_s * 10**9 - 10**9, ends_s * 10**9 - 1):
        assert keyring.principal_of(header, now_ns=at_ns)
    with pytest.raises(UsageError):
        keyring.principal_of(header, now_ns=ends_s * 10**9)


def test_tokens_of_ours_are_read_by_every_gateway_with_the_same_seed():
    one, two, stranger = (
        JoseBearers([], OwnIssuer(Secret(seed * 32), lifetime_s=60)) for seed in (b"1", b"1", b"2")
    )
    now_ns = time.time_ns()
    more = {"password_id": "a" * 16, "token_id": "b", "scopes": ("infer:x", "metrics")}
    token = one._own.signed("robot", now_ns=now_ns, **more)
    said = two.claims_of(token, now_ns=now_ns)
    assert (said.issuer, said.subject, said.password_id) == ("", "robot", "a" * 16)
    assert said.scopes == ("infer:x", "metrics")
    with pytest.raises(UsageError):
        stranger.claims_of(token, now_ns=now_ns)
    with pytest.raises(UsageError):
        two.claims_of(token, now_ns=now_ns + 61 * 10**9)


@pytest.mark.verify("auth-timing")
def test_the_price_of_a_token_that_was_seen_is_small(count):
    token = forge.compact({"alg": "ES256"}, claims(groups=["a-group-of-people"] * 40), forge.es(EC))
    keyring = Keyring((), bearers=bearers(keys_of(forge.jwks(GOOD), what="a set")))
    header, now_ns, best = b"Bearer " + token, time.time_ns(), 1.0
    assert len(header) > 1000
    for _ in range(200):
        began_s = time.perf_counter()
        for _ in range(20):
            keyring.principal_of(header, now_ns=now_ns)
        best = min(best, (time.perf_counter() - began_s) / 20)
    assert best < count(20, full=5) / 1e6  # other work beside it in CI
