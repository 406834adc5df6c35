"""Keys as text: one spelling each, every slip of the hand noticed, nothing else read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.core.errors import UsageError
from modelkeep.crypto.keytext import (
    recipient_bytes,
    recipient_text,
    secret_key_seed,
    secret_key_text,
    verifier_bytes,
    verifier_text,
)
from modelkeep.crypto.secret import Secret


@given(st.binary(min_size=32, max_size=32))
def test_a_verifier_and_a_secret_key_come_back_from_their_text(raw):
    assert verifier_bytes(verifier_text(raw)) == raw
    assert verifier_bytes(verifier_text(raw).upper()) == raw
    assert secret_key_seed(secret_key_text(Secret(raw))) == Secret(raw)
    assert len(verifier_text(raw)) == 60
    assert len(secret_key_text(Secret(raw))) == 86


@given(st.binary(min_size=1216, max_size=1216))
def test_a_recipient_comes_back_from_its_text(raw):
    text = recipient_text(raw)
    assert text.startswith("mkr1")
    assert text.isalnum()
    assert len(text) == 1956
    assert recipient_bytes(text) == raw


def test_the_spelling_is_fixed():
    assert verifier_text(bytes(range(32))) == (
        "mkv1aaaqeayeaudaocajbifqydiob4ibceqtcqkrmfyydenbwha5dypsc76d"
    )
    assert secret_key_text(Secret(bytes(range(32)))).reveal() == (
        b"MODELKEEP-SECRET-KEY-1AAAQEAYEAUDAOCAJBIFQYDIOB4IBCEQTCQKRMFYYDENBWHA5DYPT6GKNDIAZHNUG"
    )


def slips(text):
    """Every character replaced, dropped, doubled; every pair swapped."""
    for at in range(len(text)):
        other = "b" if text[at] != "b" else "c"
        yield text[:at] + other + text[at + 1 :]
        yield text[:at] + text[at + 1 :]
        yield text[:at] + text[at] + text[at:]
        swapped = text[:at] + text[at : at + 2][::-1] + text[at + 2 :]
        if swapped != text:
            yield swapped


def test_every_slip_of_the_hand_is_noticed():
    text = verifier_text(bytes(range(32)))
    for slip in slips(text):
        with pytest.raises(UsageError) as refused:
            verifier_bytes(slip)
        assert refused.value.code == "key.verifier"


@pytest.mark.parametrize(
    "change",
    [
        lambda _: "",
        lambda text: " " + text,
        lambda text: text + "\n",
        lambda text: text + "=",
        lambda text: text[:30] + text[30:].upper(),
        lambda text: text.replace("mkv1", "mkr1"),
        lambda text: text[:-1] + "é",
        lambda text: text[:-1] + "\u0131",  # upper() makes an ASCII letter of it
        lambda _: "x" * 10_000_000,
    ],
)
def test_nothing_but_the_one_form_is_read(change):
    with pytest.raises(UsageError):
        verifier_bytes(change(verifier_text(bytes(32))))


def test_one_kind_of_key_is_not_read_as_another():
    text = secret_key_text(Secret(bytes(32)))
    with pytest.raises(UsageError) as refused:
        verifier_bytes(text.reveal().decode())
    assert refused.value.code == "key.verifier"
    with pytest.raises(UsageError) as refused:
        recipient_bytes(verifier_text(bytes(32)))
    assert refused.value.code == "key.recipient"
    with pytest.raises(UsageError) as refused:
        secret_key_seed(Secret(verifier_text(bytes(32)).encode()))
    assert refused.value.code == "key.secret"


@given(st.binary(max_size=100))
def test_no_bytes_make_the_parsers_do_anything_but_refuse(raw):
    text = raw.decode(errors="replace")
    for parse in (recipient_bytes, verifier_bytes, lambda t: secret_key_seed(Secret(t.encode()))):
        with pytest.raises(UsageError):
            parse(text)


def test_an_error_never_repeats_the_secret():
    text = secret_key_text(Secret(bytes(range(32)))).reveal()
    with pytest.raises(UsageError) as refused:
        secret_key_seed(Secret(text[:-1] + b"Q"))
    assert "AAAQEAY" not in str(refused.value.as_facts())
