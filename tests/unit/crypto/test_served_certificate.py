"""A given certificate is served within its time only, and doubts about it are said."""

import time

import pytest
from gateway_world import certificate
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.core.errors import UsageError
from modelkeep.crypto.served_certificate import served_certificate
from modelkeep.flows.settings import ServeSettings
from modelkeep.workers.server_key import ServerKey


def doubts(*hosts, ends_days=90.0):
    pem = certificate("*.keep.example", address="10.0.0.7", ends_days=ends_days)[0]
    return served_certificate(pem).doubts(hosts, time.time_ns())


@pytest.mark.parametrize(
    "hosts",
    [("10.0.0.7",), ("a.keep.example",), ("A.Keep.Example.",), ("127.0.0.1", "b.keep.example")],
)
def test_a_certificate_that_covers_one_of_the_names_raises_no_doubt(hosts):
    assert doubts(*hosts) == ()


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])  # noqa: S104 - nothing is bound
def test_an_address_of_every_interface_is_nobodys_name(host):
    assert doubts(host) == ()


@pytest.mark.parametrize("hosts", [("127.0.0.1",), ("keep.example",), ("a.b.keep.example",)])
def test_a_certificate_for_other_names_is_doubted(hosts):
    (found,) = doubts(*hosts)
    assert f"not for {hosts[0]}" in found
    assert "*.keep.example" in found


def test_a_certificate_that_ends_soon_is_doubted():
    (found,) = doubts("10.0.0.7", ends_days=13.5)
    assert "ends in 13.5 days" in found


@pytest.mark.parametrize(
    ("begins_days", "ends_days", "wanted"), [(-9, -1, "expired"), (1, 9, "not valid before")]
)
def test_an_expired_or_future_pair_is_not_served(tmp_path, begins_days, ends_days, wanted):
    said = []
    (tmp_path / "key.pem").touch(mode=0o600)
    key = f"file:{tmp_path / 'key.pem'}"
    server_key = ServerKey(tmp_path, ServeSettings(certificate="chain.pem", key=key), said.append)

    def write(**when):
        pem, both = certificate(**when)
        (tmp_path / "chain.pem").write_bytes(pem)
        (tmp_path / "key.pem").write_bytes(both.removeprefix(pem))

    write(ends_days=90)
    server_key.given(time.time_ns())
    before = server_key.fingerprint
    assert (len(before), said) == (64, [])
    write(begins_days=begins_days, ends_days=ends_days)
    with pytest.raises(UsageError, match=wanted) as refused:
        server_key.given(time.time_ns())
    assert refused.value.code == "tls.certificate"
    assert refused.value.hint
    assert server_key.fingerprint == before


@given(raw=st.binary(max_size=200))
def test_what_is_no_certificate_is_one_error(raw):
    pem = b"-----BEGIN CERTIFICATE-----\n" + raw + b"\n-----END CERTIFICATE-----\n"
    for chain in (raw, pem):
        with pytest.raises(UsageError):
            served_certificate(chain)
