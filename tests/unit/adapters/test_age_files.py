"""The age form: interoperable with a writer of our own and with the age program, both ways."""

import io
import shutil
import subprocess

import age_writer as age
import pyrage
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.adapters.age_files import HEADER_BYTES_MAX, decrypt_age, encrypt_age
from modelkeep.core.errors import IntegrityError, KeepError, LimitError, UsageError
from modelkeep.crypto.secret import Secret

PRIVATE, OTHER = b"m" * 32, b"o" * 32
IDENTITY = Secret(age.identity_text(PRIVATE).encode())
RECIPIENT = age.recipient_text(PRIVATE)
STANZA = age.x25519_stanza(PRIVATE)
GOOD = age.header([STANZA])
PROGRAM = shutil.which("age") or ""
needs_age = pytest.mark.skipif(not PROGRAM, reason="the age program is not installed")


def encrypted(plain, recipients=(RECIPIENT,)):
    target = io.BytesIO()
    encrypt_age(io.BytesIO(plain).read, target.write, recipients=recipients)
    return target.getvalue()


def decrypted(raw, identities=(IDENTITY,), released=None):
    parts = [] if released is None else released
    size = decrypt_age(io.BytesIO(raw).read, parts.append, identities=identities)
    assert size == sum(map(len, parts))
    return b"".join(parts)


def code(raw, **options):
    with pytest.raises(KeepError) as refused:
        decrypted(raw, **options)
    return refused.value.code


def test_our_spelling_of_keys_is_the_librarys():
    assert str(pyrage.x25519.Identity.from_str(age.identity_text(PRIVATE)).to_public()) == RECIPIENT


