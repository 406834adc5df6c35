"""Replicas on another host: who gets in, what comes there, and what is left when one of them ends.

The host and the bridge are real processes on loopback; a pool of the test's is the gateway.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import uvloop
from command import wait_until
from gateway_world import SOURCE, Process
from replica_scenes import ROW_SCHEMA, doubling_model, numbers, pooled, row, until
from text_replica import Gateway, chat, smol, text_python
from text_service import PATIENCE_S, python_with

from modelkeep import __version__
from modelkeep.adapters.memory_file import sealed_bytes
from modelkeep.adapters.replica_tls import service_side
from modelkeep.core.artifact import Canary, CanaryTensor
from modelkeep.core.errors import KeepError
from modelkeep.core.record import replaced, to_json
from modelkeep.crypto.certificates import new_authority, server_certificate
from modelkeep.crypto.client_certificates import issued_certificate
from modelkeep.crypto.link_certificates import (
    certified_name,
    host_certificate,
    host_identity,
    service_certificate,
)
from modelkeep.workers.host_frames import Begin, HostedFile, NoteReader, opening
from modelkeep.workers.plan import HostBridgePlan, ReplicaPlan, TextReplicaPlan

NOW_NS = time.time_ns()
KEEP_ID = "0123456789abcdef"
OURS = new_authority(keep_id=KEEP_ID, now_ns=NOW_NS)
OTHERS = new_authority(keep_id="fedcba9876543210", now_ns=NOW_NS)
HOST = "spare-1"
MODEL = doubling_model()
PLAN = ReplicaPlan(
    model="m",
    version=1,
    schema=ROW_SCHEMA,
    model_fd=-1,
    listen_fd=-1,
    lifeline_fd=-1,
    batchable=True,
    batch_rows_max=64,
    threads=1,
)


def host_file(authority=OURS, host=HOST):
    return host_certificate(authority, host=host, days=1, now_ns=NOW_NS).pem.reveal()


def service_chain(authority=OURS):
    return service_certificate(authority, now_ns=NOW_NS).reveal()


class Host:
    """A host as `modelkeep host` starts it."""

    def __init__(self, folder):
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.temporary = folder / "tmp"
        self.temporary.mkdir(exist_ok=True)
        self.file = folder / "host.pem"
        self.file.write_bytes(host_file())
        self.file.chmod(0o600)
        self.port = 0
        self.said = folder / "said.txt"

    def start(self, python=sys.executable):
        command = [str(python), "-m", "modelkeep.workers.replica_host", "--json"]
        command += ["--listen", f"127.0.0.1:{self.port}", "--certificate", str(self.file)]
        with self.said.open("ab") as said:
            self.popen = subprocess.Popen(
                command,
                env={"PYTHONPATH": str(SOURCE), "TMPDIR": str(self.temporary)},
                stdout=subprocess.PIPE,
                stderr=said,
            )
        facts = json.loads(self.popen.stdout.readline())
        assert (facts["event"], facts["host"]) == ("waiting", HOST)
        self.port = int(facts["address"].rpartition(":")[2])

    def end(self):
        self.popen.terminate()
        assert self.popen.wait(30) == 0
        self.popen.stdout.close()

    def kill(self):
        self.popen.kill()
        self.popen.wait(30)
        self.popen.stdout.close()

    def replicas(self):
        """Processes that it started, with their parents' pid."""
        found = []
        for each in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                fields = (each / "stat").read_text().rpartition(")")[2].split()
                if int(fields[1]) == self.popen.pid and fields[0] != "Z":
                    found.append(int(each.name))
        return found


class Bridge:
    """The process on the service's side, for one replica."""

    def __init__(self, folder, port, **changes):
        self.name = f"{time.monotonic_ns()}.sock"
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listening.bind(str(folder / self.name))
        listening.listen(128)
        reading, self.lifeline = os.pipe2(os.O_CLOEXEC)
        chain = changes.pop("chain", service_chain())
        plan = HostBridgePlan(
            host=HOST,
            address="127.0.0.1",
            port=port,
            link_fd=sealed_bytes("link", chain),
            authority_fd=sealed_bytes("authority", changes.pop("trusted", OURS).certificate),
            listen_fd=listening.detach(),
            lifeline_fd=reading,
            files=((changes.pop("path", ""), sealed_bytes("m", changes.pop("model", MODEL))),),
            tensor=PLAN,
        )
        plan = replaced(plan, **changes)
        fds = (plan.link_fd, plan.authority_fd, plan.listen_fd, reading, plan.files[0][1])
        self.process = Process("modelkeep.workers.host_bridge", to_json(plan), fds)
        self.process.start()

    def end(self):
        os.close(self.lifeline)
        status = self.process.popen.wait(30)
        for fd in self.process.fds:
            os.close(fd)
        assert status == 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    host = Host(tmp_path_factory.mktemp("host"))
    host.start()
    yield host
    host.end()
    assert list(host.temporary.iterdir()) == []


