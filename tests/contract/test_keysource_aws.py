"""AWS KMS as a KeySource, against a stand-in that verifies Signature Version 4."""

import json

import pytest
from kms_cases import KmsCases, refused, source_of
from kms_standins import AwsStandIn

from modelkeep.core.errors import IntegrityError, UnavailableError
from modelkeep.crypto.wrapped_key import label_of
from modelkeep.testing.keysource_contract import KEY


@pytest.fixture
def stand_in(tmp_path):
    stand_in = AwsStandIn(tmp_path)
    yield stand_in
    stand_in.close()


class TestAwsSource(KmsCases):
    wrong_credentials = {"secret_key": "canary/of/somebody/else"}

    def foreign(self, stand_in, plain, *, bound):
        context = {"modelkeep": label_of("aws").decode()} if bound else {}
        return stand_in.encrypted(stand_in.arn("keep"), plain, json.dumps(context).encode())


def test_the_purpose_is_the_encryption_context(stand_in):
    source = source_of(stand_in.reference())
    source.unwrap(source.wrap(KEY))
    for asked in stand_in.asked:
        assert asked.json["EncryptionContext"] == {"modelkeep": "modelkeep/v0/keysource/aws"}
        assert asked.json["KeyId"] == stand_in.arn("keep")


@pytest.mark.parametrize("held", ["AKIACANARY:canary", "[]", "{}", '{"AccessKeyId": "AKIA"}'])
def test_credentials_of_another_form_are_named_and_not_shown(stand_in, held):
    reference = stand_in.reference()
    stand_in.secret("credentials.json", held)
    source = source_of(reference)
    assert refused(lambda: source.wrap(KEY), IntegrityError) == "keysource.credentials"


def test_a_key_in_the_environment_is_not_looked_at(stand_in, monkeypatch):
    """Without `credentials=` the machine's role counts; here there is none."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", stand_in.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", stand_in.secret_key)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "/dev/null")
    reference = f"kms:aws:{stand_in.arn('keep')}?endpoint={stand_in.address}&ca={stand_in.ca}"
    source = source_of(reference)
    assert refused(lambda: source.wrap(KEY), UnavailableError) == "keysource.unavailable"
    assert not stand_in.asked
