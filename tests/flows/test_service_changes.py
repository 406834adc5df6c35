"""A real service that changes while it answers: versions, canaries, gateways, certificates.

Callers send each call once, so that whatever is refused or lost on the way is seen. Each test
begins with `digits:1` alone, by the alias `prod`, and the keep's own certificate.
"""

import http.client
import json
import os
import shutil
import signal
import ssl
import subprocess
import time

import pytest
from command import Desk, Process, wait_until
from gateway_world import certificate
from load import Callers

pytestmark = pytest.mark.slow
OWN = "gateways = 2"
LIMITS = "[gate]\ncall_timeout_s = 8.0\n\n[pool]\nhung_s = 8.0\n\n[objectives]"


class Serving:
    """A keep whose service can be changed."""

    def __init__(self, desk):
        self.desk = desk
        words = ("tokens", "new", "alice", "--scope", "infer:*", "--scope", "metrics")
        self.key = desk.json(*words)["api_key"]
        self.process = Process(*desk.words("serve", "--json"))
        self.facts = self.process.event("ready")

    def callers(self, **how):
        ca = how.pop("ca", self.desk.keep / "ca.pem")
        return Callers(self.facts["url"], ca, self.key, **how)

    def told(self):
        return json.loads((self.desk.keep / "run" / "service.json").read_bytes())

    def pids(self):
        return self.told()["processes"]

    def models(self):
        return sorted(each for each in self.told()["models"] if each.startswith("digits:"))

    def replicas(self, name, version):
        return [each for each in self.pids() if each.startswith(f"replica-{name}-{version}-")]

    def reload(self):
        os.kill(self.process.pid, signal.SIGHUP)

    def promoted(self, version):
        """`prod` names this version, and nothing else of the model is served."""
        if self.models() == [f"digits:{version}"]:
            return
        self.desk.run("promote", f"digits:{version}", "--to", "prod")
        wait_until(lambda: self.models() == [f"digits:{version}"], 30)
        wait_until(lambda: self.replicas("digits", 3 - version) == [], 30)

    def unchanged(self):
        return len(self.desk.entries("service.unchanged"))


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    desk = Desk.made(tmp_path_factory.mktemp("changes"))
    desk.configure("replicas = 2", f"replicas = 1\n{OWN}")
    desk.configure("[objectives]", LIMITS)
    desk.admit(1)
    desk.admit(2)
    desk.admit(1, name="fresh")
    desk.run("promote", "digits:1", "--to", "prod")
    made = Serving(desk)
    yield made
    made.process.clean()


@pytest.fixture
def serving(running):
    running.promoted(1)
    return running


@pytest.mark.verify("swap")
def test_versions_swap_under_load_without_a_failed_call(serving, count):
    before = len(serving.desk.entries("process.ended"))
    with serving.callers() as callers:
        callers.wait(10)
        for number in range(count(1, full=20)):
            version = 2 - number % 2
            serving.promoted(version)
            wait_until(lambda v=version: callers.versions[str(v)] > 20, 30)
    assert callers.failed == []
    assert set(callers.versions) == {"1", "2"}
    version = 2 - (count(1, full=20) - 1) % 2
    (name,) = serving.replicas("digits", version)
    ended = [each["facts"]["process"] for each in serving.desk.entries("process.ended")[before:]]
    assert name not in ended  # it was started once, by whom it ends with


def test_what_is_admitted_takes_over_where_no_alias_says_otherwise(serving):
    with serving.callers(model="fresh") as callers:
        callers.wait(10)
        serving.desk.admit(2, name="fresh")
        wait_until(lambda: callers.versions["2"] > 20, 30)
    assert callers.failed == []
    wait_until(lambda: serving.replicas("fresh", 1) == [], 10)
    wait_until(lambda: serving.desk.entries("service.changed"), 5)
    assert serving.models() == ["digits:1"]


def test_a_canary_answers_its_share_and_a_rollback_ends_it_within_seconds(serving):
    desk = serving.desk
    desk.run("promote", "digits:2", "--to", "prod")
    desk.run("traffic", "set", "digits", "--canary", "1=25%", "--shadow", "2")
    with serving.callers() as callers:
        wait_until(lambda: serving.models() == ["digits:1", "digits:2"], 20)
        wait_until(lambda: callers.versions["1"] and callers.versions["2"], 20)
        time.sleep(1.0)  # what was swapped on the way there is in force everywhere
        callers.versions.clear()
        callers.wait(400)
        share = callers.versions["1"] / callers.done
        assert 0.2 < share < 0.3
        desk.run("rollback", "digits:prod")
        assert wait_until(lambda: serving.models() == ["digits:1"], 10) < 5
        time.sleep(0.5)  # answers of the calls that were under way
        callers.versions.clear()
        callers.wait(50)
        assert set(callers.versions) == {"1"}
    assert callers.failed == []
    assert desk.json("traffic", "list") == []


def test_of_a_killed_gateway_only_the_calls_under_way_are_lost(serving):
    with serving.callers(count=4) as callers:
        callers.wait(20)
        before = serving.pids()
        os.kill(before["gateway-0"], signal.SIGKILL)
        wait_until(lambda: serving.pids().get("gateway-0") not in (before["gateway-0"], None), 10)
        callers.wait(50)
        assert len(callers.failed) <= 4  # one call of each connection, if all were there
        callers.failed.clear()
        callers.wait(50)
    assert callers.failed == []
    assert serving.pids()["gateway-1"] == before["gateway-1"]


