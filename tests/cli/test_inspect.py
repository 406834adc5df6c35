"""`modelkeep inspect`: what an exported model is; without a key, next to nothing."""

import pytest
from command import modelkeep
from portable_files import ME, SENDER, STRANGER, manifest_of, portable, table_of

from modelkeep.core.card import Card
from modelkeep.core.policy import Policy, Use
from modelkeep.crypto.key_files import identity_file
from modelkeep.crypto.keytext import verifier_text
from modelkeep.seal.envelope import sealed as enveloped

SENT_BY = verifier_text(SENDER.public)
MANIFEST = manifest_of(
    policy=Policy(uses=(Use.SERVE,), not_after_ns=4_102_444_800 * 10**9),
    card=Card(licence="MIT"),
    note="a \x1b[31mred note",
)


@pytest.fixture
def sent(tmp_path):
    (tmp_path / "m.model").write_bytes(portable(table=table_of(MANIFEST), locks=[ME.recipient]))
    (tmp_path / "me.key").write_bytes(identity_file(ME).reveal())
    (tmp_path / "me.key").chmod(0o600)
    return tmp_path / "m.model", tmp_path / "me.key"


def refusal(*words, wanted):
    return modelkeep(*words, "--json", wanted=wanted).error["code"]


def test_without_a_key_it_says_sender_recipients_and_size_and_no_more(sent):
    found = modelkeep("inspect", sent[0], "--json").json
    assert found == {
        "file": str(sent[0]),
        "size_bytes": sent[0].stat().st_size,
        "sender": SENT_BY,
        "sender_trusted": False,
        "recipients": 1,
        "rsa": 0,
        "passphrase": False,
        "table_bytes": found["table_bytes"],
    }
    text = modelkeep("inspect", sent[0]).out
    assert SENT_BY in text
    assert "digits" not in text


def test_with_a_key_it_says_what_the_sender_signed(sent):
    words = ("inspect", sent[0], "--identity", sent[1], "--signer", SENT_BY)
    found = modelkeep(*words, "--json").json
    assert found["sender_trusted"] is True
    assert (found["manifest"]["name"], found["manifest"]["version"]) == ("digits", 3)
    assert found["manifest"]["policy"]["uses"] == ["serve"]
    assert [each["tensors"] for each in found["manifest"]["files"]] == [3, 0, 0]
    assert found["links"] == [["again", "sub/words.txt"], ["sub/up", "../model.bin"]]
    text = modelkeep(*words, "--tensors").out
    for word in (
        "digits:3",
        "uses: serve",
        "not_after: 2100-01-01T00:00:00Z",
        "licence: MIT",
        "zeros",
        "again -> sub/words.txt",
    ):
        assert word in text
    assert "\x1b" not in text


def test_its_tensors_are_listed_for_programs(sent):
    words = ("inspect", sent[0], "--identity", sent[1], "--tensors", "--json")
    found = modelkeep(*words).json["manifest"]["files"][0]["tensors"]
    assert [each["name"] for each in found] == ["first", "zeros", "last"]


@pytest.mark.parametrize("identity", [False, True])
def test_another_sender_than_the_one_demanded_is_refused(sent, identity):
    key = ("--identity", sent[1]) if identity else ()
    stranger = verifier_text(STRANGER.public)
    words = ("inspect", sent[0], *key, "--signer", stranger)
    assert refusal(*words, wanted=3) == "sealed.signer"


def test_a_signature_that_is_not_the_senders_is_found_without_a_key(sent):
    raw = sent[0].read_bytes()
    sent[0].write_bytes(raw.replace(SENDER.public, STRANGER.public))
    assert refusal("inspect", sent[0], wanted=4) == "sealed.signature"


def test_what_is_no_exported_model_is_said(sent):
    assert refusal("inspect", sent[1], wanted=4) == "portable.format"
    assert refusal("inspect", sent[1].with_name("none"), wanted=5) == "file.missing"


def test_the_sender_it_says_is_of_the_file_that_was_opened(sent, monkeypatch):
    from modelkeep.sdk import portable as sdk  # noqa: PLC0415 - to look at it between two reads

    good, look = sent[0].read_bytes(), sdk.outside_of
    strange = table_of(MANIFEST, envelope=enveloped(MANIFEST, signer=STRANGER))
    sent[0].write_bytes(portable(table=strange, locks=[ME.recipient], signer=STRANGER))

    def swapped(path):
        seen = look(path)
        path.write_bytes(good)
        return seen

    monkeypatch.setattr(sdk, "outside_of", swapped)
    words = ("inspect", sent[0], "--identity", sent[1], "--signer", SENT_BY, "--json")
    assert modelkeep(*words).json["sender"] == SENT_BY