@pytest.fixture
def bridged(host, tmp_path):
    with Bridge(tmp_path, host.port) as bridge:
        yield bridge


def answered(folder, bridge, asked=(1.0, 2.0)):
    """What a pool gets through a bridge."""

    async def scene():
        async with pooled(folder, call_timeout_s=30.0) as pool:
            pool.add("m", 1, [bridge.name])
            answers = await asyncio.gather(*(pool.ask("m", 1, row([each])) for each in asked))
            return [numbers(each).item() for each in answers]

    return uvloop.run(scene())


# ---- calls --------------------------------------------------------------------------------------


def test_calls_of_every_size_are_answered_by_a_replica_of_another_host(bridged, tmp_path):
    large = np.random.default_rng(3).normal(size=(1, 150_528)).astype("f4")

    async def scene():
        async with pooled(tmp_path, call_timeout_s=30.0) as pool:
            pool.add("m", 1, [bridged.name])
            asked = [pool.ask("m", 1, row([each])) for each in range(100)]
            assert [numbers(each).item() for each in await asyncio.gather(*asked)] == [
                2.0 * each for each in range(100)
            ]
            for answer in await asyncio.gather(*(pool.ask("m", 1, row(large)) for _ in range(8))):
                assert (numbers(answer) == 2 * large).all()

    uvloop.run(scene())


def test_nothing_of_a_model_is_on_the_hosts_disk_and_its_memory_goes_with_the_bridge(
    host, tmp_path
):
    with Bridge(tmp_path, host.port) as bridge:
        assert answered(tmp_path, bridge) == [2.0, 4.0]
        assert len(host.replicas()) == 1
        sizes = [each.stat().st_size for each in host.temporary.rglob("*") if each.is_file()]
        assert sizes == []
        maps = Path(f"/proc/{host.popen.pid}/maps").read_text()
        assert "memfd:model-m:1" in maps
    wait_until(lambda: not host.replicas())
    wait_until(lambda: "memfd:model" not in Path(f"/proc/{host.popen.pid}/maps").read_text())


def test_a_replica_that_dies_is_started_again_without_its_model_being_sent_again(host, tmp_path):
    with Bridge(tmp_path, host.port) as bridge:
        assert answered(tmp_path, bridge) == [2.0, 4.0]
        (pid,) = host.replicas()
        begun = host.said.read_text().count("is begun")
        os.kill(pid, signal.SIGKILL)
        assert answered(tmp_path, bridge) == [2.0, 4.0]
        (other,) = host.replicas()
        assert other != pid
        assert host.said.read_text().count("is begun") == begun


def test_a_host_that_dies_is_used_again_when_it_comes_back(tmp_path):
    host = Host(tmp_path / "host")
    host.start()

    async def scene():
        async with pooled(tmp_path, call_timeout_s=60.0) as pool:
            pool.add("m", 1, [bridge.name])
            assert numbers(await pool.ask("m", 1, row([1]))).item() == 2.0
            (replica,) = host.replicas()
            host.kill()
            await until(lambda: pool.ready_count("m", 1) == 0, 30)
            await until(lambda: not Path(f"/proc/{replica}/cmdline").read_bytes(), 30)
            asked = pool.ask("m", 1, row([2]))
            host.start()
            assert numbers(await asked).item() == 4.0

    with Bridge(tmp_path, host.port) as bridge:
        uvloop.run(scene())
    host.end()


@pytest.mark.verify("hosts")
def test_a_host_that_hears_nothing_of_its_service_ends_the_replica(host, tmp_path, count):
    if not count(0, full=1):
        pytest.skip("takes as long as a host waits: ./run verify hosts")
    with Bridge(tmp_path, host.port) as bridge:
        assert answered(tmp_path, bridge) == [2.0, 4.0]
        bridge.process.popen.send_signal(signal.SIGSTOP)
        try:
            wait_until(lambda: not host.replicas())
            wait_until(lambda: "memfd:m" not in Path(f"/proc/{host.popen.pid}/maps").read_text())
        finally:
            bridge.process.popen.send_signal(signal.SIGCONT)
        assert answered(tmp_path, bridge) == [2.0, 4.0]


