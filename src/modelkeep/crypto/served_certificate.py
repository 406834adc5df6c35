"""What a certificate that others made says of itself: its fingerprint, its time, its names.

Of a chain the first certificate is the server's own (RFC 8446, 4.4.2). Whose word it is, clients
decide by their authorities; what is looked at here keeps every one of them away.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from modelkeep.core.errors import UsageError
from modelkeep.core.instant import NS_PER_S

WARN_DAYS = 14
_S_PER_DAY = 86_400


@dataclass(frozen=True, slots=True)
class ServedCertificate:
    """The server's own certificate of a chain.

    Attributes:
        fingerprint: SHA-256 of its DER, in hex.
        names: DNS names in lower case, and addresses.
    """

    fingerprint: str
    begins: datetime.datetime
    ends: datetime.datetime
    names: frozenset[str]

    def demand_current(self, now_ns: int) -> None:
        """Go on only within its time.

        Raises:
            UsageError: `tls.certificate`.
        """
        now = _moment(now_ns)
        if self.begins <= now <= self.ends:
            return
        said = (
            f"is not valid before {self.begins:%Y-%m-%d %H:%M} UTC"
            if now < self.begins
            else f"expired at {self.ends:%Y-%m-%d %H:%M} UTC"
        )
        raise UsageError(
            "tls.certificate",
            f"the certificate {said}",
            hint="renew what [serve] certificate names, or look at this machine's clock",
        )

    def doubts(self, hosts: Iterable[str], now_ns: int) -> tuple[str, ...]:
        """What will keep clients away although it can be served, in sentences.

        Args:
            hosts: what clients call this server; an address of every interface says nothing.
        """
        known = [host for host in hosts if not _is_anywhere(host)]
        days = (self.ends - _moment(now_ns)).total_seconds() / _S_PER_DAY
        found = []
        if known and not any(map(self._covers, known)):
            found.append(
                f"the certificate is for {', '.join(sorted(self.names)) or 'nobody'}, "
                f"not for {' or '.join(known)}: clients that use these names refuse it"
            )
        if days < WARN_DAYS:
            found.append(f"the certificate ends in {days:.1f} days: renew it")
        return tuple(found)

    def _covers(self, host: str) -> bool:
        name = host.lower().rstrip(".")
        try:
            return str(ip_address(name)) in self.names
        except ValueError:
            return name in self.names or f"*.{name.partition('.')[2]}" in self.names


def served_certificate(chain: bytes) -> ServedCertificate:
    """The first certificate of a chain in PEM.

    Raises:
        UsageError: `tls.certificate`.
    """
    try:
        first = x509.load_pem_x509_certificates(chain)[0]
        names = _names(first)
    except (ValueError, x509.DuplicateExtension) as error:
        raise UsageError(
            "tls.certificate",
            f"the certificate cannot be read: {error}",
            hint="PEM, the server's own first, its chain after it",
        ) from error
    return ServedCertificate(
        fingerprint=first.fingerprint(SHA256()).hex(),
        begins=first.not_valid_before_utc,
        ends=first.not_valid_after_utc,
        names=names,
    )


def _names(certificate: x509.Certificate) -> frozenset[str]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return frozenset()
    hosts = {name.lower() for name in found.get_values_for_type(x509.DNSName)}
    return frozenset(hosts | {str(each) for each in found.get_values_for_type(x509.IPAddress)})


def _moment(at_ns: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(at_ns / NS_PER_S, tz=datetime.UTC)


def _is_anywhere(host: str) -> bool:
    try:
        return ip_address(host).is_unspecified
    except ValueError:
        return False
