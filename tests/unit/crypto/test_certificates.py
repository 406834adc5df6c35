"""The keep's certificates: its own clients trust it for its own names, and nobody else does."""

import contextlib
import ssl
import time

import pytest
from cryptography import x509

from modelkeep.core.errors import UsageError
from modelkeep.crypto.certificates import new_authority, server_certificate
from modelkeep.crypto.secret import Secret

NOW_NS = time.time_ns()
DAY_NS = 86_400 * 10**9
HOSTS = ("127.0.0.1", "localhost", "::1", "models.example")


@pytest.fixture(scope="module")
def authority():
    return new_authority(keep_id="0123456789abcdef", now_ns=NOW_NS)


@pytest.fixture(scope="module")
def certificate(authority):
    return server_certificate(authority, keep_id="0123456789abcdef", hosts=HOSTS, now_ns=NOW_NS)


@pytest.fixture
def handshake(tmp_path):
    """TLS in memory: whether a client that trusts one authority believes a server."""

    def believed(pem, ca, host):
        (tmp_path / "server.pem").write_bytes(pem.reveal() if isinstance(pem, Secret) else pem)
        server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server_side.load_cert_chain(tmp_path / "server.pem")
        client_side = ssl.create_default_context(cadata=ca.certificate.decode())
        to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
        server = server_side.wrap_bio(to_server, to_client, server_side=True)
        client = client_side.wrap_bio(to_client, to_server, server_hostname=host)
        for _ in range(3):
            for side in (client, server):
                with contextlib.suppress(ssl.SSLWantReadError):
                    side.do_handshake()
        return client.getpeercert()

    return believed


@pytest.mark.parametrize("host", HOSTS)
def test_a_client_of_the_keep_believes_its_own_names(handshake, authority, certificate, host):
    assert handshake(certificate, authority, host)


@pytest.mark.parametrize("host", ["127.0.0.2", "example", "x.models.example", "::2", "localhost2"])
def test_no_other_name_is_believed(handshake, authority, certificate, host):
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(certificate, authority, host)


def test_another_keep_is_not_believed_although_it_has_the_same_name(handshake, certificate):
    stranger = new_authority(keep_id="0123456789abcdef", now_ns=NOW_NS)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(certificate, stranger, "localhost")


@pytest.mark.parametrize("days", [-398, 400])
def test_a_certificate_of_another_time_is_not_believed(handshake, authority, days):
    made = server_certificate(
        authority, keep_id="0123456789abcdef", hosts=HOSTS, now_ns=NOW_NS + days * DAY_NS
    )
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(made, authority, "localhost")


def test_the_authority_signs_certificates_and_nothing_below_it_does(authority, certificate):
    own = x509.load_pem_x509_certificate(authority.certificate)
    leaf = x509.load_pem_x509_certificate(certificate.reveal())
    ca, usage = x509.BasicConstraints, x509.KeyUsage
    assert own.extensions.get_extension_for_class(ca).value.ca
    assert own.extensions.get_extension_for_class(ca).value.path_length == 0
    assert own.extensions.get_extension_for_class(usage).value.key_cert_sign
    assert not leaf.extensions.get_extension_for_class(ca).value.ca
    assert not leaf.extensions.get_extension_for_class(usage).value.key_cert_sign
    leaf.verify_directly_issued_by(own)
    lifetime = leaf.not_valid_after_utc - leaf.not_valid_before_utc
    assert lifetime.days <= 398


def test_every_start_has_a_key_of_its_own(authority, certificate):
    again = server_certificate(authority, keep_id="0123456789abcdef", hosts=HOSTS, now_ns=NOW_NS)
    keys = [
        x509.load_pem_x509_certificate(each.reveal()).public_key() for each in (certificate, again)
    ]
    assert keys[0] != keys[1]


def test_the_authoritys_key_is_in_no_certificate(authority, certificate):
    assert b"PRIVATE" not in authority.certificate
    assert authority.key.reveal() not in certificate.reveal()


def test_a_name_in_other_letters_is_written_as_dns_has_it(authority):
    made = server_certificate(
        authority, keep_id="0123456789abcdef", hosts=("b\u00fccher.example",), now_ns=NOW_NS
    )
    leaf = x509.load_pem_x509_certificate(made.reveal())
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["xn--bcher-kva.example"]


@pytest.mark.parametrize(
    "host", ["", ".", "a..b", "two words", "x" * 64, "a/b", "*.*.example", "\ud800"]
)
def test_a_name_that_no_certificate_can_carry_is_refused(authority, host):
    with pytest.raises(UsageError) as refused:
        server_certificate(authority, keep_id="0123456789abcdef", hosts=(host,), now_ns=NOW_NS)
    assert refused.value.code == "serve.hostname"
    assert refused.value.hint
