"""`modelkeep oms`: signatures that the public tool verifies, and its signatures verified here."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from command import PASSPHRASE, Desk, modelkeep
from cryptography.hazmat.primitives.serialization import Encoding
from oms_tool import Authority, Signer, accepts, tool
from onnx_models import two_models
from tensor_files import tensors, written

from modelkeep.core.errors import KeepError
from modelkeep.crypto.ec_signatures import ec_public
from modelkeep.sdk.interop import Interop
from modelkeep.sdk.keep import Keep


@dataclass(frozen=True)
class Held:
    """A keep that is open, for opening one costs more than all else here."""

    keep: Keep
    interop: Interop
    pem: Path

    def sign(self, what, output, **options):
        return self.interop.oms_sign(what, output, **options)

    def verify(self, what, signature, **options):
        return self.interop.oms_verify(what, signature, **options)

    def refusal(self, what, signature, **options):
        with pytest.raises(KeepError) as refused:
            self.verify(what, signature, **options)
        return refused.value.code


@pytest.fixture(scope="module")
def held(tmp_path_factory):
    """A keep that holds digits:1, one file, and llm:1, a folder of four."""
    desk = Desk.made(tmp_path_factory.mktemp("oms"), second=False)
    with Keep(desk.keep, passphrase=PASSPHRASE) as keep:
        keep.admit(two_models()[0], name="digits")
        keep.admit(folder_in(desk.folder / "llm"), name="llm")
        interop = Interop(keep)
        (desk.folder / "keep.pem").write_bytes(interop.oms_key().pem)
        yield Held(keep, interop, desk.folder / "keep.pem")


def folder_in(folder):
    """A model of two shards, as others publish them."""
    (folder / "docs").mkdir(parents=True)
    for at in (1, 2):
        written(folder / f"model-{at}.safetensors", tensors(at, items=512))
    (folder / "docs" / "empty.txt").write_bytes(b"")
    (folder / "config.json").write_text("{}")
    return folder


@pytest.fixture
def somebody(tmp_path):
    return Signer(tmp_path)


def altered(path):
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)


# ---- ours, verified by the tool ----------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["sha256", "blake3"])
@pytest.mark.parametrize(("name", "files"), [("digits:1", 1), ("llm", 4)])
def test_the_public_tool_verifies_what_a_version_was_signed_as(
    held, tmp_path, algorithm, name, files
):
    signature, plain = tmp_path / "sig", tmp_path / "plain"
    done = held.sign(name, signature, algorithm=algorithm)
    assert (done.files, done.algorithm) == (files, algorithm)
    held.keep.restore(name, plain)
    assert accepts(plain, signature, held.pem)
    altered(plain if plain.is_file() else plain / "model-2.safetensors")
    assert not accepts(plain, signature, held.pem)


def test_the_public_tool_verifies_a_folder_that_was_signed_here(held, tmp_path):
    folder = folder_in(tmp_path / "m")
    (folder / ".gitattributes").write_text("*.bin filter=lfs")
    (folder / "logs").mkdir()
    (folder / "logs" / "1").write_text("x")
    signature = folder / "model.sig"  # which cannot be of itself
    done = held.sign(folder, signature, ignore=["logs"])
    assert done.ignored == (".gitattributes", "logs/1")
    assert accepts(folder, signature, held.pem)
    assert held.verify(folder, signature).files == 4
    (folder / "more.bin").write_bytes(b"x")
    assert not accepts(folder, signature, held.pem)
    assert held.refusal(folder, signature) == "oms.files"
    assert "more.bin" in held.verify(folder, signature, ignore=["more.bin"]).ignored


def test_signing_a_version_again_gives_the_same_bytes(held, tmp_path):
    for name in ("a", "b"):
        held.sign("llm", tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


# ---- theirs, verified here ---------------------------------------------------------------------


def hashing(**options):
    method = options.pop("method", "file")
    return getattr(tool("hashing").Config(), f"use_{method}_serialization")(**options)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"hashing_algorithm": "blake3"},
        {"hashing_algorithm": "blake2"},
        {"method": "shard", "shard_size": 1000},
    ],
)
def test_what_the_public_tool_signed_is_verified_on_a_disk_and_in_the_keep(
    held, somebody, tmp_path, options
):
    folder = folder_in(tmp_path / "m")
    signature = somebody.sign(folder, tmp_path / "m.sig", hashing(**options))
    for what in (folder, "llm:1"):
        done = held.verify(what, signature, key=somebody.public)
        assert done.files + len(done.ignored) == 4
        assert done.signed_name == "m"
    for name in ("model-1.safetensors", "config.json"):
        altered(folder / name)
        assert held.refusal(folder, signature, key=somebody.public) == "oms.digest"


def test_what_the_public_tool_signed_as_one_file_is_verified(held, somebody, tmp_path):
    model = two_models()[0]
    signature = somebody.sign(model, tmp_path / "d.sig")
    assert held.verify("digits:1", signature, key=somebody.public).subject == "digits:1"
    assert held.verify(model, signature, key=somebody.public).files == 1
    assert held.refusal("llm", signature, key=somebody.public) == "oms.files"


def test_a_certificate_is_taken_for_the_root_that_was_named(held, somebody, tmp_path):
    root, other = Authority.root(), Authority.root("other")
    between = root.authority("between")
    leaf = between.issued("signer", somebody.private.public_key(), is_authority=False)
    folder = folder_in(tmp_path / "m")
    signature = somebody.certify(folder, tmp_path / "m.sig", [leaf, between.certificate])
    for name, authority in (("root", root), ("other", other)):
        (tmp_path / name).write_bytes(authority.certificate.public_bytes(Encoding.PEM))
    assert held.verify(folder, signature, root=tmp_path / "root").files == 4
    assert held.refusal(folder, signature, root=tmp_path / "other") == "chain.untrusted"
    assert held.refusal(folder, signature, key=somebody.public) == "oms.signer"
    assert held.refusal(folder, signature) == "oms.signer"


# ---- what is refused ---------------------------------------------------------------------------


def test_only_the_signer_that_was_asked_for_counts(held, somebody, tmp_path):
    folder = folder_in(tmp_path / "m")
    signature = somebody.sign(folder, tmp_path / "m.sig")
    assert held.refusal(folder, signature) == "oms.signer"  # the keep's own key
    bundle = json.loads(signature.read_text())
    raw = list(bundle["dsseEnvelope"]["signatures"][0]["sig"])
    raw[20] = "A" if raw[20] != "A" else "B"
    bundle["dsseEnvelope"]["signatures"][0]["sig"] = "".join(raw)
    signature.write_text(json.dumps(bundle))
    assert held.refusal(folder, signature, key=somebody.public) == "ec.signature"
    signature.write_text("{}")
    assert held.refusal(folder, signature, key=somebody.public) == "oms.bundle"
    assert held.refusal(folder, signature, key=signature) == "ec.key"


def test_a_missing_file_and_a_link_in_its_place_are_refused(held, somebody, tmp_path):
    folder = folder_in(tmp_path / "m")
    signature = somebody.sign(folder, tmp_path / "m.sig")
    (folder / "config.json").rename(tmp_path / "config.json")
    assert held.refusal(folder, signature, key=somebody.public) == "oms.files"
    (folder / "config.json").symlink_to(tmp_path / "config.json")
    assert held.refusal(folder, signature, key=somebody.public) == "oms.files"
    (folder / "config.json").unlink()
    (tmp_path / "config.json").rename(folder / "config.json")
    (folder / "link").symlink_to("config.json")
    assert held.refusal(folder, signature, key=somebody.public) == "oms.other"
    with pytest.raises(KeepError) as refused:
        held.sign(folder, tmp_path / "o")
    assert refused.value.code == "oms.other"
    assert not (tmp_path / "o").exists()
    assert held.sign(folder, tmp_path / "o", ignore=["link"]).files == 4


# ---- as it is typed ----------------------------------------------------------------------------


def test_damage_leaves_no_signature(one, tmp_path):
    for path in (one.main / "pack").rglob("*"):
        if path.is_file():
            raw = bytearray(path.read_bytes())
            raw[60] ^= 1
            path.write_bytes(raw)
    assert one.refusal("oms", "sign", "digits", "-o", tmp_path / "o", wanted=4) == "model.damaged"
    assert not (tmp_path / "o").exists()
    assert not one.entries("model.oms_signed")


def test_files_and_a_key_need_no_keep(somebody, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = folder_in(tmp_path / "m")
    signature = somebody.sign(folder, tmp_path / "m.sig", hashing())
    words = ("oms", "verify", "./m", "--signature", signature)
    said = modelkeep(*words, "--key", somebody.public, "--json").json
    assert (said["files"], said["signed_name"]) == (4, "m")
    assert modelkeep(*words, "--json", wanted=5).error["code"] == "keep.missing"
    altered(folder / "config.json")
    found = modelkeep(*words, "--key", somebody.public, "--json", wanted=4)
    assert found.error["code"] == "oms.digest"


def test_what_may_not_be_meant_is_warned_of(one, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder_in(tmp_path / "digits")
    said = one.run("oms", "sign", "digits", "--hash", "blake3", "-o", "d.sig").err
    assert "cannot verify BLAKE3" in said
    assert "./digits names what lies here" in said
    said = one.run("oms", "verify", "digits", "--signature", "d.sig").err
    assert "./digits names what lies here" in said


def test_a_word_is_a_model_and_a_path_has_a_slash(one, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder_in(tmp_path / "other")
    assert one.refusal("oms", "sign", "other", "--output", "o", wanted=2) == "oms.subject"
    assert one.refusal("oms", "sign", "nobody", "--output", "o", wanted=5) == "model.unknown"
    assert one.refusal("oms", "sign", "./nobody", "--output", "o", wanted=5) == "file.missing"
    assert one.run("oms", "sign", "./other", "--output", "o").out.startswith("signed other")
    assert one.refusal("oms", "sign", "./other", "--output", "o", wanted=2) == "file.exists"


def test_the_ledger_knows_what_was_signed_and_verified(one, tmp_path):
    key = one.json("oms", "key")
    public = ec_public(key["pem"].encode())
    assert public.fingerprint == key["fingerprint"]
    assert one.run("oms", "key").out == key["pem"]
    (tmp_path / "keep.pem").write_bytes(public.pem)
    done = one.json("oms", "sign", "digits", "--output", tmp_path / "s", "--hash", "blake3")
    words = ("oms", "verify", "digits:1", "--signature", tmp_path / "s")
    text = one.run(*words, "--key", tmp_path / "keep.pem").out
    assert text.startswith("good: digits:1 is what was signed as digits:1: 1 file(s)")
    one.run("oms", "sign", folder_in(tmp_path / "m"), "--output", tmp_path / "t")
    first, second = (each["facts"] for each in one.entries("model.oms_signed"))
    (verified,) = (each["facts"] for each in one.entries("model.oms_verified"))
    assert verified == first
    assert (first["model"], first["version"], first["files"]) == ("digits", 1, 1)
    assert (first["root"], first["key"]) == (done["root"], key["fingerprint"])
    assert (second["subject"], second["files"]) == ("m", 4)
    assert "model" not in second
