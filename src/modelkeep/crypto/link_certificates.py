"""Certificates by which a service and a host of its replicas know each other, of the keep's CA.

Each is good for its own end only: a host's for the server's, the service's for the client's. Their
names lie below a domain that no public network has, so that none of them passes for a server that
clients of the service know: what a host is given opens nothing but calls of the service to it.
"""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from modelkeep.core.errors import UsageError
from modelkeep.core.host_names import is_host_name
from modelkeep.core.instant import NS_PER_S
from modelkeep.crypto.certificates import Authority
from modelkeep.crypto.client_certificates import DAYS_MAX
from modelkeep.crypto.secret import Secret

HOST_DAYS = 90
# The service's lies in memory and goes with it: it has to last as long as a service may run.
SERVICE_DAYS = DAYS_MAX
# `.internal` is for private use and is in no public DNS (ICANN, 29 July 2024).
_DOMAIN = "modelkeep.internal"
SERVICE_NAME = f"service.{_DOMAIN}"
_BLOCK = re.compile(rb"-----BEGIN [A-Z ]+-----\r?\n.*?\n-----END [A-Z ]+-----\r?\n", re.DOTALL)


@dataclass(frozen=True, slots=True)
class HostCertificate:
    """What a host is given.

    Attributes:
        pem: its certificate, the authority's and its private key, in this order.
        expires_ns: until when it counts.
    """

    pem: Secret
    fingerprint: str
    expires_ns: int


@dataclass(frozen=True, slots=True)
class HostIdentity:
    """What a host's file says.

    Attributes:
        host: its name.
        chain: its certificate and private key, PEM.
        authority: whom it trusts, PEM.
        expires_ns: until when the certificate counts.
    """

    host: str
    chain: Secret
    authority: bytes
    expires_ns: int


def certified_name(host: str) -> str:
    """The name that the certificate of a host has."""
    return f"{host}.host.{_DOMAIN}"


def host_certificate(authority: Authority, *, host: str, days: int, now_ns: int) -> HostCertificate:
    """A fresh certificate for a host, with its private key and whom it may trust.

    Raises:
        UsageError: `host.name` or `certificate.days`.
    """
    if not is_host_name(host):
        raise UsageError(
            "host.name",
            f"no name for a host of replicas: {host[:100]!r}",
            hint="lower-case letters, digits and hyphens, 63 at most",
        )
    if not 1 <= days <= DAYS_MAX:
        raise UsageError("certificate.days", f"a certificate lives 1 to {DAYS_MAX} days")
    use = ExtendedKeyUsageOID.SERVER_AUTH
    made, key = _issued(authority, certified_name(host), use=use, days=days, now_ns=now_ns)
    return HostCertificate(
        pem=Secret(made.public_bytes(Encoding.PEM) + authority.certificate + key),
        fingerprint=made.fingerprint(SHA256()).hex(),
        expires_ns=int(made.not_valid_after_utc.timestamp()) * NS_PER_S,
    )


def host_identity(raw: bytes) -> HostIdentity:
    """Read what `host_certificate` made.

    Raises:
        UsageError: `host.certificate`.
    """
    blocks = _BLOCK.findall(raw)
    try:
        own, authority, key = blocks
        found, issuer = map(x509.load_pem_x509_certificate, (own, authority))
        found.verify_directly_issued_by(issuer)
        load_pem_private_key(key, password=None)
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        (name,) = names.get_values_for_type(x509.DNSName)
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound) as error:
        raise _no_host_file() from error
    host, _, domain = name.partition(".")
    if f"{host}.{domain}" != certified_name(host):
        raise _no_host_file()
    return HostIdentity(
        host=host,
        chain=Secret(own + key),
        authority=authority,
        expires_ns=int(found.not_valid_after_utc.timestamp()) * NS_PER_S,
    )


def _no_host_file() -> UsageError:
    return UsageError(
        "host.certificate",
        "this file is not what a host is given",
        hint="`modelkeep certificates host NAME --out FILE` makes one, where the keep is",
    )


def service_certificate(authority: Authority, *, now_ns: int) -> Secret:
    """What a service shows to hosts, with its private key, PEM; for a memory file only."""
    use = ExtendedKeyUsageOID.CLIENT_AUTH
    made, key = _issued(authority, SERVICE_NAME, use=use, days=SERVICE_DAYS, now_ns=now_ns)
    return Secret(made.public_bytes(Encoding.PEM) + key)


def _issued(
    authority: Authority, name: str, *, use: x509.ObjectIdentifier, days: int, now_ns: int
) -> tuple[x509.Certificate, bytes]:
    issuer = load_der_private_key(authority.key.reveal(), password=None)
    assert isinstance(issuer, ec.EllipticCurvePrivateKey)  # `new_authority` made it
    trusted = x509.load_pem_x509_certificate(authority.certificate)
    private = ec.generate_private_key(ec.SECP256R1())
    start = datetime.datetime.fromtimestamp(now_ns // NS_PER_S, tz=datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "modelkeep link")]))
        .issuer_name(trusted.subject)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start - datetime.timedelta(days=1))
        .not_valid_after(start + datetime.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([use]), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key()),
            critical=False,
        )
        .sign(issuer, SHA256())
    )
    key = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return certificate, key
