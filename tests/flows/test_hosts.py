"""A real service with a real host of replicas beside it: calls, deaths, swaps and changes.

Both are started as a person starts them. Callers send each call once, so that whatever is refused
or lost on the way is seen.
"""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

import pytest
from command import Desk, Process, wait_until
from load import Callers

pytestmark = pytest.mark.slow
# A loaded machine stands still for minutes at times; nothing here is a test of patience.
WAIT_S = 300.0
LIMITS = "[gate]\ncall_timeout_s = 300.0\n\n[pool]\nhung_s = 300.0\n\n[objectives]"


class Serving:
    """A keep whose service has a host, and that host."""

    def __init__(self, desk):
        self.desk = desk
        self.file = desk.folder / "spare-1.pem"
        desk.run("certificates", "host", "spare-1", "--out", self.file)
        self.temporary = desk.folder / "temporary"
        self.temporary.mkdir()
        self.start_host("127.0.0.1:0")
        self.written = desk.config.read_text()
        self.write(replicas=1)
        self.key = desk.json("tokens", "new", "alice", "--scope", "infer:*")["api_key"]
        self.process = Process(*desk.words("serve", "--json"))
        self.facts = self.process.event("ready")

    def start_host(self, address):
        words = ("host", "--listen", address, "--certificate", self.file, "--json")
        self.host = Process(*words, env={**os.environ, "TMPDIR": str(self.temporary)})
        self.address = self.host.event("waiting")["address"]

    def write(self, *, replicas, hosts=1):
        text = re.sub(r"replicas = \d+", f"replicas = {replicas}\ngateways = 2", self.written)
        table = f'\n[[hosts]]\nname = "spare-1"\naddress = "{self.address}"\n'
        self.desk.config.write_text(text + table * hosts)

    def reload(self, **how):
        self.write(**how)
        os.kill(self.process.pid, signal.SIGHUP)

    def callers(self, **how):
        return Callers(self.facts["url"], self.desk.keep / "ca.pem", self.key, **how)

    def told(self):
        return json.loads((self.desk.keep / "run" / "service.json").read_bytes())

    def replicas(self):
        names = self.told()["processes"]
        return sorted(each for each in names if each.startswith(("replica-", "host-")))

    def hosted(self):
        """The processes of replicas on the host."""
        found = []
        for pid in self.host.left():
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            found += [pid] * (b"modelkeep.workers.replica" in words)
        return found

    def whole(self, version):
        """`digits` in this version, once here and once on the host, and nothing else."""
        here = {f"replica-digits-{version}", f"host-spare-1-digits-{version}"}
        names = [each.rpartition("-")[0] for each in self.replicas()]
        return sorted(names) == sorted(here) and len(self.hosted()) == 1


@pytest.fixture
def serving(tmp_path):
    desk = Desk.made(tmp_path)
    desk.configure("[objectives]", LIMITS)
    desk.admit(1)
    desk.admit(2)
    desk.run("promote", "digits:1", "--to", "prod")
    made = Serving(desk)
    yield made
    made.process.clean()
    made.host.clean()


@pytest.mark.verify("hosts")
def test_hosts_die_answer_alone_swap_and_leave_under_load_and_no_call_fails(serving, count):
    with serving.callers() as callers:
        for _ in range(count(1, full=20)):
            wait_until(lambda: serving.whole(1), WAIT_S)
            callers.wait(50, WAIT_S)
            os.kill(serving.host.pid, signal.SIGKILL)
            callers.wait(200, WAIT_S)
            wait_until(lambda: not serving.hosted(), WAIT_S)
            wait_until(lambda: serving.told()["silent"] == ["host-spare-1-digits-1-0"], WAIT_S)
            said = serving.desk.run("status").out
            assert "does not answer: host-spare-1-digits-1-0" in said
            serving.host.clean()
            serving.start_host(serving.address)
            wait_until(serving.hosted, WAIT_S)
            wait_until(lambda: not serving.told()["silent"], WAIT_S)
        serving.reload(replicas=0)  # from now on nobody else can answer
        wait_until(lambda: serving.replicas() == ["host-spare-1-digits-1-0"], WAIT_S)
        callers.wait(100, WAIT_S)
        assert set(callers.versions) == {"1"}
        serving.desk.run("promote", "digits:2", "--to", "prod")
        wait_until(lambda: callers.versions["2"] > 50, WAIT_S)
        wait_until(lambda: serving.replicas() == ["host-spare-1-digits-2-0"], WAIT_S)
        assert not any(each.is_file() for each in serving.temporary.rglob("*"))
        serving.reload(replicas=1)
        wait_until(lambda: serving.whole(2), WAIT_S)
        serving.reload(replicas=1, hosts=0)  # the host is named no more
        wait_until(lambda: len(serving.replicas()) == 1 and not serving.hosted(), WAIT_S)
        callers.wait(50, WAIT_S)
    assert callers.failed == []
    ended = [each["facts"]["process"] for each in serving.desk.entries("process.ended")]
    assert not any(each.startswith("host-") for each in ended)
