"""The table of attacks on identity: what is presented, why it must fail, and how it is refused.

A row is data: any caller (in process, HTTP, gRPC) can present it. `honest` are their benign twins,
which must be let in; without them the table would pass if nobody were let in at all.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import token_forge as forge
from identity_scene import AUDIENCE, CORP, GONE, HOUR_S, Client, Scene, self_signed

Make = Callable[[Scene], "Presented"]


@dataclass(frozen=True)
class Presented:
    """What a caller shows, and which model it asks for."""

    authorization: bytes | None
    client: Client | None = None
    model: str = "digits"


@dataclass(frozen=True)
class Attack:
    """One row.

    Attributes:
        reason: why authentication fails, as the error's context says it in process; empty where
            the caller is known and may not do this.
        status: of HTTP.
        is_tls: TLS itself ends it, before anything is asked.
    """

    name: str
    make: Make
    reason: str = ""
    status: int = 401
    is_tls: bool = False


def bearer(token: bytes, **more: Any) -> Presented:
    """A token in its header."""
    return Presented(b"Bearer " + token, **more)


def _key(label: str, **more: Any) -> Make:
    return lambda scene: bearer(scene.api_keys[label], **more)


def _changed_key(change: Callable[[bytes], bytes]) -> Make:
    return lambda scene: bearer(change(scene.api_keys["alice"]))


def _corp(header: dict[str, Any] | None = None, **claims: Any) -> Make:
    return lambda scene: bearer(scene.corp(header, **claims))


def _signed(header: dict[str, Any], sign: Callable[[Scene], Any], **claims: Any) -> Make:
    """A token of good claims with another header and signature."""
    return lambda scene: bearer(forge.compact(header, scene.claims(**claims), sign(scene)))


def _raw(header: bytes | None, payload: bytes | None) -> Make:
    """A rightly signed token whose header or payload is exactly this text."""

    def make(scene: Scene) -> Presented:
        head = header if header is not None else b'{"alg":"RS256","kid":"rsa-1"}'
        body = payload if payload is not None else json.dumps(scene.claims()).encode()
        body = body.replace(b"NOW", str(scene.now_s).encode())
        return bearer(forge.compact(head, body, forge.rs(scene.rsa)))

    return make


def _client(label: str, key: str = "", **more: Any) -> Make:
    def make(scene: Scene) -> Presented:
        authorization = b"Bearer " + scene.api_keys[key] if key else None
        return Presented(authorization, scene.clients[label], **more)

    return make


def _jwe(scene: Scene) -> Presented:
    token = scene.corp()
    return bearer(token + b"." + token.split(b".")[1] + b".AAAA")


def _padded(scene: Scene) -> Presented:
    return bearer(scene.corp() + b"=")


def _cut(scene: Scene) -> Presented:
    return bearer(scene.corp()[:-4])


def _flipped(scene: Scene) -> Presented:
    head, payload, signature = scene.corp().split(b".")
    flipped = b"A" if signature[:1] != b"A" else b"B"
    return bearer(b".".join((head, payload, flipped + signature[1:])))


def _swapped(scene: Scene) -> Presented:
    head, _, signature = scene.corp().split(b".")
    other = scene.corp(sub="admin").split(b".")[1]
    return bearer(b".".join((head, other, signature)))


def _spare_bits(scene: Scene) -> Presented:
    """Another text of the same signature: 256 bytes leave spare bits in the last character."""
    token = scene.corp()
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    last = alphabet[alphabet.index(token[-1:]) ^ 1 :][:1]
    return bearer(token[:-1] + last)


def _confused(kind: str) -> Make:
    def make(scene: Scene) -> Presented:
        secret = {"pem": scene.public_pem(), "n": forge.jwk(scene.rsa)["n"].encode()}[kind]
        header = {"alg": "HS256", "kid": "rsa-1"}
        return bearer(forge.compact(header, scene.claims(), forge.hs(secret)))

    return make


def _replaced_password(scene: Scene) -> Presented:
    return bearer(scene.own_token("robot", password_id="f" * 16))


def _own_forged(scene: Scene) -> Presented:
    """A token of ours as far as text goes, signed with a key of an issuer."""
    now_s = scene.now_s
    claims = scene.claims(iss="modelkeep", aud="modelkeep", sub="robot", iat=now_s, exp=now_s + 9)
    claims["password_id"] = scene.password_ids["robot"]
    return bearer(forge.compact({"alg": "Ed25519"}, claims, forge.ed(scene.ed)))


def _as_own(scene: Scene) -> Presented:
    """An issuer's own token that calls itself ours."""
    return bearer(scene.corp(iss="modelkeep", aud="modelkeep", sub="robot"))


