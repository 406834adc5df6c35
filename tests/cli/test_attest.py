"""Which host this is, proven: by hand, and for models that are bound to hosts."""

import json

import pytest
from command import Desk, modelkeep
from onnx_models import two_models

NONCE = "0f" * 32


@pytest.fixture
def key(tmp_path):
    made = modelkeep("attest", "new", tmp_path / "host.key")
    (tmp_path / "host.pub").write_text(made.out)
    assert made.err.startswith("modelkeep: this host is A")
    return tmp_path / "host.key"


def evidence_of(key, *words):
    done = modelkeep("attest", "show", "--attester", f"software:{key}", "--raw", *words)
    path = key.with_suffix(".jwt")
    path.write_text(done.out)
    return path


def test_a_key_is_made_once_and_for_its_owner_only(key):
    assert key.stat().st_mode & 0o777 == 0o600
    again = modelkeep("attest", "new", key, "--json", wanted=2)
    assert again.error["code"] == "keysource.exists"
    told = modelkeep("attest", "new", f"{key}.2", "--algorithm", "Ed25519", "--json").json
    assert told["public"].startswith("-----BEGIN PUBLIC KEY-----")
    assert "PRIVATE" not in json.dumps(told)


def test_a_host_shows_what_it_can_prove(key):
    shown = modelkeep("attest", "show", "--attester", f"software:{key}").out
    assert "modelkeep=sha-256:" in shown
    told = modelkeep("attest", "show", "--attester", f"software:{key}", "--json").json["told"]
    assert told["ueid"] in shown
    assert told["debug"] == "disabled"


def test_evidence_is_verified_with_the_nonce_that_was_given_out(key, tmp_path):
    path = evidence_of(key, "--nonce", NONCE)
    words = ("attest", "verify", path, "--anchor", tmp_path / "host.pub")
    found = modelkeep(*words, "--nonce", NONCE, "--json").json
    measured = found["measurements"].split()[0]
    modelkeep(*words, "--nonce", NONCE, "--measurement", measured)
    for more, code in (
        (("--nonce", "00" * 32), "attest.nonce"),
        (("--nonce", NONCE, "--measurement", "modelkeep=other"), "attest.measurement"),
    ):
        assert modelkeep(*words, *more, "--json", wanted=3).error["code"] == code
    for nonce in ("xy", "00", ""):
        refused = modelkeep(*words, "--nonce", nonce, "--json", wanted=2)
        assert refused.error["code"] == "attest.nonce_form"
    gone = modelkeep("attest", "verify", "/no/such", *words[3:], "--nonce", NONCE, wanted=5)
    assert "there is no file" in gone.err


def test_without_an_attester_nothing_is_shown(tmp_path):
    desk = Desk.made(tmp_path / "desk", second=False)
    assert desk.refusal("attest", "show", wanted=2) == "attest.none"
    wrong = ("attest", "show", "--attester", "file:/key")
    assert desk.refusal(*wrong, wanted=2) == "reference.scheme"


def test_a_model_that_is_bound_to_a_host_is_used_there_and_nowhere_else(key, tmp_path):
    desk = Desk.made(tmp_path / "desk", second=False)
    told = modelkeep("attest", "show", "--attester", f"software:{key}", "--json").json["told"]
    measured = next(each for each in told["measurements"].split() if each.startswith("modelkeep="))
    policy = tmp_path / "policy.toml"
    policy.write_text(f'hosts = ["{told["ueid"]}"]\n')
    desk.run("admit", two_models()[0], "--name", "m", "--policy", policy)
    target = tmp_path / "m.onnx"
    assert refused(desk, target, wanted=3) == "policy.host"
    table = (
        f'[attestation]\nattester = "software:{key}"\nanchors = ["{tmp_path}/host.pub"]\n'
        f'measurements = ["{measured}"]\n'
    )
    desk.config.write_text(f"{desk.config.read_text()}\n{table}")
    assert "this keep believes it" in desk.run("attest", "show").out
    desk.run("restore", "m", "--to", target)
    assert target.read_bytes() == two_models()[0].read_bytes()
    (entry,) = desk.entries("host.attested")
    assert entry["facts"]["host"] == told["ueid"]
    key.unlink()
    modelkeep("attest", "new", key)
    assert refused(desk, tmp_path / "another", wanted=3) == "attest.signature"
    assert "does not believe it" in desk.run("attest", "show").out


def refused(desk, target, *, wanted):
    done = desk.run("restore", "m", "--to", target, "--json", wanted=wanted)
    assert not target.exists()
    return done.error["code"]
