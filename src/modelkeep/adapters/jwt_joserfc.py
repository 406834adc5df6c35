"""Tokens: verified against the keys of their issuers, and signed for our own accounts.

The theory is in `gate.identity_token`; here are its steps 5 and 6, which need keys, and the keys.
`keys_of` turns a JWK Set (RFC 7517) into keys, dropping each that is of no use: another type, a
curve that no algorithm has, RSA under 2048 bits, marked for encryption, or private.

A verified token is remembered by its SHA-256, with the set of keys that it was verified under.
When a set changes, what rests on it is looked at again; a token whose key is gone is refused.
"""

from __future__ import annotations

import base64
import hashlib
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey

from modelkeep.core.errors import IntegrityError
from modelkeep.core.instant import NS_PER_S
from modelkeep.core.record import parsed_json, to_json
from modelkeep.crypto.secret import Secret
from modelkeep.crypto.signatures import Signer
from modelkeep.gate.identity_settings import IssuerSettings
from modelkeep.gate.identity_token import (
    Basis,
    Claims,
    UnverifiedToken,
    invalid,
    unverified_token,
    verified_claims,
)

# Public issuers have two to ten; some keep one per tenant.
KEYS_MAX = 128
RSA_BITS = range(2048, 8193)
# Verified tokens that are remembered over changes of State; the oldest is forgotten first.
VERIFIED_MAX = 8192
# What our own tokens say: who signs, whom for, and with which algorithm (RFC 9864).
OWN_NAME = "modelkeep"
OWN_ALGORITHM = "Ed25519"
_NEVER_NS = 2**63
_SIGNATURE_CHARS_MAX = 2048  # of an RSA key of 8192 bits: 1366

Key = RSAKey | ECKey | OKPKey
_CURVES = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}


class _Registry(jws.JWSRegistry):
    """The library's list of algorithms, none recommended, none warned of: the caller has chosen."""

    max_signature_length = _SIGNATURE_CHARS_MAX

    def get_alg(self, name: str) -> Any:
        """The algorithm of this name, if it is allowed."""
        if not self.allowed or name not in self.allowed:
            raise invalid("algorithm")
        return self.algorithms[name]


class KeySet:
    """The keys of one issuer as of one moment; `basis` says for how long they are believed."""

    __slots__ = ("_by_kid", "_keys", "basis", "digest")

    def __init__(self, keys: Sequence[Key], *, digest: bytes, holds_until_ns: int) -> None:
        self._keys = tuple(keys)
        self._by_kid = {key.kid: key for key in keys if key.kid is not None}
        self.digest = digest
        self.basis = Basis(holds_until_ns)

    def __len__(self) -> int:
        return len(self._keys)

    def key_for(self, kid: str | None, algorithm: str) -> Key | None:
        """The key that a token names; without a name, the only one that fits."""
        if kid is not None:
            key = self._by_kid.get(kid)
            return key if key is not None and algorithm in _algorithms(key) else None
        fitting = [key for key in self._keys if algorithm in _algorithms(key)]
        return fitting[0] if len(fitting) == 1 else None

    def has(self, kid: str | None) -> bool:
        """Whether a key of this name is there; one without a name is not looked for."""
        return kid is None or kid in self._by_kid


class Issuer:
    """One issuer: what is configured of it, and the keys that it has now.

    Attributes:
        keys: replaced by whoever fetches them, as a whole.
        is_wanted: a token named a key that is not there: they should be fetched again.
    """

    __slots__ = ("is_wanted", "keys", "settings")

    def __init__(self, settings: IssuerSettings, keys: KeySet | None = None) -> None:
        self.settings = settings
        self.keys = keys or KeySet((), digest=b"", holds_until_ns=0)
        self.is_wanted = False

    def replace(self, keys: KeySet) -> None:
        """Believe other keys from now on; what rests on the ones before is looked at again."""
        old, self.keys = self.keys, keys
        old.basis.holds_until_ns = 0


class JoseBearers:
    """Verifies tokens, for one gateway.

    Args:
        issuers: others'.
        own: signs our own tokens; None where there are none.
    """

    def __init__(self, issuers: Sequence[Issuer], own: OwnIssuer | None = None) -> None:
        self.issuers = {each.settings.label: each.settings for each in issuers}
        self._by_name = {each.settings.issuer: each for each in issuers}
        self._own = own
        self._verified: dict[bytes, Claims] = {}

    def claims_of(self, token: bytes, *, now_ns: int) -> Claims:
        """See `gate.identity.Bearers`."""
        digest = hashlib.sha256(token).digest()
        known = self._verified.get(digest)
        if (
            known is not None
            and known.begins_ns <= now_ns < known.ends_ns
            and now_ns < known.basis.holds_until_ns
        ):
            return known
        self._verified.pop(digest, None)
        claims = self._claims(token, now_ns)
        if len(self._verified) >= VERIFIED_MAX:
            del self._verified[next(iter(self._verified))]
        self._verified[digest] = claims
        return claims

    def _claims(self, token: bytes, now_ns: int) -> Claims:
        said = unverified_token(token)
        if self._own is not None and said.issuer == OWN_NAME:
            return self._own.claims_of(token, said, now_ns)
        issuer = self._by_name.get(said.issuer)
        if issuer is None:
            raise invalid("issuer")
        keys = issuer.keys
        if said.algorithm not in issuer.settings.algorithms:  # 5
            raise invalid("algorithm")
        if now_ns >= keys.basis.holds_until_ns:
            issuer.is_wanted = True
            raise invalid("stale")
        key = keys.key_for(said.kid, said.algorithm)
        if key is None:
            issuer.is_wanted = issuer.is_wanted or not keys.has(said.kid)
            raise invalid("key")
        _demand_signed(token, key, said.algorithm)  # 6
        return verified_claims(said.payload, issuer.settings, now_ns=now_ns, basis=keys.basis)


