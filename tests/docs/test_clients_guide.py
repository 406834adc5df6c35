"""The guide for callers runs as it stands, against a gateway with both listeners."""

import os
import re
import subprocess

import pytest
from gateway_inside import Inside

from modelkeep.gate.call_options import REQUEST_PARAMETERS
from modelkeep.web.grpc_methods import CODE_BY_STATUS
from tests.arch.source import ROOT

PAGE = (ROOT / "docs" / "guide" / "clients.md").read_text(encoding="utf-8")
SHELL = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
PYTHON = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    running = Inside(tmp_path_factory.mktemp("inside")).start()
    yield running
    running.stop()


@pytest.fixture(autouse=True)
def variables(world, monkeypatch):
    monkeypatch.setenv("SERVER", f"localhost:{world.port}")
    monkeypatch.setenv("GRPC", f"localhost:{world.grpc_port}")
    monkeypatch.setenv("CA", str(world.ca_path))
    monkeypatch.setenv("KEY", world.key)


@pytest.mark.slow
@pytest.mark.parametrize("block", SHELL)
def test_the_commands_of_the_shell_are_answered(block):
    for line in block.replace("\\\n", " ").splitlines():
        done = subprocess.run(
            ["/bin/sh", "-c", line], env=dict(os.environ), capture_output=True, check=True
        )
        assert done.stdout.startswith(b"{")


@pytest.mark.slow
@pytest.mark.parametrize("block", PYTHON)
def test_the_python_runs(block):
    names = {}
    try:
        exec(compile(block, "the page", "exec"), names)  # noqa: S102 - what a reader would run
    finally:
        if "client" in names:
            names["client"].close()


def test_the_page_tells_how_every_status_is_said():
    for status, code in CODE_BY_STATUS.items():
        if status in (405, 408, 431, 499):  # of HTTP's own form
            continue
        assert re.search(rf"^\| (?:\d+, )?{status}(?:, \d+)? \| {code.name} \|", PAGE, re.MULTILINE)


def test_the_page_leaves_no_parameter_out():
    for name in REQUEST_PARAMETERS:
        if name.startswith(("triton_", "sequence_s", "sequence_e")):
            continue
        assert f"`{name}`" in PAGE