def _staff(**claims: Any) -> Make:
    model = claims.pop("model", "digits")
    return lambda scene: bearer(scene.staff(**claims), model=model)


def _own(name: str, **more: Any) -> Make:
    model = more.pop("model", "digits")
    return lambda scene: bearer(scene.own_token(name, **more), model=model)


def _with_client(label: str, token: Callable[[Scene], bytes]) -> Make:
    return lambda scene: bearer(token(scene), client=scene.clients[label])


_ES = {"alg": "ES256", "kid": "ec-1"}
_JKU = {"jku": "https://attacker.example/keys.json"}
_X5U = {"x5u": "https://attacker.example/chain.pem"}

KEYS = (
    Attack("no credential", lambda _: Presented(None)),
    Attack("empty header", lambda _: Presented(b""), "form"),
    Attack("unknown key", _changed_key(lambda key: b"mk_" + b"0" * 16 + key[19:]), "key"),
    Attack("wrong secret", _changed_key(lambda key: key[:-1] + b"#"), "key"),
    Attack("another separator", _changed_key(lambda key: key.replace(b"_", b"-")), "form"),
    Attack(
        "another separator before the secret",
        _changed_key(lambda key: key[:19] + b"-" + key[20:]),
        "form",
    ),
    Attack("secret of another", _changed_key(lambda key: key[:20] + b"A" * 43), "key"),
    Attack(
        "another's id before one's own secret",
        lambda scene: bearer(scene.api_keys["zoe"][:20] + scene.api_keys["alice"][20:]),
        "key",
    ),
    Attack("revoked key", _key("revoked"), "key"),
    Attack(
        "hash in place of the secret",
        lambda scene: bearer(scene.api_keys["alice"][:20] + b"0" * 43),
        "key",
    ),
    Attack("expired key", _key("expired"), "key"),
    Attack("key of a disabled principal", _key("carol"), "key"),
    Attack("key as Basic", lambda scene: Presented(b"Basic " + scene.api_keys["alice"]), "form"),
    Attack("key without scheme", lambda scene: Presented(scene.api_keys["alice"]), "form"),
    Attack("two keys", _changed_key(lambda key: key + b", Bearer " + key), "form"),
    Attack("key and more", _changed_key(lambda key: key + b" "), "form"),
    Attack("id in capitals", lambda _: bearer(b"mk_" + b"ABCDEF0123456789_" + b"0" * 43), "key"),
    Attack("a huge key", _changed_key(lambda key: key + b"A" * 20_000), "form"),
)