def test_the_metrics_of_one_gateway_are_those_of_all(serving):
    def scraped():
        address, ca = serving.callers().address, serving.desk.keep / "ca.pem"
        connection = http.client.HTTPSConnection(
            address.hostname, address.port, context=ssl.create_default_context(cafile=str(ca))
        )
        connection.request("GET", "/metrics", headers={"authorization": f"Bearer {serving.key}"})
        text = connection.getresponse().read().decode()
        connection.close()
        return text

    wait_until(lambda: 'gateway="0"' in scraped() and 'gateway="1"' in scraped(), 10)
    text = scraped()
    assert text.count("# TYPE modelkeep_calls_total counter") == 1
    lines = [line for line in text.splitlines() if line.startswith("modelkeep_in_flight_calls{")]
    assert len(lines) == 2


def test_what_cannot_be_served_leaves_what_was_there(serving):
    before = serving.unchanged()
    line = f"{OWN}\nmodels = ['digits:9']"
    serving.desk.configure(OWN, line)
    with serving.callers() as callers:
        serving.reload()
        wait_until(lambda: serving.unchanged() > before, 20)
        callers.wait(20)
    assert callers.failed == []
    assert serving.models() == ["digits:1"]
    serving.desk.configure(line, OWN)
    serving.reload()


@pytest.mark.verify("swap")
def test_limits_change_without_a_restart(serving):
    limit = '[[limits]]\nname = "few"\ncalls_per_hour = 7\n\n[objectives]'
    serving.desk.configure("[objectives]", limit)
    try:
        serving.reload()
        with serving.callers() as callers:
            wait_until(lambda: len(callers.failed) > 20, 20)
            answered = callers.done
            callers.wait(20)
            assert callers.done == answered  # and from neither gateway
        assert all("quota.calls" in each for each in callers.failed)
    finally:
        serving.desk.configure(limit, "[objectives]")
        serving.reload()

    def is_answered():
        with serving.callers(count=1) as callers:
            callers.wait(10)
        return callers.failed == []

    wait_until(is_answered, 20)


def test_a_certificate_is_replaced_without_a_failed_call(serving, count, tmp_path):
    """First the keep's own gives way to a given one, then its files change under it."""
    pairs = [certificate("one"), certificate("two")]
    ders = [{ssl.PEM_cert_to_DER_cert(pem.decode())} for pem, _ in pairs]
    bundle, chain, key = tmp_path / "ca.pem", tmp_path / "chain.pem", tmp_path / "key.pem"
    own = (serving.desk.keep / "ca.pem").read_bytes()
    bundle.write_bytes(own + pairs[0][0] + pairs[1][0])
    key.touch(mode=0o600)

    def write(pair):
        chain.write_bytes(pair[0])
        key.write_bytes(pair[1].removeprefix(pair[0]))

    write(pairs[0])
    lines = f"{OWN}\ncertificate = '{chain}'\nkey = 'file:{key}'"
    with serving.callers(ca=bundle, is_fresh=True) as callers:
        callers.wait(5)
        serving.desk.configure(OWN, lines)
        serving.reload()
        wait_until(lambda: ders[0] <= callers.certificates, 20)
        number = 0
        for number in range(1, count(1, full=20) + 1):
            callers.certificates.clear()
            write(pairs[number % 2])
            wait_until(lambda n=number: ders[n % 2] <= callers.certificates, 20)
        before = serving.unchanged()
        chain.write_bytes(pairs[(number + 1) % 2][0])  # of another key: what is there goes on
        wait_until(lambda: serving.unchanged() > before, 20)
        callers.certificates.clear()
        callers.wait(10)
        assert callers.certificates == ders[number % 2]
        serving.desk.configure(lines, OWN)
        serving.reload()
        wait_until(lambda: len(callers.certificates) > 1, 20)
    assert callers.failed == []


@pytest.mark.verify("swap")
def test_the_only_replica_hangs_and_is_started_again(serving, count):
    """Calls that it had are lost with it: there is nobody else to ask."""
    rounds = count(0, full=3)
    if not rounds:
        pytest.skip("takes as long as a call may: ./run verify swap")
    for _ in range(rounds):
        (name,) = serving.replicas("digits", 1)
        pid = serving.pids()[name]
        time.sleep(5.0)  # what was just started is not found to hang
        os.kill(pid, signal.SIGSTOP)
        with serving.callers(count=2) as callers:
            wait_until(lambda n=name, p=pid: serving.pids().get(n) not in (p, None), 30)
            wait_until(lambda: callers.done, 10)
            callers.failed.clear()
            callers.wait(20)
        assert callers.failed == []


@pytest.mark.verify("tls")
def test_an_outside_judge_finds_mozillas_intermediate_profile(serving):
    program = shutil.which("sslyze")
    if program is None:
        pytest.skip("sslyze is not on the PATH (pip install sslyze, in an environment of its own)")
    ca, address = serving.desk.keep / "ca.pem", serving.callers().address.netloc
    words = [program, "--mozilla_config", "intermediate", "--certinfo_ca_file", ca, address]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert "OK - Compliant" in done.stdout, done.stdout[-3000:]
