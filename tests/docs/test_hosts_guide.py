"""The guide to replicas on other machines runs as it stands on the page, on one machine."""

import re
import shlex

import pytest
from command import Desk, Process

from modelkeep.config import parsed_config
from tests.arch.source import ROOT

PAGE = (ROOT / "docs" / "guide" / "hosts.md").read_text(encoding="utf-8")
LINES = [
    line
    for block in re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
]
(TABLE,) = re.findall(r"^```toml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
ADDRESS = "10.0.0.7:9443"


@pytest.mark.slow
def test_the_guide_runs_from_top_to_bottom(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    desk = Desk.made(tmp_path)
    desk.admit()
    started = []
    try:
        for line in LINES:
            program, *words = shlex.split(line.replace(ADDRESS, "127.0.0.1:0"))
            if program == "mk":
                desk.run(*words)
            else:
                assert program == "modelkeep"
                started.append(Process(*words))
        sandbox, host = started
        assert sandbox.ended().status == 0
        address = re.search(r"waits for its service at (\S+);", host.popen.stdout.readline())[1]
        desk.configure("replicas = 2", "replicas = 0")
        desk.config.write_text(desk.config.read_text() + TABLE.replace(ADDRESS, address))
        assert parsed_config(desk.config.read_bytes(), what="it").hosts[0].name == "spare-1"
        started.append(Process(*desk.words("serve", "--json")))
        assert "host-spare-1-digits-1-0" in started[-1].event("ready")["processes"]
        assert "digits:1 on spare-1 is up" in started[-1].popen.stderr.readline()
    finally:
        for each in started:
            each.clean()
