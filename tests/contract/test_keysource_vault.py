"""Vault's transit engine as a KeySource, against a stand-in that speaks its protocol."""

import base64
import time

import pytest
from kms_cases import KmsCases, refused, source_of
from kms_standins import VaultStandIn

from modelkeep.core.errors import IntegrityError, UnavailableError
from modelkeep.crypto.wrapped_key import box_of, label_of, wrapped_bytes
from modelkeep.testing.keysource_contract import KEY


@pytest.fixture
def stand_in(tmp_path):
    stand_in = VaultStandIn(tmp_path)
    yield stand_in
    stand_in.close()


class TestVaultSource(KmsCases):
    wrong_credentials = {"token": "hvs.canary-of-somebody-else"}

    def foreign(self, stand_in, plain, *, bound):
        facts = {"plaintext": base64.b64encode(plain).decode()}
        label = label_of("vault") if bound else b""
        return stand_in.encrypted(stand_in.keys["keep"], facts, label)["ciphertext"].encode()


def test_a_key_that_was_rotated_in_vault_still_unwraps_what_older_versions_wrapped(stand_in):
    source = source_of(stand_in.reference())
    wrapped = [source.wrap(KEY)]
    for _ in range(2):
        stand_in.rotate("keep")
        wrapped.append(source.wrap(KEY))
    assert [source.unwrap(each) == KEY for each in wrapped] == [True] * 3
    stand_in.oldest = 3
    assert refused(lambda: source.unwrap(wrapped[0])) == "keys.source"
    assert source.unwrap(wrapped[2]) == KEY


def test_another_spelling_of_the_same_ciphertext_is_refused(stand_in):
    """Go's base64 and ours read spare bits and line ends as nothing: one form is enough."""
    source = source_of(stand_in.reference())
    ciphertext = box_of("vault", source.wrap(KEY))
    digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    assert ciphertext.endswith(b"==")
    last = digits[digits.index(ciphertext[-3]) + 1]
    spare = ciphertext[:-3] + bytes([last]) + b"=="
    for other in (spare, ciphertext + b"\n", ciphertext.replace(b":v1:", b":v01:")):
        code = refused(lambda raw=other: source.unwrap(wrapped_bytes("vault", raw)), IntegrityError)
        assert code == "keysource.form"


def test_the_token_is_read_anew_so_that_an_agent_may_renew_it(stand_in):
    source = source_of(stand_in.reference())
    wrapped = source.wrap(KEY)
    stand_in.token = "hvs.canary-renewed"  # noqa: S105
    assert refused(lambda: source.unwrap(wrapped)) == "keysource.forbidden"
    stand_in.secret("token", stand_in.token)
    assert source.unwrap(wrapped) == KEY


def test_the_purpose_goes_along_and_the_namespace_too(stand_in):
    source_of(stand_in.reference() + "&namespace=team%2Fmodels").wrap(KEY)
    asked = stand_in.asked[-1]
    assert asked.headers["x-vault-namespace"] == "team/models"
    assert base64.b64decode(asked.json["associated_data"]) == b"modelkeep/v0/keysource/vault"


@pytest.mark.parametrize(
    "answer",
    [{}, [], {"data": None}, {"data": {}}, {"data": {"ciphertext": 7, "plaintext": 7}},
     {"data": {"ciphertext": "vault:v1:AA=", "plaintext": "%%"}}],
    ids=str,
)  # fmt: skip
def test_an_answer_that_is_something_else_is_no_key(stand_in, answer):
    source = source_of(stand_in.reference())
    wrapped = source.wrap(KEY)
    stand_in.garble = lambda _: answer
    for work in (lambda: source.wrap(KEY), lambda: source.unwrap(wrapped)):
        code = refused(work, Exception)
        assert code in ("keysource.answer", "keysource.unavailable", "keysource.purpose")


def test_a_server_that_does_not_answer_is_not_waited_for_long(tmp_path):
    import socket  # noqa: PLC0415

    from modelkeep.adapters.keysource_vault import VaultSource  # noqa: PLC0415
    from modelkeep.core.reference import parsed_reference  # noqa: PLC0415
    from modelkeep.crypto.secret import Secret  # noqa: PLC0415

    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        reference = parsed_reference(
            f"kms:vault:https://127.0.0.1:{port}/transit/keys/keep?token=file:{tmp_path}/t"
        )
        source = VaultSource(reference, token=lambda: Secret(b"hvs.x"), timeout_s=0.1)
        started_s = time.monotonic()
        assert refused(lambda: source.wrap(KEY), UnavailableError) == "keysource.unavailable"
        assert time.monotonic() - started_s < 5
