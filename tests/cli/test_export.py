"""`modelkeep export`: one file that its recipients can open, and nobody else."""

import stat

import pytest
from command import CHEAP, PASSPHRASE, modelkeep
from onnx_models import two_models
from tensor_files import tensors, tuned, written

from modelkeep.crypto.secret import Secret
from modelkeep.sdk.keep import Keep
from modelkeep.sdk.transfer import Transfer


@pytest.fixture
def me(tmp_path):
    """An identity file, and its public file."""
    said = modelkeep("identity", "new", "--output", tmp_path / "me.key").out
    (tmp_path / "me.pub").write_text(said)
    return tmp_path / "me.key", tmp_path / "me.pub"


def test_a_recipient_can_decrypt_it_and_the_ledger_knows(one, me, tmp_path):
    out = tmp_path / "d.model"
    done = one.json("export", "digits:1", "--output", out, "--to", me[1])
    assert (done["name"], done["version"], done["recipients"]) == ("digits", 1, 1)
    assert done["size_bytes"] == out.stat().st_size
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    (entry,) = one.entries("model.exported")
    assert entry["facts"]["manifest"] == done["manifest"]
    plain = tmp_path / "plain"
    signer = ("--signer", done["signer"])
    modelkeep("decrypt", out, "--identity", me[0], "--output", plain, *signer)
    assert plain.read_bytes() == two_models()[0].read_bytes()


def test_the_file_is_called_after_the_version(one, me, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert one.json("export", "digits", "--to", me[1])["file"] == "digits-1.model"
    assert (tmp_path / "digits-1.model").is_file()


def test_what_could_never_be_opened_as_meant_is_refused(one, me, tmp_path):
    out = ("export", "digits", "-o", tmp_path / "o")
    verifier = me[1].read_text().splitlines()[-1]
    assert one.refusal(*out, "--to", verifier, wanted=2) == "export.verifier"
    again = ("--file-passphrase", one.passphrase_file)  # the owner's own
    assert one.refusal(*out, *again, wanted=2) == "passphrase.keep"
    away = ("export", "digits", "-o", tmp_path / "away" / "o", "--to", me[1])
    assert one.refusal(*away, wanted=5) == "file.folder"
    assert not (tmp_path / "o").exists()


def test_a_policy_that_forbids_it_is_obeyed(desk, me, tmp_path):
    policy = tmp_path / "policy.toml"
    policy.write_text('uses = ["serve", "restore"]\n')
    desk.run("admit", two_models()[0], "--name", "digits", "--policy", policy)
    words = ("export", "digits", "--output", tmp_path / "o", "--to", me[1])
    assert desk.refusal(*words, wanted=3) == "policy.use"
    assert not (tmp_path / "o").exists()
    assert desk.entries("model.exported") == []


def test_a_link_that_leads_out_of_its_folder_is_not_handed_over(desk, me, tmp_path):
    folder = tmp_path / "lm"
    folder.mkdir()
    written(folder / "m.safetensors", tensors(1, count=1, items=8))
    (folder / "out").symlink_to("../elsewhere")
    desk.run("admit", folder, "--name", "lm", wanted=3)
    desk.run("approve", "lm", "--why", "our own folder beside it", "--until", "2999-01-31")
    desk.run("admit", folder, "--name", "lm")
    words = ("export", "lm", "--output", tmp_path / "o", "--to", me[1])
    assert desk.refusal(*words, wanted=3) == "portable.paths"


def test_nothing_of_the_model_or_its_name_is_readable_in_it(one, me, tmp_path):
    out = tmp_path / "d.model"
    one.run("export", "digits", "--output", out, "--to", me[1])
    raw = out.read_bytes()
    model = two_models()[0].read_bytes()
    assert b"digits" not in raw
    assert not any(model[at : at + 24] in raw for at in range(0, len(model) - 24, 1024))


def test_two_exports_of_one_version_have_nothing_in_common(one, me, tmp_path):
    for name in ("a", "b"):
        one.run("export", "digits", "--output", tmp_path / name, "--to", me[1])
    first, second = ((tmp_path / name).read_bytes()[2000:] for name in ("a", "b"))
    assert not any(first[at : at + 16] in second for at in range(0, len(first) - 16, 512))


def test_a_delta_is_handed_over_alone_and_small(desk, me, tmp_path):
    desk.configure('label = "main"', 'label = "main"\nencoding = "small"')
    base = tensors(3, count=4, items=65536)
    for arrays in (base, tuned(base, *base)):
        file = written(tmp_path / "m.safetensors", arrays)
        desk.run("admit", file, "--name", "lm")
    done = desk.json("export", "lm:2", "--output", tmp_path / "o", "--to", me[1])
    assert done["raw_bytes"] == file.stat().st_size
    assert 0.5 < done["size_bytes"] / done["raw_bytes"] < 0.95


def test_a_file_that_exists_is_not_replaced_unless_told(one, me, tmp_path):
    out = tmp_path / "o"
    out.write_bytes(b"mine")
    words = ("export", "digits", "--output", out, "--to", me[1])
    assert one.refusal(*words, wanted=2) == "restore.exists"
    assert out.read_bytes() == b"mine"
    one.run(*words, "--force")
    assert out.read_bytes() != b"mine"


def test_damage_leaves_no_file_behind(one, me, tmp_path):
    one.run("backup")
    for store in (one.main, one.offsite):
        for path in (store / "pack").rglob("*"):
            if path.is_file():
                raw = bytearray(path.read_bytes())
                raw[60] ^= 1
                path.write_bytes(raw)
    words = ("export", "digits", "--output", tmp_path / "o", "--to", me[1])
    assert one.refusal(*words, wanted=4) == "model.damaged"
    assert not (tmp_path / "o").exists()
    assert one.entries("model.exported") == []


@pytest.mark.parametrize(
    ("recipients", "code"),
    [((), "export.recipient"), (("age1" + "q" * 58,), "export.age"), (("mkr1q",), "key.recipient")],
)
def test_it_needs_somebody_who_could_open_it(one, tmp_path, recipients, code):
    words = [word for each in recipients for word in ("--to", each)]
    assert one.refusal("export", "digits", "--output", tmp_path / "o", *words, wanted=2) == code
    assert not (tmp_path / "o").exists()


def test_a_passphrase_opens_it_too(one, tmp_path):
    secret = Secret(b"another secret of eight")
    with Keep(one.keep, passphrase=PASSPHRASE) as keep:
        transfer = Transfer(keep)
        transfer.export("digits:1", tmp_path / "o", passphrase=secret, argon2=CHEAP)
        done = transfer.take_in(tmp_path / "o", name="again", passphrase=secret)
    assert (done.name, done.version, done.is_new) == ("again", 1, True)