FORMS = (
    Attack("alg none", _signed({"alg": "none"}, lambda _: forge.nothing), "unsigned"),
    Attack(
        "alg None with a signature",
        _signed({"alg": "None", "kid": "rsa-1"}, lambda scene: forge.rs(scene.rsa)),
        "algorithm",
    ),
    Attack(
        "alg nOnE", _signed({"alg": "nOnE", "kid": "rsa-1"}, lambda _: forge.zeros), "algorithm"
    ),
    Attack("alg empty", _corp({"alg": ""}), "algorithm"),
    Attack("alg missing", _corp({"alg": None}), "header"),
    Attack("alg as list", _corp({"alg": ["RS256"]}), "header"),
    Attack("HS256 with the public key's PEM", _confused("pem"), "algorithm"),
    Attack("HS256 with the public modulus", _confused("n"), "algorithm"),
    Attack(
        "HS256 with a symmetric key of the set",
        _signed({"alg": "HS256", "kid": "oct-1"}, lambda _: forge.hs(b"0" * 32)),
        "algorithm",
    ),
    Attack(
        "an algorithm that the issuer does not use",
        _signed({"alg": "Ed25519", "kid": "ed-1"}, lambda scene: forge.ed(scene.ed)),
        "algorithm",
    ),
    Attack(
        "PS256 where RS256 is used",
        _signed({"alg": "PS256", "kid": "rsa-1"}, lambda scene: forge.ps(scene.rsa)),
        "algorithm",
    ),
    Attack("an EC key for RS256", _corp({"kid": "ec-1"}), "key"),
    Attack(
        "an RSA key for ES256",
        _signed({"alg": "ES256", "kid": "rsa-1"}, lambda scene: forge.rs(scene.rsa)),
        "key",
    ),
    Attack("zeros for ES256", _signed(_ES, lambda _: forge.zeros), "signature"),
    Attack(
        "a signature of X.509's form",
        _signed(_ES, lambda scene: forge.es_der(scene.ec)),
        "signature",
    ),
    Attack(
        "a weak RSA key of the set",
        _signed({"alg": "RS256", "kid": "weak"}, lambda scene: forge.rs(scene.weak)),
        "key",
    ),
    Attack(
        "a key for encryption of the set",
        _signed({"alg": "RS256", "kid": "enc-1"}, lambda scene: forge.rs(scene.stranger_rsa)),
        "key",
    ),
    Attack(
        "signed by a stranger under a known kid",
        _signed({"alg": "RS256", "kid": "rsa-1"}, lambda scene: forge.rs(scene.stranger_rsa)),
        "signature",
    ),
    Attack(
        "a point that is not on the curve",
        _signed({"alg": "ES256", "kid": "off-curve"}, lambda _: forge.zeros),
        "key",
    ),
    Attack("kid is a path", _corp({"kid": "../../../../dev/null"}), "key"),
    Attack("kid is SQL", _corp({"kid": "' OR '1'='1' --"}), "key"),
    Attack("kid is a URL", _corp({"kid": "https://attacker.example/key"}), "key"),
    Attack("kid is a command", _corp({"kid": "|curl attacker.example"}), "key"),
    Attack("kid is huge", _corp({"kid": "k" * 300}), "header"),
    Attack("kid has a null byte", _corp({"kid": "rsa-1\0"}), "header"),
    Attack("kid is a number", _corp({"kid": 1}), "header"),
    Attack("kid of another issuer", _corp({"kid": "staff-1"}), "key"),
    Attack("jku", _corp(_JKU), "header"),
    Attack("x5u", _corp(_X5U), "header"),
    Attack(
        "jwk brings its own key",
        lambda scene: bearer(
            forge.compact(
                {"alg": "RS256", "jwk": forge.jwk(scene.stranger_rsa)},
                scene.claims(),
                forge.rs(scene.stranger_rsa),
            )
        ),
        "header",
    ),
    Attack("x5c", _corp({"x5c": ["AAAA"]}), "header"),
    Attack("crit", _corp({"crit": ["exp"], "exp": 1}), "header"),
    Attack("b64 is false", _corp({"b64": False, "crit": ["b64"]}), "header"),
    Attack("zip", _corp({"zip": "DEF"}), "header"),
    Attack("nested", _corp({"cty": "JWT"}), "header"),
    Attack("a logout token", _corp({"typ": "logout+jwt"}), "type"),
    Attack("evidence of a host", _corp({"typ": "eat+jwt"}), "type"),
    Attack(
        "a header that stands twice",
        _raw(b'{"alg":"none","alg":"RS256","kid":"rsa-1"}', None),
        "json",
    ),
    Attack("a header that is no object", _raw(b'["RS256"]', None), "json"),
    Attack("a JWE", _jwe, "form"),
    Attack("padding", _padded, "form"),
    Attack("cut", _cut, "form"),
    Attack("a flipped signature", _flipped, "signature"),
    Attack("another payload", _swapped, "signature"),
    Attack("another spelling of a signature", _spare_bits, "form"),
    Attack("no payload", lambda _: bearer(b"eyJhbGciOiJSUzI1NiJ9..AAAA"), "form"),
    Attack("JSON 500 deep", _raw(None, b'{"a":' * 500 + b"1" + b"}" * 500), "issuer"),
    Attack("a token of 9 KB", _corp(junk="x" * 7000), "form"),
    Attack("a token of 40 KB", _corp(junk="x" * 30_000), "form", status=431),
)

