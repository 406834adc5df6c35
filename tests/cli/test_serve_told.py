"""What `serve` and `status` say of a service: whom to trust, who died, what it cannot do."""

import json
import os
import signal
import socket

import pytest
from command import Desk, Process, wait_until
from gateway_world import certificate

pytestmark = pytest.mark.slow


class Told:
    """A service whose operator gave a certificate of their own; all that it says is in a file."""

    def __init__(self, desk):
        self.desk = desk
        self.chain, key = desk.folder / "chain.pem", desk.folder / "key.pem"
        pem, both = certificate("keep.example", address="10.0.0.7", ends_days=90)
        key.touch(mode=0o600)
        self.chain.write_bytes(pem)
        key.write_bytes(both.removeprefix(pem))
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.grpc = free.getsockname()[1]
        lines = f"certificate = '{self.chain}'\nkey = 'file:{key}'\ngrpc_port = {self.grpc}"
        desk.configure("replicas = 2", f"replicas = 1\ngateways = 2\n{lines}")
        self.log = desk.folder / "log"
        with self.log.open("wb") as into:
            self.process = Process(*desk.words("serve"), into=into)
        self.wait("serving ")

    def wait(self, text):
        wait_until(lambda: text in self.log.read_text(), 60)

    def said(self):
        return self.log.read_text().splitlines()

    def facts(self):
        return json.loads((self.desk.keep / "run" / "service.json").read_bytes())

    def reload(self, text):
        self.log.write_text("")
        os.kill(self.process.pid, signal.SIGHUP)
        self.wait(text)


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    desk = Desk.made(tmp_path_factory.mktemp("told"))
    desk.admit(1)
    made = Told(desk)
    yield made
    made.process.clean()


def test_a_service_says_what_happens_to_it_until_its_keyholder_dies(told):
    desk, facts = told.desk, told.facts()
    (line,) = (each for each in told.said() if each.startswith("serving "))
    assert line.endswith(f", gRPC at 127.0.0.1:{told.grpc} (trust who issued {told.chain})")
    assert any("not for 127.0.0.1" in each for each in told.said())

    os.kill(facts["processes"]["gateway-1"], signal.SIGKILL)
    told.wait("gateway-1 ended (signal 9), started again")

    desk.configure("gateways = 2", "gateways = 3")
    told.reload("in force after a restart: serve.gateways")
    desk.configure("gateways = 3", "gateways = 2")
    told.reload("reloaded: nothing changed")
    desk.configure("gateways = 2", "gateways = 2\nnonsense = 1")
    told.reload("hint: `modelkeep config explain`")
    status = desk.run("status")
    assert "service  https://" in status.out
    assert "config.key" in status.err
    assert desk.json("status")["error"]["code"] == "config.key"
    desk.configure("gateways = 2\nnonsense = 1", "gateways = 2")

    good = told.chain.read_bytes()
    told.chain.write_bytes(certificate(begins_days=-9, ends_days=-1)[0])
    told.wait("cannot be served, what was there goes on")
    assert told.facts()["certificate"] == facts["certificate"]
    told.chain.write_bytes(good)

    assert desk.json("status")["degraded"] == ""
    os.kill(facts["processes"]["keyholder"], signal.SIGKILL)
    told.wait("the keyholder ended")
    wait_until(lambda: desk.json("status")["degraded"], 10)
    assert "degraded: the keyholder ended; restart the service" in desk.run("status").out
    moved = desk.run("promote", "digits:1", "--to", "prod")
    assert "the running service is degraded: the keyholder ended" in moved.err


def test_an_expired_certificate_is_refused_at_the_start(desk, running):
    desk.admit(1)
    pem, both = certificate(begins_days=-9, ends_days=-1)
    (desk.folder / "key.pem").touch(mode=0o600)
    (desk.folder / "chain.pem").write_bytes(pem)
    (desk.folder / "key.pem").write_bytes(both.removeprefix(pem))
    lines = f"certificate = '{desk.folder}/chain.pem'\nkey = 'file:{desk.folder}/key.pem'"
    desk.configure("replicas = 2", f"replicas = 1\n{lines}")
    ended = running(Process(*desk.words("serve"))).ended()
    assert ended.status == 2
    assert "expired" in ended.err
    assert "tls.certificate" in ended.err
