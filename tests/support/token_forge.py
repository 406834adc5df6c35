"""Tokens and keys as an attacker writes them: every part by hand, nothing checked."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils


def b64(raw: bytes) -> str:
    """base64url without padding."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def number(value: int) -> str:
    """A number as JWKs write it."""
    return b64(value.to_bytes((value.bit_length() + 7) // 8, "big"))


def compact(header: Any, payload: Any, sign: Any) -> bytes:
    """A token in compact form; header and payload as objects or as the very bytes."""
    parts = [
        b64(each if isinstance(each, bytes) else json.dumps(each).encode())
        for each in (header, payload)
    ]
    signed = ".".join(parts).encode()
    return signed + b"." + b64(sign(signed)).encode()


def rs(key: rsa.RSAPrivateKey, algorithm: Any = None) -> Any:
    """Signs with RSASSA-PKCS1-v1_5."""
    return lambda raw: key.sign(raw, padding.PKCS1v15(), algorithm or hashes.SHA256())


def ps(key: rsa.RSAPrivateKey) -> Any:
    """Signs with RSASSA-PSS."""
    form = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.DIGEST_LENGTH)
    return lambda raw: key.sign(raw, form, hashes.SHA256())


def es(key: ec.EllipticCurvePrivateKey) -> Any:
    """Signs with ECDSA, the two numbers side by side."""

    def sign(raw: bytes) -> bytes:
        r, s = utils.decode_dss_signature(key.sign(raw, ec.ECDSA(hashes.SHA256())))
        size = (key.curve.key_size + 7) // 8
        return r.to_bytes(size, "big") + s.to_bytes(size, "big")

    return sign


def es_der(key: ec.EllipticCurvePrivateKey) -> Any:
    """Signs with ECDSA in the form of X.509, which JWS does not know."""
    return lambda raw: key.sign(raw, ec.ECDSA(hashes.SHA256()))


def ed(key: ed25519.Ed25519PrivateKey) -> Any:
    """Signs with Ed25519."""
    return key.sign


def hs(secret: bytes) -> Any:
    """Signs with a shared secret, which may be somebody's public key."""
    return lambda raw: hmac.digest(secret, raw, hashlib.sha256)


def nothing(_: bytes) -> bytes:
    """Signs nothing."""
    return b""


def zeros(_: bytes) -> bytes:
    """Signs with zeros: 'psychic' ECDSA (CVE-2022-21449)."""
    return bytes(64)


def jwk(key: Any, **more: Any) -> dict[str, Any]:
    """The public half as a JWK."""
    public = key.public_key()
    if isinstance(public, rsa.RSAPublicKey):
        facts = public.public_numbers()
        return {"kty": "RSA", "n": number(facts.n), "e": number(facts.e), **more}
    if isinstance(public, ed25519.Ed25519PublicKey):
        return {"kty": "OKP", "crv": "Ed25519", "x": b64(public.public_bytes_raw()), **more}
    place = public.public_numbers()
    size = (public.curve.key_size + 7) // 8
    name = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}[public.curve.name]
    x, y = (b64(each.to_bytes(size, "big")) for each in (place.x, place.y))
    return {"kty": "EC", "crv": name, "x": x, "y": y, **more}


def jwks(*keys: dict[str, Any]) -> bytes:
    """A set of keys."""
    return json.dumps({"keys": keys}).encode()
