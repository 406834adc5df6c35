"""`encrypt` and `decrypt` for programs: bytes, files and streams, of both forms."""

import io
import tracemalloc

import age_writer as age
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from modelkeep import Client
from modelkeep.core.errors import IntegrityError, KeepError, RefusedError, UsageError
from modelkeep.crypto.kdf import Argon2Settings
from modelkeep.crypto.keytext import verifier_text
from modelkeep.crypto.recipients import Identity
from modelkeep.crypto.secret import Secret
from modelkeep.sdk import sealing

CHEAP = Argon2Settings(memory_kib=8, passes=1, lanes=1)
ME, YOU = (Identity(Secret(bytes([n]) * 32)) for n in range(2))
TO_ME = str(ME.recipient)
VERIFIER = verifier_text(YOU.signer.public)
AGE = age.recipient_text(b"m" * 32)


@pytest.fixture
def files(tmp_path):
    """An identity with its public file, an RSA pair, an age identity."""
    (tmp_path / "me.pub").write_text(sealing.make_identity(tmp_path / "me.key"))
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "rsa.key").write_bytes(pem)
    (tmp_path / "rsa.pub").write_bytes(public)
    (tmp_path / "age.key").write_text(age.identity_text(b"m" * 32) + "\n")
    (tmp_path / "age.pub").write_text(f"# mine\n{AGE}\n")
    for path in tmp_path.glob("*.key"):
        path.chmod(0o600)
    return tmp_path


def code(call):
    with pytest.raises(KeepError) as refused:
        call()
    return refused.value.code


def test_bytes_come_back_for_every_kind_of_recipient(files):
    for kind in ("me", "rsa", "age"):
        raw = sealing.encrypt(b"plain", to=files / f"{kind}.pub")
        assert sealing.decrypt(raw, identity=files / f"{kind}.key") == b"plain"
        everything = [files / "age.key", files / "rsa.key", files / "me.key"]
        assert sealing.decrypt(raw, identity=everything) == b"plain"
    assert sealing.encrypt(b"", to=AGE).startswith(b"age-encryption.org/v1\n")


def test_texts_pem_objects_and_files_name_recipients_alike(files):
    pem = (files / "rsa.pub").read_text()
    raw = sealing.encrypt(b"plain", to=[TO_ME, pem, sealing.keys_of(files / "me.pub")])
    for identity in (ME, files / "rsa.key", files / "me.key"):
        assert sealing.decrypt(raw, identity=identity) == b"plain"


def test_a_passphrase_is_enough():
    source, target = io.BytesIO(b"plain"), io.BytesIO()
    sealing.encrypt_file(source, target, passphrase="correct horse", argon2=CHEAP)  # noqa: S106
    raw = target.getvalue()
    assert sealing.decrypt(raw, passphrase="correct horse") == b"plain"  # noqa: S106
    assert sealing.decrypt(raw, passphrase=Secret(b"correct horse")) == b"plain"
    assert code(lambda: sealing.decrypt(raw, passphrase="horse")) == "sealed.key"  # noqa: S106
    assert code(lambda: sealing.decrypt(raw, passphrase="")) == "files.passphrase"
    assert code(lambda: sealing.decrypt(raw)) == "sealed.key"


def test_a_caller_has_the_same_two_verbs():
    with Client(server="https://localhost:1", api_key="mk_0") as client:
        raw = client.encrypt(b"plain", to=TO_ME)
        assert client.decrypt(raw, identity=ME) == b"plain"


def test_a_signature_can_be_given_and_demanded(files):
    raw = sealing.encrypt(b"plain", to=TO_ME, sign_with=YOU)
    assert sealing.decrypt(raw, identity=ME, signed_by=VERIFIER) == b"plain"
    (files / "you.pub").write_text(VERIFIER + "\n")
    assert sealing.decrypt(raw, identity=ME, signed_by=files / "you.pub") == b"plain"
    mine = verifier_text(ME.signer.public)
    assert code(lambda: sealing.decrypt(raw, identity=ME, signed_by=mine)) == "sealed.signer"
    unsigned = sealing.encrypt(b"plain", to=TO_ME)
    assert code(lambda: sealing.decrypt(unsigned, identity=ME, signed_by=mine)) == "sealed.signer"
    # An empty list trusts nobody, and keys that are no verifiers are none.
    for nobody in ([], TO_ME):
        assert (
            code(lambda nobody=nobody: sealing.decrypt(raw, identity=ME, signed_by=nobody))
            == "files.verifier"
        )
    other = sealing.encrypt(b"plain", to=TO_ME, sign_with=files / "me.key")
    assert sealing.decrypt(other, identity=ME, signed_by=files / "me.pub") == b"plain"


def test_what_makes_no_file_is_refused():
    encrypt = sealing.encrypt
    assert code(lambda: encrypt(b"")) == "files.recipient"
    assert code(lambda: encrypt(b"", to=[])) == "files.recipient"
    assert code(lambda: encrypt(b"", to=VERIFIER)) == "files.recipient"
    assert code(lambda: encrypt(b"", to=[TO_ME, AGE])) == "files.age"
    assert code(lambda: encrypt(b"", to=AGE, passphrase="x")) == "files.age"  # noqa: S106
    assert code(lambda: encrypt(b"", to=AGE, sign_with=ME)) == "files.age"
    assert code(lambda: encrypt(b"", to=[TO_ME] * 65)) == "sealed.recipients"


