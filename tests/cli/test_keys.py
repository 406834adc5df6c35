"""`modelkeep keys`: who holds the root, the domains, and their whole life, as a person types it."""

import shutil
import stat
import subprocess
from pathlib import Path

import numpy as np
import pytest
from command import PASSPHRASE, Desk, Process, modelkeep
from onnx_models import trained_models

from modelkeep.adapters.keysources import new_key
from modelkeep.cli.grammar import keys as grammar
from modelkeep.sdk.client import Client
from modelkeep.testing.memory import SeededEntropy

pytestmark = pytest.mark.slow
NEW = "another passphrase canary"
SOFTHSM = Path("/usr/lib/softhsm/libsofthsm2.so")


@pytest.fixture
def new_file(tmp_path):
    path = tmp_path / "new.txt"
    path.write_text(NEW + "\n")
    return path


def refused(desk, *words, wanted=3, passphrase_file=None):
    """The code of a command that is refused; with another passphrase than the desk's."""
    own = ("--passphrase-file", passphrase_file or desk.passphrase_file)
    return modelkeep("--keep", desk.keep, *own, *words, "--json", wanted=wanted).error["code"]


def domain_of(desk, name):
    return next(each for each in desk.json("keys", "list")["domains"] if each["name"] == name)


# ---- domains -------------------------------------------------------------------------------------


def test_a_domains_life(desk):
    assert "made acme, zeta" in desk.run("keys", "new", "acme", "zeta").out
    file = trained_models()[1][0].file
    desk.run("admit", file, "--name", "fraud", "--domain", "acme")
    assert "fraud:1" in desk.run("keys", "list").out
    listed = desk.json("keys", "list")
    assert [each["name"] for each in listed["domains"]] == ["acme", "default", "zeta"]
    assert [each["kind"] for each in listed["holders"]] == ["source"]
    assert domain_of(desk, "acme")["models"] == ["fraud:1"]

    assert "revoked: acme" in desk.run("keys", "revoke", "acme").out
    assert domain_of(desk, "acme")["status"] == "revoked"
    assert desk.json("keys", "restore", "acme") == {"restored": "acme"}

    before = domain_of(desk, "acme")["key_ids"]
    assert desk.json("keys", "rekey", "acme")["artifacts"] == 1
    after = domain_of(desk, "acme")["key_ids"]
    assert len(before) == len(after) == 1
    assert before != after
    desk.run("restore", "fraud:1", "--to", desk.folder / "out.onnx")
    assert (desk.folder / "out.onnx").read_bytes() == file.read_bytes()
    kinds = [kind for kind in desk.kinds() if kind.startswith("domain.")]
    assert kinds == ["domain.created"] * 2 + ["domain.revoked", "domain.restored", "domain.rekeyed"]


def test_destroy_says_what_dies_asks_and_then_does_it(desk):
    desk.run("keys", "new", "acme")
    desk.run("admit", trained_models()[1][0].file, "--name", "fraud", "--domain", "acme")
    said = desk.run("keys", "destroy", "acme", "--dry-run").out
    assert "models   fraud:1" in said
    doomed = desk.json("keys", "destroy", "acme", "--dry-run")
    assert doomed["models"] == ["fraud:1"]
    assert doomed["objects"] > 0
    assert refused(desk, "keys", "destroy", "acme") == "keys.confirm", "nobody is there to ask"
    assert desk.json("models") != []
    done = desk.run("keys", "destroy", "acme", "--yes")
    assert f"destroyed: acme; {doomed['objects']} objects removed" in done.out
    assert desk.json("models") == []
    assert domain_of(desk, "acme")["status"] == "destroyed"
    assert refused(desk, "restore", "fraud:1", "--to", desk.folder / "x", wanted=5)
    assert refused(desk, "keys", "new", "acme") == "keys.destroyed_name"
    assert refused(desk, "keys", "destroy", "default", "--yes", wanted=2) == "keys.default"
    assert desk.run("check").status == 0


def test_what_cannot_be_is_refused_with_the_right_status(desk):
    assert desk.refusal("keys", "new", "a/b", wanted=2) == "keys.domain_name"
    for code, wanted, *words in (
        ("keys.domain", 5, "rekey", "nobody"),
        ("keys.what", 2, "revoke"),
        ("keys.what", 2, "revoke", "default", "--shares"),
        ("keys.recipient", 5, "revoke", "--shares"),
        ("keys.split", 2, "split", "--needed", 4, "--shares", 3),
    ):
        assert refused(desk, "keys", *words, wanted=wanted) == code
    admission = ("admit", trained_models()[1][0].file, "--name", "fraud", "--domain", "nobody")
    assert refused(desk, *admission, wanted=5) == "keys.domain"


