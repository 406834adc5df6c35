"""The guide to policies and attestation: its policy is complete, its commands run, it is honest."""

import re
import shlex

import pytest
from command import Desk, modelkeep
from onnx_models import two_models

from modelkeep.adapters.keysource_attested import KeyPolicy
from modelkeep.config import parsed_config
from modelkeep.core.policy import Output, Policy, Use
from modelkeep.core.record import as_plain
from modelkeep.core.reference import parsed_reference
from modelkeep.sdk.papers import policy_of
from tests.arch.source import ROOT

PAGE = (ROOT / "docs" / "guide" / "policy.md").read_text(encoding="utf-8")
POLICY, ATTESTATION, RELEASE = re.findall(r"^```toml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
BLOCKS = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_the_policy_on_the_page_has_every_key_and_is_one(tmp_path):
    (tmp_path / "policy.toml").write_text(POLICY)
    found = policy_of(tmp_path / "policy.toml")
    assert found == Policy(
        uses=(Use.SERVE, Use.LOAD),
        loaders=("supervisor", "cli:alice"),
        not_after_ns=1_909_051_200 * 10**9,
        replicas_max=2,
        output=Output.ROUNDED,
    )
    keys = {line.partition(" ")[0] for line in POLICY.splitlines()}
    assert keys == {name.removesuffix("_ns") for name in as_plain(Policy())}
    for each in (*Use, *Output):
        assert each in POLICY
    for name in keys:
        assert f"| `{name}` |" in PAGE or name == "decimals"


def test_the_tables_on_the_page_are_believed():
    base = 'keep_id = "0123456789abcdef"\n[[stores]]\nlabel = "main"\npath = "stores/main"\n'
    said = parsed_config((base + ATTESTATION).encode(), what="the page").attestation
    assert said.attester == "software:/etc/modelkeep/host.key"
    keys = {line.partition(" ")[0] for line in RELEASE.splitlines()}
    assert keys | {"age_s_max", "hosts"} == set(KeyPolicy.__struct_fields__)
    (named,) = re.findall(r'source = "(attested:[^"]+)"', PAGE)
    assert parsed_reference(named).path == "/etc/modelkeep/release.toml"


@pytest.mark.slow
def test_the_commands_run_as_they_stand(tmp_path, monkeypatch):
    desk = Desk.made(tmp_path, second=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "policy.toml").write_text(POLICY)
    (tmp_path / "fraud.onnx").write_bytes(two_models()[0].read_bytes())
    said = []
    for line in "".join(BLOCKS).splitlines():
        if line == "nonce=$(openssl rand -hex 32)":
            continue
        command, _, target = (
            line.replace("$PWD", str(tmp_path)).replace("$nonce", "0f" * 32).partition(" > ")
        )
        name, *words = shlex.split(command, comments=True)
        done = desk.run(*words) if name == "mk" else modelkeep(*words)
        said.append(done.out)
        if target:
            (tmp_path / target).write_text(done.out)
    assert len(said) == 8
    assert "host" in said[-1]
    assert desk.refusal("restore", "fraud:1", "--to", tmp_path / "x", wanted=3) == "policy.use"