CLAIMS = (
    Attack("expired", lambda scene: bearer(scene.corp(exp=scene.now_s - HOUR_S)), "expired"),
    Attack(
        "expired by more than the leeway",
        lambda scene: bearer(scene.corp(exp=scene.now_s - 32)),
        "expired",
    ),
    Attack("no exp", _corp(exp=None), "instant"),
    Attack("exp as text", _corp(exp="9999999999"), "instant"),
    Attack("exp is true", _corp(exp=True), "instant"),
    Attack(
        "exp is infinite",
        _raw(
            None,
            b'{"iss":"'
            + CORP.encode()
            + b'","aud":"'
            + AUDIENCE.encode()
            + b'","sub":"u","exp":1e999}',
        ),
        "instant",
    ),
    Attack("exp is NaN", _raw(None, b'{"iss":"' + CORP.encode() + b'","exp":NaN}'), "json"),
    Attack("exp is negative", _corp(exp=-1), "instant"),
    Attack("exp is beyond all bounds", _corp(exp=10**30), "instant"),
    Attack(
        "lives for a year",
        lambda scene: bearer(scene.corp(exp=scene.now_s + 365 * 86_400)),
        "lifetime",
    ),
    Attack("nbf ahead", lambda scene: bearer(scene.corp(nbf=scene.now_s + 600)), "early"),
    Attack("iat ahead", lambda scene: bearer(scene.corp(iat=scene.now_s + 600)), "early"),
    Attack("nbf as text", _corp(nbf="0"), "instant"),
    Attack("another audience", _corp(aud="another-service"), "audience"),
    Attack("no audience", _corp(aud=None), "audience"),
    Attack("audience is a part of ours", _corp(aud=AUDIENCE[:-1]), "audience"),
    Attack("audience in an object", _corp(aud={AUDIENCE: True}), "audience"),
    Attack("audience among numbers", _corp(aud=[1, AUDIENCE]), "audience"),
    Attack("thousands of audiences", _corp(aud=["a"] * 40 + [AUDIENCE]), "audience"),
    Attack("another issuer", _corp(iss="https://attacker.example"), "issuer"),
    Attack("issuer with a slash", _corp(iss=CORP + "/"), "issuer"),
    Attack("issuer in a list", _corp(iss=[CORP]), "issuer"),
    Attack("no issuer", _corp(iss=None), "issuer"),
    Attack(
        "one issuer's name, the other's key",
        lambda scene: bearer(
            forge.compact(
                {"alg": "ES256", "kid": "staff-1"}, scene.claims(), forge.es(scene.ec_other)
            )
        ),
        "key",
    ),
    Attack("issuer that was disabled", lambda scene: bearer(scene.corp(iss=GONE)), "issuer"),
    Attack("no subject", _corp(sub=None), "subject"),
    Attack("subject is empty", _corp(sub=""), "subject"),
    Attack("subject has a line break", _corp(sub="u\nadmin"), "subject"),
    Attack("subject of 1,000 characters", _corp(sub="u" * 1000), "subject"),
    Attack(
        "claims that stand twice",
        _raw(
            None,
            b'{"iss":"'
            + CORP.encode()
            + b'","aud":"'
            + AUDIENCE.encode()
            + b'","sub":"u-1","sub":"alice","exp":NOW}',
        ),
        "json",
    ),
    Attack("payload is a list", _raw(None, b"[]"), "json"),
    Attack("a principal that was disabled", _corp(sub="banned"), "disabled"),
)

BOUNDS = (
    Attack("a principal that nobody registered", _staff(preferred_username="eve"), "unregistered"),
    Attack("a disabled principal", _staff(preferred_username="carol"), "disabled"),
    Attack("no principal", _staff(preferred_username=None), "claim"),
    Attack("principal in a list", _staff(preferred_username=["alice"]), "claim"),
    Attack("another tenant's principal", _staff(preferred_username="zoe", org="acme"), "tenant"),
    Attack("a tenant that the issuer may not name", _staff(org="acme"), "tenant"),
    Attack("the keep's own tenant", _staff(org="*"), "tenant"),
    Attack("no tenant", _staff(org=None), "claim"),
    Attack("no role", _staff(realm_access={"roles": []}), status=403),
    Attack("a role that means nothing here", _staff(realm_access={"roles": ["admin"]}), status=403),
    Attack("roles of another shape", _staff(realm_access={"roles": {"ml": True}}), status=403),
    Attack(
        "a role of ours by its own name", _staff(realm_access={"roles": ["caller"]}), status=403
    ),
    Attack("a role that permits other things", _staff(realm_access={"roles": ["ops"]}), status=403),
    Attack("a role beyond the principal's own", _staff(preferred_username="oscar"), status=403),
    Attack(
        "a model beyond the issuer's scopes",
        lambda scene: bearer(scene.corp(), model="other"),
        status=403,
    ),
    Attack(
        "scope in a token of an issuer",
        lambda scene: bearer(scene.corp(scope="infer:* approve"), model="other"),
        status=403,
    ),
    Attack("another tenant's model by token", _staff(model="secret"), status=404),
    Attack("another tenant's model by key", _key("free", model="secret"), status=404),
    Attack("one's own model of another tenant", _key("zoe"), status=404),
    Attack("a model that the role does not name", _key("oscar"), status=403),
    Attack("a principal without a role", _key("nobody"), status=403),
    Attack("metrics is no model", _key("metrics"), status=403),
    Attack("an operator that is not registered", _key("operator"), status=403),
    *(
        Attack(f"scope {label}", _key(label), status=403)
        for label in (
            "star",
            "colon-star",
            "double",
            "prefix",
            "capitals",
            "bare",
            "empty",
            "spaces",
        )
    ),
)

