"""TLS between a service and a host of its replicas: 1.3 only, both certificates checked, and names.

Nobody else speaks this protocol, so nothing older is offered. The service checks that the host's
certificate names the host that it means; the host checks that the caller's names the service. Both
come from the keep's authority and from nobody else's: system authorities are never trusted here.
"""

from __future__ import annotations

import os
import ssl

from modelkeep.adapters.memory_file import sealed_bytes
from modelkeep.core.errors import UsageError


def service_side(chain: bytes, authority: bytes) -> ssl.SSLContext:
    """What the service connects with; the name to expect is given for each connection.

    Args:
        chain: PEM of our certificate and its private key.
        authority: PEM of the keep's certificate authority.

    Raises:
        UsageError: `host.certificate`.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    assert context.check_hostname
    return _prepared(context, chain, authority)


def host_side(chain: bytes, authority: bytes) -> ssl.SSLContext:
    """What a host listens with; `is_named` then looks at who came.

    Raises:
        UsageError: `host.certificate`.
    """
    return _prepared(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), chain, authority)


def show(context: ssl.SSLContext, chain: bytes) -> None:
    """Show this certificate from now on.

    Raises:
        UsageError: `host.certificate`.
    """
    fd = sealed_bytes("link", chain)
    try:
        context.load_cert_chain(f"/proc/self/fd/{fd}", password=_no_password)
    except (ssl.SSLError, OSError, ValueError) as error:
        raise _not_good(error) from error
    finally:
        os.close(fd)


def is_named(peer: object, name: str) -> bool:
    """Whether a peer's certificate, as `ssl` shows it, has this name."""
    if not isinstance(peer, dict):
        return False
    return ("DNS", name) in peer.get("subjectAltName", ())


def _prepared(context: ssl.SSLContext, chain: bytes, authority: bytes) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    try:
        context.load_verify_locations(cadata=authority.decode("ascii"))
    except (ssl.SSLError, OSError, ValueError) as error:
        raise _not_good(error) from error
    show(context, chain)
    return context


def _not_good(error: Exception) -> UsageError:
    return UsageError("host.certificate", f"no certificate for replicas of other hosts: {error}")


def _no_password() -> str:
    """OpenSSL would ask at the terminal otherwise."""
    raise ValueError("the private key is protected by a password")
