"""A client file: read back as it was written, refused if anything in it was changed."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.core.errors import IntegrityError, UsageError
from modelkeep.core.record import replaced
from modelkeep.crypto.recipients import Identity
from modelkeep.crypto.secret import Secret
from modelkeep.crypto.signatures import Signer
from modelkeep.vault.client_file import (
    Certificate,
    ClientFile,
    certified,
    client_file,
    client_id_of,
    client_signer,
    opened_certificate,
    parsed_client_file,
)

KEEP = Signer(Secret(b"k" * 32))
INBOX = Identity(Secret(b"i" * 32))
SEED = Secret(b"s" * 32)
PUBLIC = client_signer(SEED).public
CERTIFICATE = Certificate(
    keep_id="0" * 16,
    client_id=client_id_of(PUBLIC),
    name="trainer",
    public=PUBLIC,
    may=("submit",),
    expires_ns=5,
    size_bytes_max=10,
)
TEXT = client_file(
    certified(CERTIFICATE, KEEP),
    keep_id="0" * 16,
    keep=KEEP.public,
    store="/mnt/store",
    recipient=INBOX.recipient,
    seed=SEED,
)


def test_it_is_read_as_it_was_written():
    found = parsed_client_file(TEXT)
    assert found.certificate == CERTIFICATE
    assert found.signer.public == PUBLIC
    assert found.recipient == INBOX.recipient
    assert found.store == "/mnt/store"


def test_it_does_not_print_its_secret():
    plain = json.loads(TEXT.reveal())
    assert plain["seed"] not in repr(parsed_client_file(TEXT))
    fields = {**plain, "certificate": certified(CERTIFICATE, KEEP), "seed": b"s" * 32}
    assert "sss" not in repr(ClientFile(**fields))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("format", "modelkeep-client-v1"),
        ("keep_id", "1" * 16),
        ("keep", "mkv1"),
        ("recipient", "mkr1"),
        ("seed", ""),
        ("seed", "A" * 43 + "="),
        ("certificate", {"body": "", "signature": ""}),
        ("more", 1),
    ],
)
def test_a_changed_field_is_refused(field, value):
    plain = json.loads(TEXT.reveal())
    with pytest.raises(UsageError) as caught:
        parsed_client_file(Secret(json.dumps({**plain, field: value}).encode()))
    assert caught.value.code == "client.file"
    assert plain["seed"] not in str(caught.value)


@given(st.binary(max_size=64))
def test_anything_else_is_refused(raw):
    with pytest.raises(UsageError):
        parsed_client_file(Secret(raw))


@pytest.mark.parametrize(
    "changes",
    [
        {"client_id": "0" * 16},
        {"public": Signer(Secret(b"x" * 32)).public},
        {"public": b""},
        {"may": ()},
        {"may": ("read",)},
        {"name": "x" * 5000},
    ],
)
def test_a_certificate_is_of_one_key_and_lets_submit(changes):
    signed = certified(replaced(CERTIFICATE, **changes), KEEP)
    with pytest.raises(IntegrityError) as caught:
        opened_certificate(signed, public=KEEP.public)
    assert caught.value.code == "inbox.certificate"


def test_a_certificate_is_signed_by_the_keep():
    signed = certified(CERTIFICATE, Signer(Secret(b"x" * 32)))
    with pytest.raises(IntegrityError):
        opened_certificate(signed, public=KEEP.public)
