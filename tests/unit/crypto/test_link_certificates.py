"""What hosts and services show each other, each for its own end; a host reads its file strictly."""

import time

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from modelkeep.core.errors import UsageError
from modelkeep.core.instant import NS_PER_S
from modelkeep.crypto.certificates import new_authority, server_certificate
from modelkeep.crypto.link_certificates import (
    SERVICE_NAME,
    certified_name,
    host_certificate,
    host_identity,
    service_certificate,
)

NOW_NS = time.time_ns()
KEEP_ID = "0123456789abcdef"
OURS = new_authority(keep_id=KEEP_ID, now_ns=NOW_NS)
OTHERS = new_authority(keep_id="fedcba9876543210", now_ns=NOW_NS)
MADE = host_certificate(OURS, host="spare-1", days=30, now_ns=NOW_NS)
CERTIFICATE, AUTHORITY, KEY = MADE.pem.reveal().split(b"-----BEGIN ")[1:]


def facts(raw):
    made = x509.load_pem_x509_certificate(raw)
    uses = made.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert uses.critical
    return list(uses.value), names.get_values_for_type(x509.DNSName)


def test_each_is_for_its_own_end_and_for_one_name():
    assert facts(MADE.pem.reveal()) == (
        [ExtendedKeyUsageOID.SERVER_AUTH],
        [certified_name("spare-1")],
    )
    assert facts(service_certificate(OURS, now_ns=NOW_NS).reveal()) == (
        [ExtendedKeyUsageOID.CLIENT_AUTH],
        [SERVICE_NAME],
    )
    assert certified_name("service") != SERVICE_NAME


def test_a_host_reads_what_it_was_given():
    found = host_identity(MADE.pem.reveal())
    assert (found.host, found.authority) == ("spare-1", OURS.certificate)
    assert 29 < (found.expires_ns - NOW_NS) / NS_PER_S / 86_400 <= 30


def joined(*parts):
    return b"".join(b"-----BEGIN " + each for each in parts)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n" * 3,
        joined(CERTIFICATE, KEY),
        joined(AUTHORITY, CERTIFICATE, KEY),
        joined(CERTIFICATE, AUTHORITY, AUTHORITY),
        MADE.pem.reveal() + OURS.certificate,
        MADE.pem.reveal().replace(OURS.certificate, OTHERS.certificate),
        server_certificate(OURS, keep_id=KEEP_ID, hosts=("a",), now_ns=NOW_NS)
        .reveal()
        .replace(b"-----BEGIN PRIVATE", OURS.certificate + b"-----BEGIN PRIVATE"),
    ],
    ids=["empty", "no certificates", "two", "order", "no key", "four", "another's", "a server's"],
)
def test_what_is_no_hosts_file_is_refused(raw):
    with pytest.raises(UsageError) as raised:
        host_identity(raw)
    assert raised.value.code == "host.certificate"


@pytest.mark.parametrize("name", ["", "UPPER", "a.b", "-a", "a-", "a" * 64, "*", "ä"])
def test_a_host_has_one_label_of_dns(name):
    with pytest.raises(UsageError):
        host_certificate(OURS, host=name, days=1, now_ns=NOW_NS)
