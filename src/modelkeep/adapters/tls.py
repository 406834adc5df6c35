"""TLS of the gateway: Mozilla's intermediate profile (guideline 5.7), reloaded while it serves.

TLS 1.2 and 1.3, their AEAD suites with forward secrecy, and the groups X25519, P-256 and P-384.
Python's `ssl` cannot set groups before 3.15, but OpenSSL takes them from a configuration file that
it reads before the first context is made: the supervisor gives each gateway one, in a memory file,
by `OPENSSL_CONF`. Where a context can set groups itself, it does that too.

`load_cert_chain` on a context that is in use serves the new certificate from the next handshake on.
Sessions are resumed by tickets, whose keys each process makes for itself: at another gateway, and
after a restart, a client does a whole handshake.
"""

from __future__ import annotations

import os
import ssl

from modelkeep.adapters.memory_file import sealed_bytes
from modelkeep.core.errors import UsageError

# For TLS 1.2; 1.3 has good ones only. No DHE: it is slow, and no client of today needs it.
CIPHERS = (
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:"
    "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:"
    "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
)
SUITES = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
GROUPS = "X25519:prime256v1:secp384r1"
_CONFIGURATION = f"""openssl_conf = modelkeep
[modelkeep]
ssl_conf = ssl
[ssl]
system_default = tls
[tls]
MinProtocol = TLSv1.2
CipherString = {CIPHERS}
Ciphersuites = {SUITES}
Groups = {GROUPS}
"""


def openssl_environment() -> tuple[dict[str, str], int]:
    """What a process needs in its environment for these groups, and the descriptor to inherit."""
    fd = sealed_bytes("openssl.cnf", _CONFIGURATION.encode())
    return {"OPENSSL_CONF": f"/proc/self/fd/{fd}"}, fd


def server_context(chain: bytes, *, client_ca: bytes = b"") -> ssl.SSLContext:
    """A context that serves this certificate.

    Args:
        chain: PEM of the certificate, its chain and its private key.
        client_ca: PEM of authorities; a client may show a certificate of theirs, and one of
            anybody else's ends its handshake.

    Raises:
        UsageError: `tls.certificate` or `tls.client_ca`.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.set_ciphers(CIPHERS)
    set_groups = getattr(context, "set_groups", None)
    if set_groups is not None:
        set_groups(GROUPS)
    context.set_alpn_protocols(["http/1.1"])
    with_chain(context, chain)
    if client_ca:
        try:
            context.load_verify_locations(cadata=client_ca.decode("ascii"))
        except (ssl.SSLError, ValueError) as error:
            raise UsageError("tls.client_ca", f"no authorities can be read: {error}") from error
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


def with_chain(context: ssl.SSLContext, chain: bytes) -> None:
    """Serve another certificate from the next handshake on.

    Raises:
        UsageError: `tls.certificate`; the context goes on with the one that it has.
    """
    fd = sealed_bytes("tls", chain)
    try:
        context.load_cert_chain(f"/proc/self/fd/{fd}", password=_no_password)
    except (ssl.SSLError, OSError, ValueError) as error:
        raise UsageError(
            "tls.certificate",
            f"certificate and key cannot be used together: {error}",
            hint="certificate: PEM, the server's own first, its chain after it; key: PEM without a "
            "password",
        ) from error
    finally:
        os.close(fd)


def _no_password() -> str:
    """OpenSSL would ask at the terminal otherwise."""
    raise ValueError("the private key is protected by a password")
