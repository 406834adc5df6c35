"""`modelkeep preflight`: what a machine lacks for the models of a keep, before it serves them."""

import os
import socket
from pathlib import Path

import pytest
from command import Process, modelkeep, wait_until


def configured(desk, text):
    desk.config.write_text(desk.config.read_text() + text)


def rules(facts):
    return {each["rule"]: each["severity"] for each in facts["findings"]}


def status_of(pid):
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def test_a_machine_that_has_what_is_needed_is_ready(one):
    said = one.run("preflight")
    assert said.out.splitlines()[-1] == "this machine is ready"
    found = one.json("preflight", "digits:1")
    assert found["decision"] == "allow"
    assert set(rules(found).values()) <= {"note"}


def test_what_the_operator_demands_and_is_missing_is_refused_and_what_he_advises_is_a_risk(one):
    configured(one, '[preflight.demand]\nmin_ram = "500 TiB"\n[preflight.advise]\nos = ["plan9"]\n')
    found = rules(one.json("preflight", wanted=3))
    assert found["preflight.memory"] == "high"
    assert found["preflight.os"] == "medium"
    said = one.run("preflight", wanted=3)
    assert "fails  memory: 500.0 TiB are demanded" in said.out
    assert said.out.splitlines()[-1] == "this machine is not ready"


def test_a_port_that_is_taken_and_a_database_that_is_away_are_found(one):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        closed = free_port()
        configured(
            one,
            f'[preflight.demand]\nports_free = [{port}]\nreachable = ["127.0.0.1:{port}", '
            f'"postgresql://me:hunter2@127.0.0.1:{closed}/x"]\n',
        )
        said = one.run("preflight", "--json", wanted=3)
    assert rules(said.json)["preflight.port"] == "high"
    assert rules(said.json)["preflight.reachable"] == "high"
    assert "hunter2" not in said.out


def test_key_material_that_others_may_read_is_found(one):
    one.config.chmod(0o666)
    found = one.json("preflight", wanted=3)
    assert rules(found)["preflight.permission"] == "medium"


def test_a_demand_that_cannot_be_checked_is_an_error_of_the_settings(one):
    configured(one, '[preflight.demand]\nmin_ram = "much"\n')
    assert one.refusal("preflight", wanted=2) == "config.value"


def test_a_model_that_is_not_there_is_said(one):
    assert one.refusal("preflight", "nothing", wanted=5) == "model.unknown"


def test_a_keep_without_models_is_judged_all_the_same(desk):
    assert desk.json("preflight")["decision"] == "allow"


def test_the_machine_alone_needs_no_keep():
    found = modelkeep("preflight", "--machine", "--facts", "--json", wanted=None).json
    assert found["host"]["system"] == "linux"
    assert found["host"]["isolation"]
    assert "system: linux" in modelkeep("preflight", "--machine", "--facts", wanted=None).out
    assert modelkeep("preflight", "--machine", "m", wanted=2).err


def test_a_service_does_not_start_where_it_would_surely_fail(one, running):
    configured(one, '[preflight.demand]\ncpu_flags = ["no-such-flag"]\n')
    ended = running(Process(*one.words("serve", "--json"))).ended()
    assert (ended.status, ended.error["code"]) == (3, "preflight.refused")


def test_what_a_replica_is_locked_in_with_is_said():
    found = {
        each["name"]: each["is_on"]
        for each in modelkeep("serve", "--explain-sandbox", "--json").json
    }
    assert {"no network", "system calls", "no files"} <= set(found)
    assert "system calls" in modelkeep("serve", "--explain-sandbox").out


@pytest.mark.slow
def test_a_replica_that_serves_is_locked_in(one, running):
    ready = running(Process(*one.words("serve", "--json"))).event("ready")
    replicas = [pid for name, pid in ready["processes"].items() if name.startswith("replica")]
    assert len(replicas) == 2
    for pid in replicas:
        # The service is ready with the first of them; the second one may load yet.
        wait_until(lambda pid=pid: status_of(pid)["Seccomp"] == "2", 20)
        facts = status_of(pid)
        assert facts["NoNewPrivs"] == "1"
        assert facts["Seccomp"] == "2"  # a filter
        assert int(facts["CapEff"], 16) == int(facts["CapPrm"], 16) == 0
        if os.geteuid() == 0:
            assert facts["Uid"].split()[0] != "0"