@pytest.mark.verify("hosts")
def test_a_service_that_hears_nothing_of_a_host_asks_it_no_more(host, tmp_path, capfd, count):
    if not count(0, full=1):
        pytest.skip("takes as long as a service waits: ./run verify hosts")
    with Bridge(tmp_path, host.port) as bridge:
        assert answered(tmp_path, bridge) == [2.0, 4.0]
        host.popen.send_signal(signal.SIGSTOP)
        wait_until(lambda: "it says nothing" in capfd.readouterr().err)
        host.popen.send_signal(signal.SIGCONT)
        assert answered(tmp_path, bridge) == [2.0, 4.0]


@pytest.mark.verify("hosts")
def test_a_language_model_answers_from_another_host(tmp_path, count):
    if not count(0, full=1):
        pytest.skip("needs an environment of 2 GB: ./run verify hosts")
    python = text_python()
    host = Host(tmp_path / "host")
    host.start(python_with(python, tmp_path / "python"))
    ((path, model),) = smol(python).items()
    plan = TextReplicaPlan(
        model="talk",
        version=1,
        files=((path, -1),),
        listen_fd=-1,
        lifeline_fd=-1,
        threads=1,
        streams_max=4,
        context_max=512,
    )
    with Bridge(tmp_path, host.port, tensor=None, text=plan, path=path, model=model) as bridge:
        gateway = Gateway(str(tmp_path / bridge.name), timeout_s=PATIENCE_S)
        ((texts, end),) = gateway.answers(chat("What is the capital of France?", max_tokens=12))
        assert "Paris" in texts[0]
        assert end.prompt_tokens > 0
        gateway.close()
    host.end()


# ---- who gets in --------------------------------------------------------------------------------


def shown_to_clients():
    return server_certificate(OURS, keep_id=KEEP_ID, hosts=(HOST,), now_ns=NOW_NS).reveal()


def of_a_principal():
    made = issued_certificate(OURS, name="robot", days=1, now_ns=NOW_NS)
    return made.pem + made.key.reveal()


def of_a_host():
    return host_identity(host_file(host="spare-2")).chain.reveal()


def of_another_keep():
    return service_chain(OTHERS)


