"""A checkpoint is believed only whole, canonical and signed by the known key."""

from __future__ import annotations

import base64

import pytest

from modelkeep.core.errors import IntegrityError, UsageError
from modelkeep.crypto.secret import Secret
from modelkeep.crypto.signatures import Signer
from modelkeep.ledger.checkpoint import (
    checked_origin,
    parsed_verifier_key,
    signed_checkpoint,
    verified_checkpoint,
    verifier_key,
)

ORIGIN = "example.org/keep/main"
SIGNER = Signer(Secret(bytes(range(32))))
CHECKPOINT = signed_checkpoint(ORIGIN, size=1234, root=bytes(range(32)), signer=SIGNER)


def verified(raw, *, origin=ORIGIN, public=SIGNER.public):
    return verified_checkpoint(raw, origin=origin, public=public)


def test_what_was_signed_verifies():
    assert verified(CHECKPOINT.raw) == CHECKPOINT


def test_the_same_tree_gives_the_same_bytes():
    again = signed_checkpoint(ORIGIN, size=1234, root=bytes(range(32)), signer=SIGNER)
    assert again.raw == CHECKPOINT.raw


def test_the_text_is_what_the_specification_says():
    lines = CHECKPOINT.raw.decode().split("\n")
    assert lines[:4] == [ORIGIN, "1234", base64.b64encode(bytes(range(32))).decode(), ""]
    assert lines[4].startswith(f"\u2014 {ORIGIN} ")
    assert lines[5:] == [""]


def test_any_flipped_bit_is_refused():
    for bit in range(len(CHECKPOINT.raw) * 8):
        flipped = bytearray(CHECKPOINT.raw)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(IntegrityError):
            verified(bytes(flipped))


def test_any_truncation_or_addition_is_refused():
    for size in range(len(CHECKPOINT.raw)):
        with pytest.raises(IntegrityError):
            verified(CHECKPOINT.raw[:size])
    for tail in (b"\n", b"x", CHECKPOINT.raw, b"\x00"):
        with pytest.raises(IntegrityError):
            verified(CHECKPOINT.raw + tail)


def test_another_log_or_key_is_refused():
    with pytest.raises(IntegrityError):
        verified(CHECKPOINT.raw, origin="example.org/keep/other")
    with pytest.raises(IntegrityError):
        verified(CHECKPOINT.raw, public=Signer(Secret(b"x" * 32)).public)
    with pytest.raises(IntegrityError):
        verified(CHECKPOINT.raw, public=b"short")


def test_cosignatures_of_unknown_keys_are_ignored():
    line = "\u2014 witness.example.com " + base64.b64encode(b"w" * 76).decode() + "\n"
    cosigned = CHECKPOINT.raw + line.encode()
    assert verified(cosigned).root == CHECKPOINT.root
    text, _, signature = CHECKPOINT.raw.decode().partition("\n\n")
    assert verified(f"{text}\n\n{line}{signature}".encode()).size == 1234
    with pytest.raises(IntegrityError):
        verified(f"{text}\n\n{line}".encode())


def signed_text(text):
    signature = base64.b64decode(CHECKPOINT.raw.decode().split(" ")[-1])[:4]
    blob = base64.b64encode(signature + SIGNER.sign_bare(text.encode())).decode()
    return f"{text}\n\u2014 {ORIGIN} {blob}\n".encode()


ROOT = base64.b64encode(bytes(32)).decode()


@pytest.mark.parametrize(
    "text",
    [
        f"{ORIGIN}\n012\n{ROOT}\n",
        f"{ORIGIN}\n-1\n{ROOT}\n",
        f"{ORIGIN}\n+1\n{ROOT}\n",
        f"{ORIGIN}\n1\u0661\n{ROOT}\n",
        f"{ORIGIN}\n12\n{ROOT[:-4]}\n",
        f"{ORIGIN}\n12\nnot base64\n",
        f"{ORIGIN}\n12\n",
        f"\n{ORIGIN}\n12\n{ROOT}\n",
        f"{ORIGIN}\n12\n{ROOT}\n\nextension\n",
        f"{ORIGIN}\n12\n{ROOT}\r\n",
    ],
)
def test_text_that_is_signed_but_no_tree_head_is_refused(text):
    with pytest.raises(IntegrityError):
        verified(signed_text(text))


def test_extension_lines_are_kept_apart():
    found = verified(signed_text(f"{ORIGIN}\n12\n{ROOT}\nextension 1\n"))
    assert (found.size, found.extensions) == (12, ("extension 1",))


def test_a_verifier_key_is_read_as_printed():
    text = verifier_key(ORIGIN, SIGNER.public)
    assert parsed_verifier_key(text) == (ORIGIN, SIGNER.public)
    for wrong in (text[:-1], text.replace("+", "-", 1), "", "a+b+c", text[1:]):
        with pytest.raises(UsageError):
            parsed_verifier_key(wrong)


@pytest.mark.parametrize("origin", ["", "a b", "a+b", "a\nb", "ä", "x" * 201, "a\x7f"])
def test_an_origin_must_be_able_to_name_a_key(origin):
    with pytest.raises(UsageError):
        checked_origin(origin)
