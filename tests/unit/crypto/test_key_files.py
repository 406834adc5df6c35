"""Files of keys: read line by line, within bounds, and an identity's own files come back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.core.errors import UsageError
from modelkeep.crypto.key_files import (
    IDENTITY_FILE_BYTES_MAX,
    KEYS_MAX,
    PUBLIC_FILE_BYTES_MAX,
    identity_file,
    private_keys,
    public_file,
    public_keys,
)
from modelkeep.crypto.keytext import secret_key_text, verifier_text
from modelkeep.crypto.recipients import Identity
from modelkeep.crypto.secret import Secret

ME, YOU = (Identity(Secret(bytes([n]) * 32)) for n in range(2))
AGE = b"AGE-SECRET-KEY-1QQQ"


def code(parse, raw):
    with pytest.raises(UsageError) as refused:
        parse(raw)
    return refused.value.code


def test_an_identity_comes_back_from_its_files():
    (found,) = private_keys(identity_file(ME)).identities
    assert found.seed == ME.seed
    public = public_keys(public_file(ME).encode())
    assert public.recipients == (ME.recipient,)
    assert public.verifiers == (ME.signer.public,)


def test_a_public_file_holds_nothing_private():
    for secret in (ME.seed.reveal(), secret_key_text(ME.seed).reveal()):
        assert secret not in public_file(YOU).encode()
    assert "SECRET" not in public_file(ME)


def test_several_keys_comments_and_other_line_ends_are_read():
    mine, yours = (secret_key_text(each.seed).reveal() for each in (ME, YOU))
    raw = b"# me\r\n" + mine + b"\r\n\r\n  " + AGE + b"\n#you\n" + yours
    found = private_keys(Secret(raw))
    assert [each.seed for each in found.identities] == [ME.seed, YOU.seed]
    assert found.age == (Secret(AGE),)
    text = f"{ME.recipient}\nage1foo\n{verifier_text(YOU.signer.public)}\n"
    public = public_keys(text.encode())
    assert (public.recipients, public.age) == ((ME.recipient,), ("age1foo",))


@pytest.mark.parametrize("raw", [b"", b"\n", b"# only words\n", b"\xff\n", "mkr1é".encode()])
def test_a_file_without_keys_is_refused(raw):
    assert code(public_keys, raw) == "key.file"
    assert code(private_keys, Secret(raw)) == "key.file"


def test_a_file_holds_as_many_keys_as_allowed_and_no_more():
    line = verifier_text(ME.signer.public) + "\n"
    assert len(public_keys((line * KEYS_MAX).encode()).verifiers) == KEYS_MAX
    assert code(public_keys, (line * (KEYS_MAX + 1)).encode()) == "key.file"


def test_a_file_of_keys_is_as_long_as_allowed_and_no_longer():
    verifier = verifier_text(ME.signer.public).encode()
    for size_max, key, parse in (
        (PUBLIC_FILE_BYTES_MAX, verifier, public_keys),
        (IDENTITY_FILE_BYTES_MAX, AGE, lambda raw: private_keys(Secret(raw))),
    ):
        comment = b"#" * (size_max - len(key) - 1) + b"\n"
        assert parse(comment + key)
        assert code(parse, b"#" + comment + key) == "key.file"


def test_one_wrong_line_refuses_the_whole_file():
    text = str(ME.recipient) + "\nmkr1aaaa\n"
    assert code(public_keys, text.encode()) == "key.recipient"
    assert code(private_keys, Secret(b"MODELKEEP-SECRET-KEY-1AAAA\n" + AGE)) == "key.secret"


def test_a_private_key_is_no_public_one_and_never_repeated():
    text = secret_key_text(ME.seed).reveal()
    with pytest.raises(UsageError) as refused:
        public_keys(text)
    assert text.decode()[30:] not in str(refused.value.as_facts())


@given(st.binary(max_size=300))
def test_no_bytes_make_the_parsers_do_anything_but_refuse(raw):
    for parse in (public_keys, lambda raw: private_keys(Secret(raw))):
        with pytest.raises(UsageError):
            parse(raw)
        with pytest.raises(UsageError):
            parse(b"-----BEGIN " + raw)
