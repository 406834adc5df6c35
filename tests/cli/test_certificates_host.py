"""`modelkeep certificates host`: a file for one machine, and nothing of it stays here."""

import stat

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from modelkeep.crypto.link_certificates import certified_name, host_identity


def test_a_host_is_given_one_file_with_all_that_it_needs(desk):
    out = desk.folder / "spare-1.pem"
    facts = desk.json("certificates", "host", "spare-1", "--out", out)
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    found = host_identity(out.read_bytes())
    assert (found.host, found.expires_ns) == ("spare-1", facts["expires_ns"])
    assert found.authority.strip() == (desk.keep / "ca.pem").read_bytes().strip()
    made = x509.load_pem_x509_certificate(out.read_bytes())
    uses = made.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(uses) == [ExtendedKeyUsageOID.SERVER_AUTH]
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [certified_name("spare-1")]
    (entry,) = desk.entries("host.certified")
    assert entry["facts"]["fingerprint"] == facts["fingerprint"]
    assert not any(out.read_bytes() in raw for raw in desk.files().values())
    assert (
        "spare-2 alone"
        in desk.run(
            "certificates", "host", "spare-2", "--out", desk.folder / "2.pem", "--days", 365
        ).out
    )


@pytest.mark.parametrize(
    ("name", "days", "wanted"),
    [
        ("Spare", 90, "host.name"),
        ("a.b", 90, "host.name"),
        ("spare-", 90, "host.name"),
        ("spare", 0, "certificate.days"),
        ("spare", 826, "certificate.days"),
    ],
)
def test_names_and_days_that_no_certificate_has_are_refused(desk, name, days, wanted):
    words = ("--out", desk.folder / "x.pem", "--days", days)
    assert desk.refusal("certificates", "host", name, *words, wanted=2) == wanted
    assert not (desk.folder / "x.pem").exists()


def test_nothing_is_overwritten(desk):
    out = desk.folder / "spare-1.pem"
    out.write_text("mine")
    found = desk.refusal("certificates", "host", "spare-1", "--out", out, wanted=2)
    assert found == "certificate.exists"
    assert out.read_text() == "mine"
    assert desk.entries("host.certified") == []