def test_an_age_file_is_signed_by_nobody(files):
    raw = sealing.encrypt(b"plain", to=AGE)
    decrypt = sealing.decrypt
    assert code(lambda: decrypt(raw, identity=files / "age.key", signed_by=VERIFIER)) == "files.age"


def test_who_signs_is_one_modelkeep_identity(files):
    for signer in ("age.key", "rsa.key"):
        with pytest.raises(UsageError) as refused:
            sealing.encrypt(b"", to=TO_ME, sign_with=files / signer)
        assert refused.value.code == "files.signer"


def test_an_identity_file_that_others_may_read_is_refused(files):
    (files / "me.key").chmod(0o644)
    raw = sealing.encrypt(b"plain", to=files / "me.pub")
    with pytest.raises(RefusedError) as refused:
        sealing.decrypt(raw, identity=files / "me.key")
    assert refused.value.code == "file.readable"


def test_an_identity_is_never_replaced(files):
    before = (files / "me.key").read_bytes()
    assert code(lambda: sealing.make_identity(files / "me.key")) == "file.exists"
    assert (files / "me.key").read_bytes() == before


def test_files_come_back_and_say_what_they_were(files):
    plain = bytes(200_000)
    (files / "in").write_bytes(plain)
    seen = []
    sealed = sealing.encrypt_file(
        files / "in", files / "out", to=files / "me.pub", sign_with=YOU, progress=seen.append
    )
    assert (sealed.form, sealed.recipients, sealed.size_bytes) == ("modelkeep", 1, 200_000)
    assert sum(seen) == 200_000
    opened = sealing.decrypt_file(files / "out", files / "back", identity=files / "me.key")
    assert (opened.form, opened.size_bytes, opened.signer) == ("modelkeep", 200_000, VERIFIER)
    assert (files / "back").read_bytes() == plain


@pytest.mark.parametrize("form", ["me", "age"])
@pytest.mark.parametrize("harm", ["flip", "cut", "more"])
def test_a_damaged_file_leaves_nothing(files, form, harm):
    (files / "in").write_bytes(bytes(200_000))
    sealing.encrypt_file(files / "in", files / "out", to=files / f"{form}.pub")
    raw = bytearray((files / "out").read_bytes())
    if harm == "flip":
        raw[-70_000] ^= 1
    (files / "out").write_bytes(raw[:-1] if harm == "cut" else raw + b"x" * (harm == "more"))
    before = set(files.iterdir())
    with pytest.raises(IntegrityError):
        sealing.decrypt_file(files / "out", files / "back", identity=files / f"{form}.key")
    assert set(files.iterdir()) == before


def test_a_wrong_signature_leaves_nothing_though_every_chunk_is_right(files):
    (files / "in").write_bytes(bytes(100))
    sealing.encrypt_file(files / "in", files / "out", to=TO_ME, sign_with=YOU)
    raw = bytearray((files / "out").read_bytes())
    raw[-1] ^= 1
    (files / "out").write_bytes(raw)
    before = set(files.iterdir())
    call = lambda: sealing.decrypt_file(files / "out", files / "back", identity=ME)  # noqa: E731
    assert code(call) == "sealed.signature"
    assert set(files.iterdir()) == before


def test_a_stream_gets_nothing_where_a_signature_is_demanded():
    raw = sealing.encrypt(b"plain", to=TO_ME, sign_with=YOU)
    target = io.BytesIO()
    with pytest.raises(UsageError) as refused:
        sealing.decrypt_file(io.BytesIO(raw), target, identity=ME, signed_by=VERIFIER)
    assert refused.value.code == "files.unproven"
    assert target.getvalue() == b""


class Zeros:
    """A long stream that takes no memory."""

    def __init__(self, size):
        self.left = size

    def read(self, size):
        size = min(size, self.left)
        self.left -= size
        return bytes(size)


class Sink:
    """Takes any number of bytes."""

    def __init__(self):
        self.size = 0

    def write(self, block):
        self.size += len(block)
        return len(block)

    def flush(self):
        pass


@pytest.mark.parametrize("to", [TO_ME, AGE])
def test_memory_does_not_grow_with_the_file(to):
    sealing.encrypt_file(Zeros(10), Sink(), to=to)  # imports
    tracemalloc.start()
    try:
        sink = Sink()
        sealing.encrypt_file(Zeros(30_000_000), sink, to=to)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sink.size > 30_000_000
    assert peak < 2_000_000


def test_a_detached_signature_is_by_those_one_names(files):
    text = sealing.sign_file(io.BytesIO(b"weights"), sign_with=YOU)
    (files / "sig").write_bytes(text)
    text = sealing.signature_of(files / "sig")
    verify = sealing.verify_file
    found = verify(io.BytesIO(b"weights"), text, signed_by=[VERIFIER, files / "me.pub"])
    assert (found.signer, found.size_bytes) == (VERIFIER, 7)
    weights = io.BytesIO(b"weights!")
    assert code(lambda: verify(weights, text, signed_by=VERIFIER)) == "signature.bad"
    assert code(lambda: verify(weights, text, signed_by=files / "me.pub")) == "signature.signer"
    assert code(lambda: verify(weights, text, signed_by=[])) == "files.verifier"
    (files / "sig").write_bytes(text * 2)
    assert code(lambda: sealing.signature_of(files / "sig")) == "file.size"
