"""The commands of the guide to provenance run, in order; its tables and rules are the code's."""

import datetime
import hashlib
import re
import shlex

import pytest
from command import Desk, modelkeep
from onnx_models import two_models
from osv_records import exported, ranged, record
from tensor_files import tensors, written

from modelkeep.config import parsed_config
from modelkeep.crypto.keytext import verifier_text
from modelkeep.scan.provenance import expected_of
from tests.arch.source import PACKAGE, ROOT

PAGE = (ROOT / "docs" / "guide" / "provenance.md").read_text(encoding="utf-8")
ADMISSION, ADVISORIES = re.findall(r"^```toml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
BLOCKS = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
NOW = datetime.datetime.now(tz=datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
LOCK = "tornado==6.1 --hash=sha256:" + "a1" * 32 + "\n"


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.slow
def test_the_guide_runs_from_top_to_bottom(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    desk = Desk.made(tmp_path, second=False)
    llama = tmp_path / "llama"
    llama.mkdir()
    for at in (1, 2):
        written(llama / f"model-{at}.safetensors", tensors(at, items=64))
    (tmp_path / "fraud.onnx").write_bytes(two_models()[0].read_bytes())
    (llama / "requirements.txt").write_text(LOCK)
    (tmp_path / "requirements.lock").write_text(LOCK)
    modelkeep("sbom", "requirements.lock", "--output", "app.cdx.json")
    exported(
        tmp_path, record("tornado", ranged(("introduced", "0"), ("fixed", "6.1")), modified=NOW)
    )
    digest = sha256(tmp_path / "fraud.onnx")
    for line in "".join(BLOCKS).splitlines():
        if "app.cdx.json --spec" in line:
            (tmp_path / "app.cdx.json").unlink()
        command, _, target = line.replace("$DIGEST", digest).partition(" > ")
        program, *words = shlex.split(command)
        done = desk.run(*words) if program == "mk" else modelkeep(*words)
        if target:
            (tmp_path / target).write_text(done.out)
    entries = desk.entries("model.provenance")
    assert [each["facts"]["model"] for each in entries] == ["llama", "fraud", "copy"]
    assert entries[0]["facts"]["signer"] == "key:" + sha256(tmp_path / "maker.pem")


def test_the_tables_on_the_page_are_believed():
    base = 'keep_id = "0123456789abcdef"\n[[stores]]\nlabel = "main"\npath = "stores/main"\n'
    text = ADMISSION.replace("mkv1…", verifier_text(bytes(32)))
    said = parsed_config((base + text + ADVISORIES).encode(), what="the page")
    assert len(said.admission.signers) == 2
    assert [each.package for each in said.advisories.tolerated] == ["tornado", "acme-internal"]


def test_the_page_names_every_rule_and_no_other():
    sources = ["flows/provenance.py", "scan/provenance.py"]
    text = "".join((PACKAGE / each).read_text(encoding="utf-8") for each in sources)
    made = set(re.findall(r'(?:wanting|said)\(\s*"((?:provenance|dependencies)[a-z.]+)"', text))
    told = set(re.findall(r"`((?:provenance|dependencies)\.[a-z.]+)`", PAGE))
    assert "provenance.bom.unbound" in told
    assert made - told <= {"provenance.bom.unlisted", "dependencies.tolerated"}
    assert told <= made


def test_the_page_names_every_kind_of_digest():
    (said,) = re.findall(r"`--expect` takes ([^.]+)\.", PAGE)
    for name, chars in (("sha384", 96), ("sha512", 128), ("sha3_256", 64), ("blake2b", 128)):
        assert expected_of(f"{name}:{'0' * chars}")
    assert said.split(", ")[:3] == ["SHA-256", "SHA-384", "SHA-512"]
