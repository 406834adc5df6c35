"""Certificates for clients: issued by the keep's own authority, or read to be registered.

X.509 (RFC 5280) for TLS client authentication only. A key is made here (P-256), or a request (CSR,
PKCS#10) shows that whoever asks has one; of a request nothing but its key is taken, so it cannot
ask to be an authority or somebody else.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from modelkeep.core.errors import UsageError
from modelkeep.core.instant import NS_PER_S
from modelkeep.crypto.certificates import Authority
from modelkeep.crypto.secret import Secret

# Requests have 1 KB, certificates 1 to 4.
FILE_BYTES_MAX = 64 * 1024
DAYS_MAX = 825  # what public authorities could issue at most before 2020
_RSA_BITS_MIN = 2048
_COMMON_NAME_CHARS_MAX = 64  # RFC 5280, upper bound of a common name
_START = datetime.timedelta(minutes=5)  # a client's clock may be that much behind

Public = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey


@dataclass(frozen=True, slots=True)
class IssuedCertificate:
    """A client certificate.

    Attributes:
        pem: of the certificate.
        key: its private key, PEM; None where a request brought the public half.
        begins_ns: from when on it counts.
        expires_ns: until when.
    """

    pem: bytes
    key: Secret | None
    fingerprint: str
    begins_ns: int
    expires_ns: int


def issued_certificate(
    authority: Authority, *, name: str, days: int, now_ns: int, request: bytes = b""
) -> IssuedCertificate:
    """A certificate for a client of the keep's own authority.

    Args:
        name: of the principal, for people; who it is for is what State says of its fingerprint.
        request: PEM or DER of a CSR; empty to make a key.

    Raises:
        UsageError: `certificate.request` or `certificate.days`.
    """
    if not 1 <= days <= DAYS_MAX:
        raise UsageError("certificate.days", f"a certificate lives 1 to {DAYS_MAX} days")
    private = None if request else ec.generate_private_key(ec.SECP256R1())
    public = _requested_key(request) if private is None else private.public_key()
    signer = load_der_private_key(authority.key.reveal(), password=None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)  # `new_authority` made it
    start = datetime.datetime.fromtimestamp(now_ns // NS_PER_S, tz=datetime.UTC)
    ends = start + datetime.timedelta(days=days)
    made = (
        x509.CertificateBuilder()
        .subject_name(
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:_COMMON_NAME_CHARS_MAX])])
        )
        .issuer_name(x509.load_pem_x509_certificate(authority.certificate).subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start - _START)
        .not_valid_after(ends)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_USAGE, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=True)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()),
            critical=False,
        )
        .sign(signer, SHA256())
    )
    key = None
    if private is not None:
        key = Secret(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return _described(made, key)


def given_certificate(raw: bytes) -> IssuedCertificate:
    """Read a certificate of another authority, PEM or DER, to be registered.

    Raises:
        UsageError: `certificate.file`.
    """
    is_pem = raw.lstrip().startswith(b"-----BEGIN")
    try:
        load = x509.load_pem_x509_certificate if is_pem else x509.load_der_x509_certificate
        found = load(raw)
        public = found.public_key()
    except (ValueError, x509.InvalidVersion, UnsupportedAlgorithm) as error:
        raise UsageError("certificate.file", "this is no certificate") from error
    _demand_strong(public)
    return _described(found, None)


_USAGE = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)


def _requested_key(request: bytes) -> Public:
    """The key of a request that proves to have its private half.

    Raises:
        UsageError: `certificate.request`.
    """
    is_pem = request.lstrip().startswith(b"-----BEGIN")
    try:
        found = (x509.load_pem_x509_csr if is_pem else x509.load_der_x509_csr)(request)
        is_signed = found.is_signature_valid
        public = found.public_key()
    except (ValueError, x509.InvalidVersion, UnsupportedAlgorithm, InvalidSignature) as error:
        raise UsageError("certificate.request", "this is no certificate request") from error
    if not is_signed:
        raise UsageError("certificate.request", "the request is not signed by its own key")
    return _demand_strong(public)


def _demand_strong(public: object) -> Public:
    """Go on only with a key that TLS clients should have.

    Raises:
        UsageError: `certificate.key`.
    """
    is_good = (
        (isinstance(public, rsa.RSAPublicKey) and public.key_size >= _RSA_BITS_MIN)
        or isinstance(public, ed25519.Ed25519PublicKey)
        or (isinstance(public, ec.EllipticCurvePublicKey) and public.curve.key_size >= 256)
    )
    if not is_good:
        raise UsageError(
            "certificate.key",
            "the key is too weak, or of another kind",
            hint="P-256, P-384, Ed25519, or RSA of 2048 bits or more",
        )
    assert isinstance(public, Public)
    return public


def _described(found: x509.Certificate, key: Secret | None) -> IssuedCertificate:
    return IssuedCertificate(
        pem=found.public_bytes(Encoding.PEM),
        key=key,
        fingerprint=found.fingerprint(SHA256()).hex(),
        begins_ns=int(found.not_valid_before_utc.timestamp()) * NS_PER_S,
        expires_ns=int(found.not_valid_after_utc.timestamp()) * NS_PER_S,
    )
