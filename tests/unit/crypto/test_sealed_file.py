"""Sealed files: they open for those they were sealed to, whole and unchanged, or not at all."""

import hmac
import io
import itertools

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.core.errors import IntegrityError, KeepError, RefusedError, UsageError
from modelkeep.core.record import from_msgpack, replaced, to_msgpack
from modelkeep.crypto.kdf import Argon2Settings, derived_key
from modelkeep.crypto.locks import (
    FILE_MEMORY_KIB_MAX,
    Passphrase,
    RecipientStanza,
    RsaStanza,
    stanza_of,
)
from modelkeep.crypto.recipients import Identity
from modelkeep.crypto.rsa_keys import rsa_identity, rsa_recipient
from modelkeep.crypto.sealed_file import (
    FIRST_LINE,
    HEADER_BYTES_MAX,
    STANZAS_MAX,
    Header,
    opened_file,
    sealed_file,
)
from modelkeep.crypto.secret import Secret
from modelkeep.crypto.stream import CHUNK_BYTES

CHEAP = Argon2Settings(memory_kib=8, passes=1, lanes=1)
ME, YOU, THIEF = (Identity(Secret(bytes([n]) * 32)) for n in range(3))
WORDS = Passphrase(Secret(b"correct horse"), CHEAP)
_PRIVATE = rsa.generate_private_key(public_exponent=65537, key_size=2048)
RSA = rsa_identity(
    Secret(_PRIVATE.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
)
RSA_RECIPIENT = rsa_recipient(
    _PRIVATE.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
)
PAIRS = [(ME, ME.recipient), (YOU, YOU.recipient), (RSA, RSA_RECIPIENT), (WORDS, WORDS)]
PLAIN = b"weights " * 9000  # two chunks


class Counted:
    """Entropy that never repeats and is the same in every run."""

    def __init__(self):
        self.numbers = itertools.count()

    def __call__(self, size):
        return next(self.numbers).to_bytes(4, "big") * (size // 4)


def sealed(plain=PLAIN, *, locks=(ME.recipient,), signer=None):
    read = io.BytesIO(plain).read
    return b"".join(sealed_file(read, locks=locks, signer=signer, random_bytes=Counted()))


def opened(raw, *, keys=(ME,), signers=None):
    found = opened_file(io.BytesIO(raw).read, keys=keys, signers=signers)
    return b"".join(found.chunks)


def refusal(raw, **options):
    with pytest.raises(KeepError) as refused:
        opened(raw, **options)
    return refused.value.code


PLAIN_FILE = sealed()
SIGNED_FILE = sealed(signer=YOU.signer, locks=(ME.recipient, WORDS))


def parts(raw):
    """First line, header record, its MAC, and what follows."""
    start = len(FIRST_LINE) + 4
    size = int.from_bytes(raw[len(FIRST_LINE) : start], "big")
    header = from_msgpack(Header, raw[start : start + size], what="test")
    return header, raw[start + size : start + size + 32], raw[start + size + 32 :]


def rebuilt(header, mac, rest):
    packed = header if isinstance(header, bytes) else to_msgpack(header)
    return FIRST_LINE + len(packed).to_bytes(4, "big") + packed + mac + rest


def maced(header, file_key, rest=b""):
    """A header with a right MAC, as one who knows the file key makes it."""
    start = rebuilt(header, b"", b"")
    key = derived_key(file_key, "sealed-file/header", salt=header.salt)
    return start + hmac.digest(key.reveal(), start, "sha256") + rest


@given(st.binary(max_size=300), st.booleans(), st.sets(st.sampled_from(range(4)), min_size=1))
def test_every_recipient_opens_what_was_sealed(plain, is_signed, chosen):
    keys, locks = zip(*(PAIRS[number] for number in chosen), strict=True)
    raw = sealed(plain, locks=locks, signer=YOU.signer if is_signed else None)
    for key in keys:
        assert opened(raw, keys=(key,)) == plain
        assert opened(raw, keys=(THIEF, key)) == plain
    assert refusal(raw, keys=(THIEF,)) == "sealed.key"


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES - 64])
def test_every_length_comes_back_signed_and_unsigned(size):
    plain = bytes(size)
    assert opened(sealed(plain)) == plain
    assert opened(sealed(plain, signer=ME.signer), signers=[ME.signer.public]) == plain


@pytest.mark.parametrize("raw", [PLAIN_FILE, SIGNED_FILE], ids=["plain", "signed"])
def test_any_flipped_bit_is_an_error(raw):
    """All of header, MAC, tags and signature; every 97th byte of the payload."""
    start = len(raw) - len(PLAIN) - 32 - (64 if raw is SIGNED_FILE else 0)
    places = [*range(start), *range(start, len(raw) - 64, 97), *range(len(raw) - 96, len(raw))]
    for at in places[::3]:
        changed = bytearray(raw)
        changed[at] ^= 1 << (at % 8)
        refusal(bytes(changed))