@pytest.mark.parametrize("verb", [each.name for each in grammar.VERBS])
def test_every_verb_explains_itself(verb):
    said = modelkeep(*verb.split(), "--help").out
    assert f"modelkeep {verb}" in said
    assert "examples:" in said
    assert "exit codes:" in said


# ---- who holds the root --------------------------------------------------------------------------


def test_rotate_takes_a_new_passphrase_and_only_that_opens(desk, new_file):
    said = desk.json("keys", "rotate", "--new-passphrase-file", new_file)
    assert said == {"keyring": 1, "domains": 1, "source": "passphrase"}
    assert refused(desk, "models") == "keys.passphrase"
    again = modelkeep("--keep", desk.keep, "--passphrase-file", new_file, "keys", "list", "--json")
    assert again.json["keyring"] == 1
    for path, raw in desk.files().items():
        assert NEW.encode() not in raw, path
    assert refused(desk, "keys", "rotate", wanted=2, passphrase_file=new_file) == "passphrase.none"
    short = new_file.with_name("short.txt")
    short.write_text("short")
    words = ("keys", "rotate", "--new-passphrase-file", short)
    assert refused(desk, *words, wanted=2, passphrase_file=new_file) == "passphrase.length"


def test_rotate_to_a_key_file_and_serve_starts_without_a_person(one, running, tmp_path):
    reference = f"file:{tmp_path}/kek"
    new_key(reference, entropy=SeededEntropy())
    assert one.json("keys", "rotate", "--new-key-source", reference)["source"] == reference
    assert f'source = "{reference}"' in one.config.read_text()

    def own(*words):
        return modelkeep("--keep", one.keep, *words, "--json").json

    assert own("keys", "list")["holders"] == [{"kind": "source", "holder": "file", "note": ""}]
    assert refused(one, "--key-source", "passphrase", "models") == "keys.no_holder"
    process = running(Process("--keep", one.keep, "serve", "--json"))
    facts = process.event("ready")
    token = own("tokens", "new", "alice", "--scope", "infer:digits")
    with Client(server=facts["url"], api_key=token["api_key"], ca=one.keep / "ca.pem") as client:
        client.load_model("digits").predict(np.zeros((1, 64), np.float32))
    process.interrupt()
    assert process.ended().status == 0
    (tmp_path / "kek").unlink()
    lost = modelkeep("--keep", one.keep, "models", "--json", wanted=None)
    assert lost.status in (5, 6)


