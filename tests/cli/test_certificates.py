"""`principals certificate`, `certificates`: issued once, its key where one says, revoked."""

import stat

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from gateway_world import certificate

TAKEN = "certificate.taken"


@pytest.fixture
def robot(desk):
    desk.run("principals", "new", "robot", "--role", "caller")
    return desk


def code(desk, *words, wanted=2):
    return desk.run(*words, "--json", wanted=wanted).error["code"]


def issued(desk, *words):
    out, key = desk.folder / "robot.pem", desk.folder / "robot.key"
    facts = desk.json("principals", "certificate", "robot", "--out", out, "--key-out", key, *words)
    return facts, out, key


def request(key, name="somebody else"):
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    asked = x509.CertificateSigningRequestBuilder().subject_name(subject)
    asked = asked.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return asked.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


def test_a_certificate_is_for_clients_only_and_its_key_is_its_owners(robot):
    facts, out, key = issued(robot)
    found = x509.load_pem_x509_certificate(out.read_bytes())
    assert facts["fingerprint"] == found.fingerprint(hashes.SHA256()).hex()
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    private = load_pem_private_key(key.read_bytes(), password=None)
    assert private.public_key() == found.public_key()
    uses = found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(uses) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert not found.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    found.verify_directly_issued_by(
        x509.load_pem_x509_certificate((robot.keep / "ca.pem").read_bytes())
    )
    assert not any(key.read_bytes() in raw for raw in robot.files().values())


def test_certificates_are_listed_and_revoked(robot):
    facts, _, _ = issued(robot, "--days", 30)
    (listed,) = robot.json("certificates", "list")
    assert (listed["fingerprint"], listed["revoked"]) == (facts["fingerprint"], False)
    assert robot.json("certificates", "revoke", facts["fingerprint"])["revoked"]
    assert "revoked" in robot.run("certificates", "revoke", facts["fingerprint"].upper()).out
    assert [kind for kind in robot.kinds() if kind.startswith("certificate.")] == [
        "certificate.issued",
        "certificate.revoked",
    ]
    assert robot.refusal("certificates", "revoke", "00", wanted=5) == "certificate.unknown"


def test_of_a_request_nothing_but_its_key_is_taken(robot):
    key = ec.generate_private_key(ec.SECP256R1())
    (robot.folder / "robot.csr").write_bytes(request(key))
    out = robot.folder / "robot.pem"
    words = ("--csr", robot.folder / "robot.csr", "--out", out)
    robot.run("principals", "certificate", "robot", *words)
    found = x509.load_pem_x509_certificate(out.read_bytes())
    assert found.public_key() == key.public_key()
    assert found.subject.rfc4514_string() == "CN=robot"
    assert not found.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_a_request_that_is_none_or_weak_is_refused(robot):
    out, csr = robot.folder / "robot.pem", robot.folder / "robot.csr"
    words = ("principals", "certificate", "robot", "--csr", csr, "--out", out)
    csr.write_bytes(b"nothing")
    assert code(robot, *words) == "certificate.request"
    csr.write_bytes(request(rsa.generate_private_key(65537, 1024)))  # noqa: S505 - weak on purpose
    assert code(robot, *words) == "certificate.key"
    assert not robot.json("certificates", "list")


def test_a_certificate_of_another_authority_is_registered_for_one_principal(robot):
    robot.run("principals", "new", "alice", "--role", "caller")
    path = robot.folder / "corporate.pem"
    path.write_bytes(certificate("robot.corp.example")[0])
    words = ("--register", path)
    facts = robot.json("principals", "certificate", "robot", *words)
    assert len(robot.json("certificates", "list")) == 1
    assert code(robot, "principals", "certificate", "alice", *words, wanted=3) == TAKEN
    robot.run("certificates", "revoke", facts["fingerprint"])
    assert code(robot, "principals", "certificate", "robot", *words, wanted=3) == TAKEN


def test_nothing_is_overwritten_and_nothing_is_half_done(robot):
    out, key = robot.folder / "robot.pem", robot.folder / "robot.key"
    key.write_text("mine")
    words = ("principals", "certificate", "robot")
    both = (*words, "--out", out, "--key-out", key)
    assert code(robot, *both) == "certificate.exists"
    assert key.read_text() == "mine"
    assert code(robot, *words, "--out", out) == "certificate.key_out"
    assert code(robot, *words) == "certificate.out"
    days = (*words, "--out", out, "--key-out", robot.folder / "k", "--days", 900)
    assert code(robot, *days) == "certificate.days"
    assert not robot.json("certificates", "list")
    assert not out.exists()