def first_bytes(port, context, sent=b""):
    """The first bytes that a host says to whoever sends this."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=20) as plain,
        context.wrap_socket(plain, server_hostname=certified_name(HOST)) as secure,
    ):
        secure.sendall(sent)
        return secure.recv(100)


@pytest.mark.parametrize("chain", [shown_to_clients, of_a_principal, of_a_host, of_another_keep])
def test_who_is_not_the_service_gets_no_byte(host, chain):
    with contextlib.suppress(ssl.SSLError, ConnectionError):
        context = service_side(chain(), OURS.certificate)
        assert first_bytes(host.port, context, opening("a")) == b""


def test_older_tls_no_tls_and_no_certificate_get_nothing(host):
    old = service_side(service_chain(), OURS.certificate)
    old.minimum_version = ssl.TLSVersion.TLSv1_2
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    bare = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    bare.load_verify_locations(cadata=OURS.certificate.decode())
    for each in (old, bare):
        with contextlib.suppress(ssl.SSLError, ConnectionError):
            assert first_bytes(host.port, each, opening("a")) == b""
    with socket.create_connection(("127.0.0.1", host.port), timeout=20) as plain:
        plain.sendall(opening("a"))
        with contextlib.suppress(ConnectionError):
            assert not plain.recv(100).startswith(b"MKH")


@pytest.mark.parametrize(
    "changes",
    [{"trusted": OTHERS}, {"host": "spare-2"}],
    ids=["of another authority", "of another name"],
)
def test_who_is_not_the_host_gets_no_model(host, tmp_path, capfd, changes):
    begun = host.said.read_text().count("is begun")
    with Bridge(tmp_path, host.port, **changes):
        wait_until(lambda: "is not reached" in capfd.readouterr().err)
    assert host.said.read_text().count("is begun") == begun


def test_what_a_host_is_given_shows_clients_nothing(host):
    """Its name is in no public DNS, so it passes for no server of the service."""
    context = ssl.create_default_context(cadata=OURS.certificate.decode())
    with (
        pytest.raises(ssl.SSLError, match=r"Hostname mismatch|IP address mismatch"),
        socket.create_connection(("127.0.0.1", host.port), timeout=20) as plain,
    ):
        context.wrap_socket(plain, server_hostname=HOST)


# ---- what is sent -------------------------------------------------------------------------------


def said_to(port, sent, wanted):
    """The first note of this kind that a host says to the service."""
    context = service_side(service_chain(), OURS.certificate)
    reader = NoteReader()
    with (
        socket.create_connection(("127.0.0.1", port), timeout=30) as plain,
        context.wrap_socket(plain, server_hostname=certified_name(HOST)) as secure,
    ):
        secure.sendall(sent)
        while data := secure.recv(4096):
            for note in reader.fed(data):
                if note.said == wanted:
                    return note.text
    raise AssertionError(f"no {wanted}")


def begin(**changes):
    file = HostedFile(path="", size_bytes=3, sha256="0" * 64)
    name = f"a{time.monotonic_ns()}"
    made = Begin(release=__version__, replica=name, files=(file,), tensor=PLAN)
    return replaced(made, **changes)


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        (opening(begin()) + b"abc", "host.digest"),
        (opening(begin(release="0.0.1")), "host.release"),
        (
            opening(begin(files=(HostedFile(path="", size_bytes=1 << 50, sha256="0" * 64),))),
            "memory.full",
        ),
    ],
    ids=["other bytes than announced", "another release", "more than there is room for"],
)
def test_a_host_says_what_it_refuses_and_keeps_nothing_of_it(host, sent, why):
    assert why in said_to(host.port, sent, "refused")
    wait_until(lambda: "memfd:model" not in Path(f"/proc/{host.popen.pid}/maps").read_text())
    assert not host.replicas()


@pytest.mark.parametrize(
    "sent", [b"GET / HTTP/1.1\r\n", b"MKH0X\x00\x00\x00\x01a", opening("a" * 32)]
)
def test_what_opens_nothing_ends_the_connection(host, sent):
    context = service_side(service_chain(), OURS.certificate)
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        assert first_bytes(host.port, context, sent) == b""


def test_a_replica_that_answers_its_canary_wrongly_gets_no_call(host, tmp_path, capfd):
    tensor = CanaryTensor(name="x", dtype="FP32", shape=(1, 1), values=(1.0,))
    wrong = CanaryTensor(name="y", dtype="FP32", shape=(1, 1), values=(3.0,))
    canary = Canary(inputs=(tensor,), outputs=(wrong,), tolerance=0.01)

    async def scene(bridge):
        async with pooled(tmp_path, call_timeout_s=0.3) as pool:
            pool.add("m", 1, [bridge.name])
            with pytest.raises(KeepError) as raised:
                await pool.ask("m", 1, row([1]))
            assert raised.value.code == "gate.no_replica"

    with Bridge(tmp_path, host.port, canary=canary) as bridge:
        wait_until(lambda: "its canary is wrong there" in capfd.readouterr().err)
        uvloop.run(scene(bridge))
    right = replaced(canary, outputs=(replaced(wrong, values=(2.0,)),))
    with Bridge(tmp_path, host.port, canary=right) as bridge:
        assert answered(tmp_path, bridge) == [2.0, 4.0]


# ---- the certificate ----------------------------------------------------------------------------


def test_a_host_shows_another_certificate_without_ending_what_runs(host, tmp_path):
    context = service_side(service_chain(), OURS.certificate)

    def shown():
        with (
            socket.create_connection(("127.0.0.1", host.port), timeout=20) as plain,
            context.wrap_socket(plain, server_hostname=certified_name(HOST)) as secure,
        ):
            return secure.getpeercert(binary_form=True)

    with Bridge(tmp_path, host.port) as bridge:
        assert answered(tmp_path, bridge) == [2.0, 4.0]
        before, running = shown(), host.replicas()
        host.file.write_bytes(host_file(host="spare-2"))
        host.popen.send_signal(signal.SIGHUP)
        wait_until(lambda: "another host's" in host.said.read_text())
        assert shown() == before
        host.file.write_bytes(host_file())
        host.popen.send_signal(signal.SIGHUP)
        wait_until(lambda: shown() != before)
        assert host.replicas() == running
        assert answered(tmp_path, bridge) == [2.0, 4.0]
