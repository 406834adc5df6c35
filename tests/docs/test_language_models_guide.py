"""The guide to language models: its table, its commands and its program, with a real service."""

from __future__ import annotations

import re
import shlex
import tomllib

import pytest
from command import Desk, Process
from small_language_model import KEY, SmallServer

from modelkeep.config import parsed_config
from tests.arch.source import ROOT

PAGE = (ROOT / "docs" / "guide" / "language-models.md").read_text(encoding="utf-8")
TABLE = re.search(r"```toml\n(\[\[upstreams\]\].*?)```", PAGE, re.DOTALL)[1]
LINES = re.search(r"```sh\n(mk tokens.*?)```", PAGE, re.DOTALL)[1].splitlines()
PROGRAM = re.search(r"```python\n(import ssl.*?)```", PAGE, re.DOTALL)[1]


def test_the_tables_on_the_page_say_what_is_so():
    whole = f'keep_id = "0123456789abcdef"\nstores = [{{label = "main", path = "x"}}]\n{TABLE}'
    config = parsed_config(whole.encode(), what="the page")
    (upstream,) = config.upstreams
    for key, default in re.findall(r"^\| `(\w+)` \| `?([\w .]+?)`? \|", PAGE, re.MULTILINE):
        number, _, unit = default.partition(" ")
        wanted = int(number) * 2**20 if unit == "MiB" else default
        table = upstream if hasattr(upstream, key) else config.serve
        assert str(getattr(table, key)).removesuffix(".0") == str(wanted)


@pytest.mark.slow
def test_the_guide_s_program_streams_from_a_server_behind_the_gate(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    desk = Desk.made(tmp_path)
    server = SmallServer(tmp_path)
    (tmp_path / "ca.pem").write_bytes(server.ca)
    (tmp_path / "key").write_text(KEY)
    (tmp_path / "key").chmod(0o600)
    table = TABLE
    for name, value in tomllib.loads(TABLE)["upstreams"][0].items():
        ours = {"url": server.url, "ca": f"{tmp_path}/ca.pem", "key": f"file:{tmp_path}/key"}
        table = table.replace(f'"{value}"', f'"{ours[name]}"') if name in ours else table
    desk.config.write_text(desk.config.read_text() + "\n" + table)
    token = desk.json(*shlex.split(LINES[0])[1:])
    process = Process(*desk.words("serve", "--json"))
    try:
        url = process.event("ready")["url"]
        program = PROGRAM.replace("https://localhost:8443", url).replace("mk_…", token["api_key"])
        program = program.replace("keep/ca.pem", str(desk.keep / "ca.pem"))
        exec(compile(program, "the page", "exec"), {"__name__": "page"})  # noqa: S102 - our own page
        said = capsys.readouterr().out
        assert len(said) > 40
        assert said.endswith(" tokens\n")
        assert server.asked[0]["model"] == "meta-llama/Llama-3.3-70B-Instruct"
    finally:
        process.interrupt()
        process.ended()
        server.close()
