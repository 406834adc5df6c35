"""Google Cloud KMS as a KeySource, against a stand-in that verifies signed tokens and CRC-32C."""

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from kms_cases import KmsCases, refused, source_of
from kms_standins import GcpStandIn

from modelkeep.core.errors import IntegrityError, UnavailableError
from modelkeep.crypto.wrapped_key import label_of
from modelkeep.testing.keysource_contract import KEY


@pytest.fixture
def stand_in(tmp_path):
    stand_in = GcpStandIn(tmp_path)
    yield stand_in
    stand_in.close()


class TestGcpSource(KmsCases):
    wrong_credentials = {"signer": rsa.generate_private_key(public_exponent=65537, key_size=2048)}

    def foreign(self, stand_in, plain, *, bound):
        versions = stand_in.keys[stand_in.name("keep")]
        return stand_in.encrypted(versions, plain, label_of("gcp") if bound else b"")


def test_a_key_that_was_rotated_still_unwraps_what_older_versions_wrapped(stand_in):
    source = source_of(stand_in.reference())
    wrapped = source.wrap(KEY)
    stand_in.rotate("keep")
    assert source.unwrap(wrapped) == KEY
    assert source.unwrap(source.wrap(KEY)) == KEY


def test_one_host_is_spoken_to_and_no_token_service(stand_in):
    source_of(stand_in.reference()).wrap(KEY)
    assert [asked.path.rpartition(":")[2] for asked in stand_in.asked] == ["encrypt"]


@pytest.mark.parametrize(
    "change",
    [
        lambda facts: facts | {"ciphertextCrc32c": "1", "plaintextCrc32c": "1"},
        lambda facts: facts | {"ciphertextCrc32c": None, "plaintextCrc32c": None},
        lambda _: {},
        lambda _: [],
        lambda facts: (
            facts
            | {name: base64.b64encode(b"other").decode() for name in ("ciphertext", "plaintext")}
        ),
    ],
)
def test_an_answer_whose_checksum_is_wrong_is_not_taken(stand_in, change):
    source = source_of(stand_in.reference())
    wrapped = source.wrap(KEY)
    stand_in.garble = change
    for work in (lambda: source.wrap(KEY), lambda: source.unwrap(wrapped)):
        assert refused(work, UnavailableError) in ("keysource.answer", "keysource.unavailable")


def test_a_request_that_did_not_arrive_whole_is_noticed_when_it_is_wrapped(stand_in):
    source = source_of(stand_in.reference())
    stand_in.garble = lambda facts: facts | {"verifiedPlaintextCrc32c": False}
    assert refused(lambda: source.wrap(KEY), UnavailableError) == "keysource.answer"


@pytest.mark.parametrize("held", ["canary", "[]", "{}", '{"client_email": "canary@x"}'])
def test_credentials_of_another_form_are_named_and_not_shown(stand_in, held):
    reference = stand_in.reference()
    stand_in.secret("account.json", held)
    source = source_of(reference)
    assert refused(lambda: source.wrap(KEY), IntegrityError) == "keysource.credentials"
