"""The keep's own certificate authority, and the server certificates that it issues.

X.509 (RFC 5280) with ECDSA P-256. The authority's key is random, wrapped in the keyring, and
outlives a disaster, so clients that trust the keep's `ca.pem` trust the recovered service too.
A server certificate is made at each start of the service and its key never touches a disk.
"""

from __future__ import annotations

import datetime
import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
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
from modelkeep.crypto.secret import Secret

_CA_DAYS = 3650
# Mozilla's profile recommends 90, and allows 366 at most; the service renews it in time.
SERVER_DAYS = 90
# Letters, digits, hyphens and, as many networks use them, underscores; a first label may be `*`.
_DNS_NAME = re.compile(r"(\*\.)?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?")


@dataclass(frozen=True, slots=True)
class Authority:
    """A keep's certificate authority.

    Attributes:
        key: PKCS#8 DER of its P-256 key.
        certificate: self-signed, PEM; clients trust this.
    """

    key: Secret
    certificate: bytes


def new_authority(*, keep_id: str, now_ns: int) -> Authority:
    """A fresh authority for a new keep."""
    private = ec.generate_private_key(ec.SECP256R1())
    name = _authority_name(keep_id)
    start = _moment(now_ns)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start - datetime.timedelta(days=1))
        .not_valid_after(start + datetime.timedelta(days=_CA_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(
            x509.SubjectKeyIdentifier.from_public_key(private.public_key()), critical=False
        )
        .sign(private, SHA256())
    )
    key = private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return Authority(key=Secret(key), certificate=certificate.public_bytes(Encoding.PEM))


def server_certificate(
    authority: Authority, *, keep_id: str, hosts: Sequence[str], now_ns: int
) -> Secret:
    """A fresh server certificate with its private key, one PEM; for a memory file only."""
    issuer = _loaded(authority.key)
    private = ec.generate_private_key(ec.SECP256R1())
    start = _moment(now_ns)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "modelkeep gateway")]))
        .issuer_name(_authority_name(keep_id))
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start - datetime.timedelta(days=1))
        .not_valid_after(start + datetime.timedelta(days=SERVER_DAYS))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.SubjectAlternativeName([_general_name(host) for host in hosts]), critical=False
        )
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key()),
            critical=False,
        )
        .sign(issuer, SHA256())
    )
    key = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return Secret(certificate.public_bytes(Encoding.PEM) + key)


def _loaded(key: Secret) -> ec.EllipticCurvePrivateKey:
    private = load_der_private_key(key.reveal(), password=None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)  # `new_authority` made it
    return private


def _authority_name(keep_id: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"modelkeep {keep_id}")])


def _moment(at_ns: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(at_ns // NS_PER_S, tz=datetime.UTC)


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(_dns_name(host))


def _dns_name(host: str) -> str:
    """A host's name as DNS and certificates have it: ASCII, other letters in IDNA.

    Raises:
        UsageError: `serve.hostname`.
    """
    try:
        name = host.encode("idna").decode("ascii")
    except UnicodeError:
        name = ""
    if _DNS_NAME.fullmatch(name) is None:
        raise UsageError(
            "serve.hostname",
            f"{host!r} is no host name that a certificate can be made for",
            hint="correct host or hostnames in [serve] of modelkeep.toml",
        )
    return name


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