@given(st.data())
def test_no_flipped_bits_anywhere_give_a_plaintext(data):
    raw = data.draw(st.sampled_from([PLAIN_FILE, SIGNED_FILE]))
    changed = bytearray(raw)
    for at in data.draw(st.sets(st.integers(0, len(raw) * 8 - 1), min_size=1, max_size=4)):
        changed[at // 8] ^= 1 << (at % 8)
    refusal(bytes(changed), keys=(ME, WORDS))


@given(st.integers(0, len(PLAIN_FILE) - 1), st.integers(0, len(SIGNED_FILE) - 1))
def test_a_cut_anywhere_is_an_error(plain_at, signed_at):
    refusal(PLAIN_FILE[:plain_at])
    refusal(SIGNED_FILE[:signed_at])


@given(st.binary(min_size=1, max_size=100))
def test_bytes_after_the_end_are_an_error(more):
    refusal(PLAIN_FILE + more)
    refusal(SIGNED_FILE + more)


@given(st.binary(max_size=400))
def test_no_bytes_are_a_sealed_file(raw):
    refusal(raw)
    refusal(FIRST_LINE + raw)
    refusal(rebuilt(raw, bytes(32), b""))


@given(st.binary(max_size=60), st.integers(0, 2000), st.integers(0, 60))
def test_a_header_with_anything_in_it_is_an_error(junk, at, gone):
    header, mac, rest = parts(PLAIN_FILE)
    packed = to_msgpack(header)
    changed = packed[:at] + junk + packed[at + gone :]
    if changed != packed:
        refusal(rebuilt(changed, mac, rest))


def test_a_file_of_two_files_is_an_error():
    """Header of one, payload of the other, even where random numbers came twice (`Counted`)."""
    header, mac, rest = parts(PLAIN_FILE)
    for other in (sealed(PLAIN[::-1]), sealed(), sealed(locks=(ME.recipient, YOU.recipient))):
        found, _, foreign = parts(other)
        assert found.salt == header.salt
        assert foreign != rest
        assert refusal(rebuilt(header, mac, foreign)) == "sealed.chunk"


def test_recipients_cannot_be_added_removed_or_moved():
    raw = sealed(locks=(ME.recipient, YOU.recipient))
    header, mac, rest = parts(raw)
    first, second = header.stanzas
    for stanzas in ((first,), (second, first), (first, first), (first, second, first)):
        changed = rebuilt(replaced(header, stanzas=stanzas), mac, rest)
        assert refusal(changed) == "sealed.mac"


def test_a_file_crafted_for_two_keys_is_refused():
    """Two readers must not find two things in one file: only one file key fits the commitment."""
    mine, yours = Secret(b"m" * 32), Secret(b"y" * 32)
    header, _, rest = parts(PLAIN_FILE)
    stanzas = tuple(
        stanza_of(lock, key, random_bytes=Counted())
        for lock, key in ((ME.recipient, mine), (YOU.recipient, yours))
    )
    salt = header.salt
    commitment = derived_key(mine, "sealed-file/commitment", salt=salt).reveal()
    crafted = Header(salt=salt, commitment=commitment, stanzas=stanzas, signer=b"")
    assert refusal(maced(crafted, mine, rest), keys=(YOU,)) == "sealed.commitment"
    assert refusal(maced(crafted, yours, rest), keys=(YOU,)) == "sealed.commitment"
    assert refusal(maced(crafted, yours, rest), keys=(ME,)) == "sealed.mac"
    assert refusal(maced(crafted, mine, rest), keys=(ME,)) == "sealed.chunk"
    # After a stanza that opens and does not fit, no other one is tried.
    twice = tuple(stanza_of(ME.recipient, key, random_bytes=Counted()) for key in (yours, mine))
    assert refusal(maced(replaced(crafted, stanzas=twice), mine, rest)) == "sealed.commitment"


def test_a_signature_can_be_demanded():
    mine, yours = ME.signer.public, YOU.signer.public
    assert opened(SIGNED_FILE, signers=[yours]) == PLAIN
    assert opened(SIGNED_FILE, signers=[mine, yours]) == PLAIN
    assert opened(SIGNED_FILE) == PLAIN
    assert refusal(SIGNED_FILE, signers=[mine]) == "sealed.signer"
    assert refusal(PLAIN_FILE, signers=[mine]) == "sealed.signer"
    for nobody in ([], [b""]):
        with pytest.raises(RefusedError):
            opened(SIGNED_FILE, signers=nobody)
    assert refusal(PLAIN_FILE, signers=[]) == "sealed.signer"


def test_a_recipient_cannot_change_what_was_signed():
    """Who knows the file key can make right tags and MACs; the signature still does not fit."""
    locks, signer = (ME.recipient,), YOU.signer
    raw = sealed(PLAIN, locks=locks, signer=signer)
    forged = sealed(PLAIN[::-1], locks=locks, signer=signer)  # same entropy, so the same file key
    signature = raw[-64:]
    assert refusal(forged[:-64] + signature) == "sealed.signature"
    other = sealed(PLAIN, locks=(ME.recipient, YOU.recipient), signer=signer)
    assert refusal(other[:-64] + signature) == "sealed.signature"


def test_a_signature_cannot_be_taken_away():
    header, mac, rest = parts(SIGNED_FILE)
    assert refusal(rebuilt(replaced(header, signer=b""), mac, rest[:-64])) == "sealed.mac"


def test_nothing_of_a_refused_file_is_released():
    for raw, keys in ((PLAIN_FILE, (THIEF,)), (SIGNED_FILE, ())):
        with pytest.raises(RefusedError) as refused:
            opened_file(io.BytesIO(raw).read, keys=keys)
        assert refused.value.code == "sealed.key"


def test_what_a_file_is_sealed_to_is_said_when_no_key_opens_it():
    with pytest.raises(RefusedError) as refused:
        opened(sealed(locks=(RSA_RECIPIENT, WORDS)))
    assert "RSA" in refused.value.hint
    assert "passphrase" in refused.value.hint
    assert "mkr1" not in refused.value.hint


@pytest.mark.parametrize("count", [1, STANZAS_MAX])
def test_as_many_recipients_as_allowed_are_written_and_read(count):
    raw = sealed(locks=(YOU.recipient,) * (count - 1) + (ME.recipient,))
    assert opened(raw) == PLAIN


@pytest.mark.parametrize(
    "locks", [(), (ME.recipient,) * (STANZAS_MAX + 1), (WORDS, ME.recipient, WORDS)]
)
def test_nobody_too_many_and_two_passphrases_are_refused_before_anything_is_read(locks):
    def unread(_):
        raise AssertionError("something was read")

    with pytest.raises(UsageError) as refused:
        sealed_file(unread, locks=locks, random_bytes=Counted())
    assert refused.value.code == "sealed.recipients"


def test_a_passphrase_that_costs_too_much_to_read_is_not_written():
    dear = Passphrase(WORDS.secret, Argon2Settings(memory_kib=8, passes=9, lanes=1))
    with pytest.raises(UsageError):
        sealed(locks=(dear,))


def bad_headers():
    header, _, _ = parts(SIGNED_FILE)
    recipient, words = header.stanzas
    costly = replaced(words.settings, memory_kib=FILE_MEMORY_KIB_MAX + 1)
    slow = replaced(words.settings, passes=9)
    for change in (
        {"salt": header.salt[:-1]},
        {"salt": b""},
        {"commitment": header.commitment + b"\0"},
        {"signer": header.signer[:-1]},
        {"stanzas": ()},
        {"stanzas": (recipient,) * (STANZAS_MAX + 1)},
        {"stanzas": (words, words)},
        {"stanzas": (RecipientStanza(sealed=recipient.sealed[:-1]),)},
        {"stanzas": (RsaStanza(sealed=bytes(255)),)},
        {"stanzas": (RsaStanza(sealed=bytes(1025)),)},
        {"stanzas": (replaced(words, salt=b""),)},
        {"stanzas": (replaced(words, box=words.box + b"\0"),)},
        {"stanzas": (replaced(words, settings=costly),)},
        {"stanzas": (replaced(words, settings=slow),)},
    ):
        yield replaced(header, **change)


def test_a_header_out_of_bounds_is_refused_before_any_key_is_tried():
    class Untouchable:
        def __iter__(self):
            raise AssertionError("a key was tried")

    for header in bad_headers():
        raw = rebuilt(header, bytes(32), b"")
        with pytest.raises(IntegrityError) as refused:
            opened_file(io.BytesIO(raw).read, keys=Untouchable())
        assert refused.value.code == "sealed.header"


def test_passphrase_settings_that_are_nonsense_are_refused():
    header, _, rest = parts(SIGNED_FILE)
    words = header.stanzas[1]
    for change in ({"memory_kib": -1}, {"passes": 0}, {"lanes": 0}, {"lanes": 2**40}):
        stanza = replaced(words, settings=replaced(words.settings, **change))
        raw = rebuilt(replaced(header, stanzas=(stanza,)), bytes(32), rest)
        assert refusal(raw, keys=(WORDS,)) == "kdf.cost"


def test_a_long_header_is_not_read():
    asked = []

    def read(size):
        asked.append(size)
        return (FIRST_LINE + (HEADER_BYTES_MAX + 1).to_bytes(4, "big"))[:size]

    with pytest.raises(IntegrityError) as refused:
        opened_file(read, keys=(ME,))
    assert refused.value.code == "sealed.header"
    assert sum(asked) < 100


def test_a_header_of_the_largest_size_is_read():
    raw = FIRST_LINE + HEADER_BYTES_MAX.to_bytes(4, "big") + bytes(HEADER_BYTES_MAX + 32)
    assert refusal(raw) == "record.msgpack"


def test_another_version_is_refused():
    assert refusal(PLAIN_FILE.replace(b" v0\n", b" v1\n", 1)) == "sealed.format"