def test_shares_open_a_keep_whose_passphrase_is_lost(one, new_file, tmp_path):
    folder = tmp_path / "shares"
    said = one.json("keys", "split", "--needed", 2, "--shares", 3, "--to", folder)
    files = [Path(name) for name in said["files"]]
    assert [path.name for path in files] == ["share-1.txt", "share-2.txt", "share-3.txt"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    again = ("keys", "split", "--needed", 2, "--shares", 3, "--to", folder)
    assert refused(one, *again, wanted=2) == "keys.folder"
    holders = one.json("keys", "list")["holders"]
    assert [(each["kind"], each["note"]) for each in holders] == [
        ("source", ""),
        ("shares", "2 of 3 shares"),
    ]
    words = tmp_path / "words.txt"

    def join(text, wanted=0):
        words.write_text(text)
        joining = ("keys", "join", "--words", words, "--new-passphrase-file", new_file)
        return modelkeep("--keep", one.keep, *joining, "--json", wanted=wanted)

    shares = [path.read_text() for path in files]
    assert join(shares[1], wanted=3).error["code"] == "keys.shares"
    assert join("\n", wanted=2).error["code"] == "keys.words"
    typed = shares[1].split()
    mistyped = " ".join([*typed[:9], "zero" if typed[9] != "zero" else "academic", *typed[10:]])
    wrong = join(f"{shares[0]}{mistyped}\n", wanted=2).error
    assert wrong["code"] == "keys.words"
    assert "share 2" in wrong["message"]
    assert not set(typed) & set(wrong["message"].split()), "no word of a share is repeated"
    assert join(f"\n{shares[2].upper()}  {''}\n{shares[0]}\n").json["source"] == "passphrase"
    assert refused(one, "models") == "keys.passphrase"
    opened = ("--keep", one.keep, "--passphrase-file", new_file)
    assert modelkeep(*opened, "models", "--json").json[0]["name"] == "digits"
    assert "revoked: shares" in modelkeep(*opened, "keys", "revoke", "--shares").out
    assert join("".join(shares), wanted=3).error["code"] == "keys.no_holder"


def test_shares_are_shown_once_to_a_person_and_to_a_program(desk):
    said = desk.run("keys", "split", "--needed", 2, "--shares", 2).out
    assert "share 1 of 2:" in said
    assert "shown once" in said
    words = desk.json("keys", "split", "--needed", 2, "--shares", 2)["words"]
    assert [len(share.split()) for share in words] == [33, 33]
    for path, raw in desk.files().items():
        assert not any(share.encode() in raw for share in words), path


def test_an_escrow_recipient_opens_the_keep_until_revoked(one, new_file, tmp_path):
    identity, public = tmp_path / "notary.key", tmp_path / "notary.pub"
    public.write_text(modelkeep("identity", "new", "--output", identity).out)
    recipient = next(line for line in public.read_text().splitlines() if line.startswith("mkr1"))
    said = one.json("keys", "escrow", public, "--note", "the notary")
    assert said["recipient"] == recipient
    assert one.json("keys", "escrow", recipient)["keyring"] == 2, "again is no error"
    holders = one.json("keys", "list")["holders"]
    assert [each["kind"] for each in holders] == ["source", "escrow"]

    def join(with_identity, wanted=0):
        joining = ("keys", "join", "--identity", with_identity, "--new-passphrase-file", new_file)
        return modelkeep("--keep", one.keep, *joining, "--json", wanted=wanted)

    other = tmp_path / "other.key"
    modelkeep("identity", "new", "--output", other)
    assert join(other, wanted=3).error["code"] == "keys.no_holder"
    assert join(tmp_path / "none.key", wanted=5).error["code"] == "file.missing"
    assert join(public, wanted=2)
    assert join(identity).json["source"] == "passphrase"
    opened = ("--keep", one.keep, "--passphrase-file", new_file)
    revoke = ("keys", "revoke", "--escrow", recipient[:30])
    assert "revoked: escrow recipient" in modelkeep(*opened, *revoke).out
    assert join(identity, wanted=3).error["code"] == "keys.no_holder"
    assert refused(one, "keys", "escrow", tmp_path / "none.pub", wanted=5) == "file.missing"
    assert refused(one, "keys", "escrow", "mkr1nonsense", wanted=2) == "key.recipient"


# ---- an HSM, end to end --------------------------------------------------------------------------


@pytest.mark.skipif(
    not SOFTHSM.exists() or shutil.which("softhsm2-util") is None,
    reason="SoftHSM 2 is not installed (Debian: apt install softhsm2)",
)
def test_a_keep_whose_root_an_hsm_holds_serves_without_a_person(tmp_path, monkeypatch, running):
    (tmp_path / "tokens").mkdir()
    pin, config = tmp_path / "pin", tmp_path / "softhsm2.conf"
    pin.write_text("7391-canary-pin\n")
    pin.chmod(0o600)
    config.write_text(f"directories.tokendir = {tmp_path}/tokens\nobjectstore.backend = file\n")
    monkeypatch.setenv("SOFTHSM2_CONF", str(config))
    words = ("--init-token", "--free", "--label", "keep", "--so-pin", "0000")
    tool = ["softhsm2-util", *words, "--pin", pin.read_text().strip()]
    subprocess.run(tool, check=True, capture_output=True)
    reference = f"kms:pkcs11:token=keep;object=root?module-path={SOFTHSM}&pin-source=file:{pin}"
    new_key(reference, entropy=SeededEntropy())
    desk = Desk(tmp_path)
    modelkeep("init", desk.keep, "--port", 0, "--key-source", reference)
    assert reference in desk.config.read_text()

    def own(*words):
        return modelkeep("--keep", desk.keep, *words, "--json").json

    model = trained_models()[1][0]
    own("admit", model.file, "--name", "digits", "--canary", model.canary)
    assert own("keys", "list")["holders"][0]["holder"] == "pkcs11"
    token = own("tokens", "new", "alice", "--scope", "infer:digits")
    process = running(Process("--keep", desk.keep, "serve", "--json"))
    facts = process.event("ready")
    data = trained_models()[0]
    with Client(server=facts["url"], api_key=token["api_key"], ca=desk.keep / "ca.pem") as client:
        found = client.load_model("digits").evaluate(data.held_out, data.held_out_labels)
    assert abs(found.accuracy - model.accuracy) < 0.005
    process.interrupt()
    assert process.ended().status == 0

    lost = tmp_path / "lost"
    shares = own("keys", "split", "--needed", 2, "--shares", 2)["words"]
    (tmp_path / "tokens").rename(lost)
    (tmp_path / "tokens").mkdir()
    assert modelkeep("--keep", desk.keep, "models", "--json", wanted=None).status in (5, 6)
    (tmp_path / "words.txt").write_text("\n".join(shares))
    desk.passphrase_file.write_text(PASSPHRASE)
    joining = ("--words", tmp_path / "words.txt", "--new-key-source", "passphrase")
    joining += ("--new-passphrase-file", desk.passphrase_file)
    modelkeep("--keep", desk.keep, "keys", "join", *joining)
    assert desk.json("models")[0]["name"] == "digits"
