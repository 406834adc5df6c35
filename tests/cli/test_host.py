"""`modelkeep host`: it waits with nothing but its certificate, and says what is wrong with that."""

import signal

import pytest
from command import Process


@pytest.fixture
def file(desk):
    path = desk.folder / "spare-1.pem"
    desk.run("certificates", "host", "spare-1", "--out", path)
    return path


def host(running, path, *words, listen="127.0.0.1:0"):
    return running(Process("host", "--listen", listen, "--certificate", path, *words))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_waits_for_its_service_until_it_is_told_to_end(file, running, number):
    process = host(running, file, "--json")
    facts = process.event("waiting")
    assert facts["host"] == "spare-1"
    assert facts["address"].startswith("127.0.0.1:")
    process.popen.send_signal(number)
    assert process.ended().status == 0
    assert process.left() == []


def test_people_are_told_until_when(file, running):
    process = host(running, file)
    said = process.popen.stdout.readline()
    assert said.startswith("spare-1 waits for its service at 127.0.0.1:")
    assert "certificate until 2" in said


def error(process):
    ended = process.ended()
    assert ended.out == ""
    return ended.status, ended.error["code"]


def test_what_is_wrong_is_said(file, running, desk):
    other = desk.folder / "other.pem"
    other.write_bytes((desk.keep / "ca.pem").read_bytes())
    other.chmod(0o600)
    assert error(host(running, other, "--json")) == (2, "host.certificate")
    assert error(host(running, desk.folder / "none", "--json")) == (5, "keysource.missing")
    assert error(host(running, file, "--json", listen="nowhere")) == (2, "host.listen")
    taken = host(running, file, "--json")
    address = taken.event("waiting")["address"]
    assert error(host(running, file, "--json", listen=address)) == (6, "host.port")
    file.chmod(0o644)
    assert error(host(running, file, "--json")) == (3, "keysource.exposed")