ACCOUNTS = (
    Attack("of an earlier password", _replaced_password, "password"),
    Attack("of a principal without password", _own("alice"), "password"),
    Attack("of a disabled principal's password", _own("carol"), "password"),
    Attack("our name, an issuer's key", _own_forged, "signature"),
    Attack("our name, an issuer's token", _as_own, "algorithm"),
    Attack(
        "ours, expired",
        lambda scene: bearer(scene.own_token(now_ns=(scene.now_s - HOUR_S) * 10**9)),
        "expired",
    ),
    Attack(
        "ours, without signature",
        lambda scene: bearer(b".".join((*scene.own_token().split(b".")[:2], b""))),
        "unsigned",
    ),
    Attack("ours, for fewer models", _own("robot", scopes=("infer:other",)), status=403),
    Attack("ours, for more than its roles", _own("oscar", scopes=("infer:digits",)), status=403),
)

CERTIFICATES = (
    Attack("a certificate that nobody registered", _client("unregistered"), "certificate"),
    Attack("a revoked certificate", _client("revoked"), "certificate"),
    Attack("a certificate of a disabled principal", _client("carol"), "certificate"),
    Attack("a certificate before its time", _client("later"), "certificate"),
    Attack("a certificate after its time here", _client("outlived"), "certificate"),
    Attack("an expired certificate", _client("expired"), "certificate", is_tls=True),
    Attack("of another authority", _client("foreign"), "certificate", is_tls=True),
    Attack("of another authority, registered", _client("foreign-registered"), "", is_tls=True),
    Attack("self-signed", lambda _: Presented(None, self_signed()), "certificate", is_tls=True),
    Attack("a server's certificate", _client("server"), "certificate", is_tls=True),
    Attack("another's key", _client("robot", "alice"), "other"),
    Attack("another's token", _with_client("alice", lambda scene: scene.own_token()), "other"),
    Attack("an issuer's token", _with_client("alice", lambda scene: scene.corp()), "other"),
    Attack("a key of another tenant", _client("alice", "zoe"), "other"),
    Attack(
        "a wrong key beside a good certificate",
        lambda scene: bearer(
            scene.api_keys["alice"][:-43] + b"A" * 43, client=scene.clients["alice"]
        ),
        "key",
    ),
    Attack("a good key beside a bad certificate", _client("unregistered", "alice"), "certificate"),
    Attack("a model beyond the roles", _client("robot", model="secret"), status=404),
)

ATTACKS = (*KEYS, *FORMS, *CLAIMS, *BOUNDS, *ACCOUNTS, *CERTIFICATES)

HONEST: tuple[tuple[str, Make], ...] = (
    ("a key", _key("alice")),
    (
        "a key in another spelling of the scheme",
        lambda scene: Presented(b"bEARER  " + scene.api_keys["alice"]),
    ),
    ("a key of nobody registered", _key("free")),
    ("RS256", _corp()),
    ("RS256 without kid", _corp({"kid": None})),
    ("ES256", _signed(_ES, lambda scene: forge.es(scene.ec))),
    ("an access token", _corp({"typ": "at+JWT", "x5t": "AAAA"})),
    ("within the leeway", lambda scene: bearer(scene.corp(exp=scene.now_s - 5))),
    ("one of several audiences", _corp(aud=["other", AUDIENCE])),
    ("fractions of seconds", lambda scene: bearer(scene.corp(exp=scene.now_s + 60.5))),
    ("a registered principal by token", _staff()),
    ("a token for a password", _own("robot")),
    ("a token for one model", _own("robot", scopes=("infer:digits",))),
    ("a certificate", _client("alice")),
    ("a certificate with one's own key", _client("alice", "alice")),
    ("a certificate with one's own token", _with_client("robot", lambda scene: scene.own_token())),
)