class OwnIssuer:
    """Signs and verifies the tokens that this service gives for passwords.

    Args:
        seed: 32 bytes of an Ed25519 key, the same for all gateways of a service.
        lifetime_s: of a token.
    """

    def __init__(self, seed: Secret, *, lifetime_s: float) -> None:
        self._key = _ed25519(seed)
        self.lifetime_s = lifetime_s
        self._basis = Basis(_NEVER_NS)
        self._header = {"alg": OWN_ALGORITHM, "typ": "at+jwt"}
        self._settings = IssuerSettings(
            label="",
            issuer=OWN_NAME,
            audience=OWN_NAME,
            scopes=(),
            leeway_s=0.0,  # one clock, or those of one machine
            lifetime_s_max=lifetime_s,
        )

    def signed(
        self,
        subject: str,
        *,
        password_id: str,
        token_id: str,
        now_ns: int,
        scopes: Sequence[str] | None = None,
    ) -> bytes:
        """A token for whoever knew the password."""
        now_s = now_ns // NS_PER_S
        claims: dict[str, Any] = {
            "iss": OWN_NAME,
            "aud": OWN_NAME,
            "sub": subject,
            "iat": now_s,
            "exp": now_s + int(self.lifetime_s),
            "jti": token_id,
            "password_id": password_id,
        }
        if scopes is not None:
            claims["scope"] = " ".join(scopes)
        registry = _Registry(algorithms=[OWN_ALGORITHM])
        return jws.serialize_compact(
            self._header, to_json(claims), self._key, registry=registry
        ).encode()

    def claims_of(self, token: bytes, said: UnverifiedToken, now_ns: int) -> Claims:
        """What a token of ours says that holds now.

        Raises:
            UsageError: `auth.invalid`.
        """
        if said.algorithm != OWN_ALGORITHM or said.kid is not None:
            raise invalid("algorithm")
        _demand_signed(token, self._key, OWN_ALGORITHM)
        claims = verified_claims(said.payload, self._settings, now_ns=now_ns, basis=self._basis)
        scope, password_id = said.payload.get("scope"), said.payload.get("password_id")
        if not isinstance(password_id, str) or not isinstance(scope, str | None):
            raise invalid("claim")
        return Claims(
            issuer="",
            subject=claims.subject,
            begins_ns=claims.begins_ns,
            ends_ns=claims.ends_ns,
            basis=claims.basis,
            scopes=None if scope is None else tuple(scope.split()),
            password_id=password_id,
        )


def keys_of(raw: bytes, *, what: str) -> list[Key]:
    """The usable keys of a JWK Set.

    Raises:
        IntegrityError: `jwks.form`, when it is none, has none of use, or two of one name.
    """
    found = parsed_json(raw, what=what)
    listed = found.get("keys") if isinstance(found, dict) else None
    if not isinstance(listed, list) or len(listed) > KEYS_MAX:
        raise IntegrityError("jwks.form", f"{what} is no JWK Set of up to {KEYS_MAX} keys")
    keys = [key for each in listed if (key := _usable(each)) is not None]
    names = [key.kid for key in keys]
    if not keys or len(set(names)) != len(names):
        raise IntegrityError("jwks.form", f"{what} holds no key of use, or two of one name")
    return keys


def _usable(value: object) -> Key | None:
    """A public key that can verify; None for everything else."""
    if not isinstance(value, Mapping) or value.get("use", "sig") != "sig":
        return None
    kinds: dict[object, type[Key]] = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}
    name = value.get("kty")
    kind = kinds.get(name) if isinstance(name, str) else None
    operations = value.get("key_ops", ["verify"])
    kid = value.get("kid")
    if kind is None or "d" in value or not (kid is None or isinstance(kid, str)):
        return None
    if not isinstance(operations, list) or "verify" not in operations:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of keys that are dropped below
            key = kind.import_key({str(name): each for name, each in value.items()})
            is_good = bool(_algorithms(key))
    except (JoseError, LookupError, ValueError, TypeError, OverflowError):
        return None  # a curve that the library does not know is a LookupError
    return key if is_good else None


def _algorithms(key: Key) -> tuple[str, ...]:
    """What a key may verify: the algorithms of its type, or the one that it names of them."""
    if isinstance(key, RSAKey):
        numbers = key.public_key.public_numbers()
        is_strong = key.public_key.key_size in RSA_BITS and numbers.e >= 3 and numbers.e % 2 == 1
        able = tuple(f"{kind}{bits}" for kind in ("RS", "PS") for bits in (256, 384, 512))
        able = able if is_strong else ()
    elif isinstance(key, ECKey):
        able = tuple(name for curve, name in _CURVES.items() if key.curve_name == curve)
    else:
        able = ("Ed25519", "EdDSA") if key.curve_name == "Ed25519" else ()
    return able if key.alg is None else tuple(name for name in able if name == key.alg)


def _demand_signed(token: bytes, key: Key, algorithm: str) -> None:
    """Go on only if the key signed the token.

    Raises:
        UsageError: `auth.invalid`.
    """
    try:
        jws.deserialize_compact(token, key, registry=_Registry(algorithms=[algorithm]))
    except (JoseError, ValueError, TypeError) as error:
        raise invalid("signature") from error


def _ed25519(seed: Secret) -> OKPKey:
    halves = {"d": seed.reveal(), "x": Signer(seed).public}
    written = {name: base64.urlsafe_b64encode(raw).rstrip(b"=") for name, raw in halves.items()}
    key = {name: raw.decode() for name, raw in written.items()}
    return OKPKey.import_key({"kty": "OKP", "crv": "Ed25519", **key})
