"""`modelkeep import`: what another keep exported, proven first, then judged as any other model."""

import io
import sys
from pathlib import Path

import pytest
from command import PASSPHRASE, Desk, modelkeep
from onnx_models import two_models
from tensor_files import tensors, written

from modelkeep.core.policy import Output, Policy, Use
from modelkeep.crypto.secret import Secret
from modelkeep.sdk.keep import Keep
from modelkeep.sdk.transfer import Transfer

VECTORS = Path(__file__).parents[1] / "vectors" / "portable"


@pytest.fixture
def me(tmp_path):
    said = modelkeep("identity", "new", "--output", tmp_path / "me.key").out
    (tmp_path / "me.pub").write_text(said)
    return tmp_path / "me.key", tmp_path / "me.pub"


@pytest.fixture
def theirs(tmp_path):
    """Another keep with digits:1."""
    other = Desk.made(tmp_path / "theirs", second=False)
    other.admit()
    return other


@pytest.fixture
def sent(theirs, me, tmp_path):
    """The file that they sent, and their verifier."""
    file = tmp_path / "sent.model"
    done = theirs.json("export", "digits:1", "--output", file, "--to", me[1])
    return file, done


def words(file, me, *more):
    return ("import", file, "--name", "digits", "--identity", me[0], *more)


def test_it_comes_back_bit_for_bit_under_a_key_and_a_signature_of_ours(desk, sent, me, tmp_path):
    file, done = sent
    here = desk.json(*words(file, me, "--signer", done["signer"]))
    assert (here["name"], here["version"], here["is_new"]) == ("digits", 1, True)
    assert here["verdict"]["decision"] == "allow"
    assert here["digest"] != done["manifest"]
    desk.run("restore", "digits:1", "--to", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == two_models()[0].read_bytes()
    (entry,) = desk.entries("model.imported")
    assert entry["facts"]["manifest"] == done["manifest"]
    assert entry["facts"]["signer"] == done["signer"]
    assert desk.json(*words(file, me, "--signer", done["signer"]))["is_new"] is False


def test_its_canary_comes_along(desk, sent, me):
    file, done = sent
    desk.run(*words(file, me, "--signer", done["signer"]))
    second = desk.folder / "again.model"
    desk.run("export", "digits", "--output", second, "--to", me[1])
    assert desk.json("import", second, "--name", "twin", "--identity", me[0])["is_new"] is True


def test_a_stranger_is_not_believed(desk, sent, me):
    file, done = sent
    found = desk.run(*words(file, me), "--json", wanted=3).error
    assert found["code"] == "sealed.signer"
    assert done["signer"] in found["message"]
    assert "--signer" in found["hint"]
    assert desk.refusal(*words(file, me, "--signer", me[1]), wanted=3) == "sealed.signer"
    assert desk.json("models") == []


def test_another_identity_opens_nothing(desk, sent, tmp_path):
    file, done = sent
    modelkeep("identity", "new", "--output", tmp_path / "other.key")
    other = (tmp_path / "other.key", None)
    assert desk.refusal(*words(file, other, "--signer", done["signer"]), wanted=3) == "sealed.key"


def test_one_flipped_bit_or_a_cut_lets_nothing_in(desk, sent, me):
    """tests/flows/test_portable_mutations.py has many more; this is the verb."""
    file, done = sent
    good = file.read_bytes()
    at = int(0.999 * len(good))
    for bad in (good[:at] + bytes([good[at] ^ 4]) + good[at + 1 :], good[:at], good + b"x"):
        file.write_bytes(bad)
        outcome = desk.run(*words(file, me, "--signer", done["signer"], "--json"), wanted=None)
        assert outcome.status in (3, 4), outcome
    assert desk.json("models") == []


def test_any_other_sealed_file_is_no_model(desk, me, tmp_path):
    (tmp_path / "x").write_bytes(b"modelkeep model v1\n")
    identity = ("--sign", me[0])
    modelkeep("encrypt", tmp_path / "x", "--to", me[1], *identity)
    code = desk.refusal(*words(tmp_path / "x.sealed", me, "--signer", me[1]), wanted=4)
    assert code == "portable.format"


def test_what_the_scanner_refuses_stays_outside(desk, theirs, me, tmp_path):
    """The keep that sent it may have saved it unscanned."""
    evil = tmp_path / "evil.pkl"
    evil.write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    theirs.run("save", evil, "--name", "evil")
    file = tmp_path / "evil.model"
    done = theirs.json("export", "evil", "--output", file, "--to", me[1])
    found = desk.refusal(*words(file, me, "--signer", done["signer"]), wanted=3)
    assert found.startswith("verdict.")
    assert desk.json("models") == []


def test_a_folder_comes_whole_with_bits_and_links(desk, theirs, me, tmp_path):
    folder = tmp_path / "shards"
    (folder / "sub").mkdir(parents=True)
    for at in range(2):
        written(folder / "sub" / f"model-{at}.safetensors", tensors(at, count=2))
    (folder / "latest").symlink_to("sub/model-1.safetensors")
    (folder / "sub").chmod(0o750)
    theirs.run("admit", folder, "--name", "lm")
    file = tmp_path / "lm.model"
    done = theirs.json("export", "lm", "--output", file, "--to", me[1])
    desk.run(*words(file, me, "--signer", done["signer"]))
    assert desk.json("diff", "digits:1", "digits:1")["files"]["equal"] == 2
    desk.run("restore", "digits", "--to", tmp_path / "back")
    back = tmp_path / "back"
    assert (back / "sub").stat().st_mode & 0o777 == 0o750
    assert (back / "latest").readlink() == Path("sub/model-1.safetensors")
    assert (back / "latest").read_bytes() == (folder / "latest").read_bytes()


def test_policy_and_card_bind_the_keep_that_takes_it_in(desk, theirs, me, tmp_path):
    policy, card = tmp_path / "policy.toml", tmp_path / "card.toml"
    policy.write_text('uses = ["export", "serve"]\noutput = "labels"\n')
    card.write_text('licence = "Apache-2.0"\n')
    model = written(tmp_path / "m.safetensors", tensors(7))
    theirs.run("admit", model, "--name", "lm", "--policy", policy, "--card", card)
    file = tmp_path / "lm.model"
    done = theirs.json("export", "lm", "--output", file, "--to", me[1])
    desk.run(*words(file, me, "--signer", done["signer"]))
    with Keep(desk.keep, passphrase=PASSPHRASE) as keep:
        manifest = keep.manifest("digits:1")
    assert manifest.policy == Policy(uses=(Use.EXPORT, Use.SERVE), output=Output.LABELS)
    assert manifest.card.licence == "Apache-2.0"
    refused = desk.refusal("restore", "digits", "--to", tmp_path / "out", wanted=3)
    assert refused == "policy.use"


def test_it_comes_through_a_pipe(desk, sent, me, monkeypatch):
    file, done = sent
    with file.open("rb") as stream:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(stream))
        here = desk.json(*words("-", me, "--signer", done["signer"]))
    assert (here["name"], here["is_new"]) == ("digits", True)


def test_what_the_first_format_exported_is_taken_in(desk):
    head, _, body = (VECTORS / "v0_folder").read_bytes().partition(b"\n\n")
    signer = head.decode().partition("signer: ")[2]
    with Keep(desk.keep, passphrase=PASSPHRASE) as keep:
        secret = Secret(b"correct horse battery staple")
        stream = io.BytesIO(body)
        done = Transfer(keep).take_in(stream, name="lm", passphrase=secret, signed_by=signer)
    assert (done.name, done.version, done.is_new) == ("lm", 1, True)