@pytest.mark.parametrize("size", [0, 1, age.CHUNK, age.CHUNK + 1, 3 * age.CHUNK])
def test_files_of_an_independent_writer_open(size):
    plain = bytes(range(256)) * (size // 256 + 1)
    plain = plain[:size]
    raw = GOOD + age.payload(plain)
    assert decrypted(raw) == plain
    assert decrypted(age.armoured(raw)) == plain
    assert decrypted(b"\r\n \t\n" + age.armoured(raw) + b"\n\n") == plain
    assert decrypted(encrypted(plain)) == plain


def test_armour_that_ends_where_the_look_ahead_ends_opens():
    """96 KiB are looked at: the closing line may be cut there."""
    for size in range(72_300, 72_420, 5):
        plain = bytes(size)
        assert decrypted(age.armoured(GOOD + age.payload(plain))) == plain


RIGHT = {
    "second of two": age.header([age.x25519_stanza(OTHER), STANZA]),
    "an unknown stanza": age.header(["-> grease a b\nQUJD\n", STANZA]),
    "an unknown stanza without a body": age.header(["-> grease\n\n", STANZA]),
    "a long unknown stanza": age.header(["-> x\n" + "A" * 64 + "\n" + "A" * 64 + "\n\n", STANZA]),
    "many stanzas": age.header([age.x25519_stanza(OTHER)] * 300 + [STANZA]),
}


@pytest.mark.parametrize("header", RIGHT.values(), ids=RIGHT.keys())
def test_right_headers_open(header):
    assert decrypted(header + age.payload(b"plain")) == b"plain"


LOW_ORDER = bytes(32)
WRONG_HEADERS = {
    "another version": age.header([STANZA], version="age-encryption.org/v2"),
    "no stanza": age.header([]),
    "a wrong MAC": age.header([STANZA], file_key=b"BLACK  SUBMARINE"),
    "a stanza more than the MAC knows": GOOD.replace(b"---", b"-> x\n\n---", 1),
    "a stanza without a body": age.header(["-> x\n", STANZA]),
    "a stanza without its last line": age.header(["-> x\n" + "A" * 64 + "\n", STANZA]),
    "a line that is too long": age.header(["-> x\n" + "A" * 65 + "\n\n", STANZA]),
    "no arguments": age.header(["-> \n\n", STANZA]),
    "two spaces": age.header(["-> x  y\n\n", STANZA]),
    "a letter outside ASCII": age.header(["-> é\n\n", STANZA]),
    "padding": age.header(["-> x\nQUI=\n", STANZA]),
    "spare bits": age.header(["-> x\nQUJ\n", STANZA]),
    "a carriage return": GOOD.replace(b"\n", b"\r\n"),
    "a long file key": age.header([age.x25519_stanza(PRIVATE, file_key=b"k" * 24)]),
    "a share of low order": age.header([age.x25519_stanza(PRIVATE, share=LOW_ORDER)]),
    "a short share": age.header([age.x25519_stanza(PRIVATE, share=b"x" * 31)]),
    "a long share": age.header([age.x25519_stanza(PRIVATE, share=b"x" * 33)]),
    "an argument more": age.header([age.x25519_stanza(PRIVATE, more=" x")]),
    "a lower-case kind": age.header([STANZA.replace("X25519", "x25519")]),
    "a padded MAC": GOOD[:-1] + b"=\n",
    "a space behind the MAC": GOOD[:-1] + b" \n",
}


@pytest.mark.parametrize("header", WRONG_HEADERS.values(), ids=WRONG_HEADERS.keys())
def test_wrong_headers_are_refused_and_release_nothing(header):
    for raw in (header + age.payload(b"plain"), age.armoured(header + age.payload(b"plain"))):
        released = []
        assert code(raw, released=released) in {"age.damaged", "age.key"}
        assert not released


def last(plain, number):
    return age.chunk(plain, number, is_last=True)


def more(plain, number):
    return age.chunk(plain, number, is_last=False)


FULL = b"x" * age.CHUNK
WRONG_PAYLOADS = {
    "nothing": b"",
    "half a nonce": age.NONCE[:8],
    "no chunk": age.NONCE,
    "a cut chunk": age.NONCE + last(b"plain", 0)[:-1],
    "no last chunk": age.NONCE + more(b"plain", 0),
    "no last full chunk": age.NONCE + more(FULL, 0),
    "an empty last chunk": age.NONCE + more(FULL, 0) + last(b"", 1),
    "two last chunks": age.NONCE + last(b"plain", 0) + last(b"", 1),
    "two last full chunks": age.NONCE + last(FULL, 0) + last(FULL, 1),
    "bytes behind the end": age.payload(b"plain") + b"\0",
    "bytes behind a full end": age.payload(FULL) + b"\0",
    "a moved chunk": age.NONCE + more(FULL, 1) + last(b"plain", 0),
    "a dropped chunk": age.NONCE + more(FULL, 0) + last(b"plain", 2),
    "a short chunk inside": age.NONCE + more(b"short", 0) + last(b"plain", 1),
}


@pytest.mark.parametrize("payload", WRONG_PAYLOADS.values(), ids=WRONG_PAYLOADS.keys())
def test_wrong_payloads_are_refused_and_release_whole_chunks_at_most(payload):
    released = []
    assert code(GOOD + payload, released=released) == "age.damaged"
    assert b"".join(released) in (b"", FULL)


@given(st.integers(0, (len(GOOD) + 37) * 8 - 1))
def test_any_flipped_bit_is_noticed(at):
    raw = bytearray(GOOD + age.payload(b"plain"))
    raw[at // 8] ^= 1 << (at % 8)
    with pytest.raises(KeepError):
        decrypted(bytes(raw))


@given(st.binary(max_size=300))
def test_no_bytes_are_an_age_file(raw):
    for start in (b"", b"age-encryption.org/v1\n", b"-----BEGIN AGE ENCRYPTED FILE-----\n"):
        with pytest.raises(KeepError):
            decrypted(start + raw)


def test_only_the_right_identity_opens():
    raw = GOOD + age.payload(b"plain")
    other = Secret(age.identity_text(OTHER).encode())
    assert code(raw, identities=[other]) == "age.key"
    assert code(raw, identities=[]) == "age.key"
    assert decrypted(raw, identities=[other, IDENTITY]) == b"plain"


@pytest.mark.parametrize("wrap", [bytes, age.armoured], ids=["binary", "armoured"])
def test_a_header_without_an_end_is_not_read_on(wrap):
    """The library would read it in quadratic time."""
    stanza = "-> x y\n" + "A" * 64 + "\n\n"
    long = age.header([stanza] * (HEADER_BYTES_MAX // len(stanza) + 1) + [STANZA])
    with pytest.raises(LimitError) as refused:
        decrypted(wrap(long + age.payload(b"x" * 99_999)))
    assert refused.value.code == "age.header"


@pytest.mark.parametrize(
    "text", ["age1foo", RECIPIENT[:-1], "", "mkr1", "ssh-ed25519 AAAA", IDENTITY.reveal().decode()]
)
def test_what_is_no_recipient_is_refused(text):
    with pytest.raises(UsageError) as refused:
        encrypted(b"", recipients=[text])
    assert refused.value.code == "age.recipient"
    assert "SECRET" not in str(refused.value.as_facts())


def test_what_is_no_identity_is_refused_and_not_repeated():
    for text in (IDENTITY.reveal()[:-1], b"AGE-SECRET-KEY-1\xff"):
        with pytest.raises(UsageError) as refused:
            decrypted(GOOD, identities=[Secret(text)])
        assert refused.value.code == "age.identity"
        assert "AGE-SECRET" not in str(refused.value.as_facts())


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), IntegrityError("a.b", "c"), OSError(28, "x")]
)
def test_what_a_reader_or_a_writer_raises_comes_out_as_it_is(error):
    """pyrage would make an error of its own of Ctrl-C."""

    def fail(_):
        raise error

    source = io.BytesIO(bytes(300_000))
    with pytest.raises(type(error)) as raised:
        encrypt_age(fail, lambda _: None, recipients=[RECIPIENT])
    assert raised.value is error
    for call in (
        lambda: encrypt_age(source.read, fail, recipients=[RECIPIENT]),
        lambda: decrypt_age(
            io.BytesIO(GOOD + age.payload(b"plain")).read, fail, identities=[IDENTITY]
        ),
    ):
        with pytest.raises(type(error)) as raised:
            call()
        assert raised.value is error


@needs_age
@pytest.mark.parametrize("size", [0, 5, age.CHUNK, 300_000])
def test_the_age_program_opens_what_we_encrypt_and_the_other_way_round(tmp_path, size):
    plain = bytes(range(256)) * (size // 256 + 1)
    plain = plain[:size]
    key = tmp_path / "age.key"
    key.write_bytes(IDENTITY.reveal() + b"\n")
    other = age.recipient_text(OTHER)
    ours = encrypted(plain, recipients=[other, RECIPIENT])
    opened = subprocess.run([PROGRAM, "-d", "-i", key], input=ours, capture_output=True, check=True)
    assert opened.stdout == plain
    for arm in ([], ["-a"]):
        words = [PROGRAM, *arm, "-r", other, "-r", RECIPIENT]
        theirs = subprocess.run(words, input=plain, capture_output=True, check=True).stdout
        assert decrypted(theirs) == plain
