"""The guide to identity: its commands run, its tables are believed, what it promises is set."""

import json
import re
import shlex
import subprocess
import sys

import pytest
from command import Desk
from gateway_world import certificate
from identity_scene import PASSWORD, Scene
from identity_world import started

from modelkeep.cli.grammar import access
from modelkeep.config import parsed_config
from modelkeep.gate.identity_settings import IdentitySettings
from tests.arch.source import ROOT

PAGE = (ROOT / "docs" / "guide" / "identity.md").read_text(encoding="utf-8")
ISSUER, SERVE = re.findall(r"^```toml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
LINES = [
    line
    for block in re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
]
CALLS = [line for line in LINES if line.startswith("curl ")]


def test_the_tables_on_the_page_are_believed():
    base = 'keep_id = "0123456789abcdef"\n[[stores]]\nlabel = "main"\npath = "stores/main"\n'
    found = parsed_config((base + ISSUER + SERVE).encode(), what="the page")
    (issuer,) = found.identity.issuers
    assert issuer.roles == {"ml-users": ("caller",)}
    assert found.serve.client_ca == "/etc/modelkeep/clients-ca.pem"


def test_the_numbers_on_the_page_are_those_in_force():
    usual = IdentitySettings()
    assert (usual.token_s, usual.failures_free, usual.delay_s_max) == (600, 5, 15 * 60)
    assert (usual.jwks_refresh_s, usual.jwks_refresh_s_min) == (5 * 60, 10)
    assert usual.jwks_stale_s_max == 86_400


def test_the_page_leaves_out_no_verb_that_takes_away():
    for verb in access.VERBS:
        if verb.name.endswith(("revoke", "disable", "password", "certificate")):
            assert verb.name in PAGE, verb.name


@pytest.mark.slow
def test_the_verbs_run_as_they_stand(tmp_path, monkeypatch):
    desk = Desk.made(tmp_path, second=False)
    monkeypatch.chdir(tmp_path)
    text = desk.config.read_text()
    desk.config.write_text(f"{text}\n{ISSUER}")
    (tmp_path / "robot.password").write_text(PASSWORD)
    (tmp_path / "alice-corporate.pem").write_bytes(certificate()[0])
    said = {}
    for line in LINES:
        if line.startswith("mk "):
            command, _, source = line.partition(" < ")
            with open(source or "/dev/null", encoding="utf-8") as stream:  # noqa: PTH123
                monkeypatch.setattr(sys, "stdin", stream)
                said[line] = desk.run(*shlex.split(command)[1:]).out
    assert "robot" in said["mk certificates list"]
    assert "https://login.corp.example" in said["mk issuers list"]
    assert len(desk.json("certificates", "list")) == 2


@pytest.mark.slow
def test_the_calls_are_answered(tmp_path):
    scene = Scene(tmp_path)
    world = started(scene, tmp_path / "keep")
    try:
        (tmp_path / "ca.pem").write_bytes(world.ca)
        (tmp_path / "robot.password").write_text(PASSWORD.replace(" ", "+"))  # as a form has it
        pem = scene.clients["robot"].pem
        at = pem.index(b"-----BEGIN PRIVATE")
        (tmp_path / "robot.pem").write_bytes(pem[:at])
        (tmp_path / "robot.key").write_bytes(pem[at:])
        answers = []
        for line in CALLS:
            command = line.replace(":8443", f":{world.port}")
            done = subprocess.run(
                ["/bin/bash", "-c", command], cwd=tmp_path, capture_output=True, check=True
            )
            answers.append(json.loads(done.stdout))
    finally:
        world.stop()
    token, model = answers
    assert (token["token_type"], token["expires_in"]) == ("Bearer", 600)
    assert model["name"] == "digits"
