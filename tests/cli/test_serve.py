"""`modelkeep serve`: it comes up whole, survives what dies in it, and leaves nothing behind."""

import contextlib
import http.client
import json
import os
import signal
import socket
import ssl
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from command import PASSPHRASE, Desk, Process, modelkeep, wait_until
from onnx_models import trained_models

from modelkeep.adapters.locks import held, sole_writer
from modelkeep.core.errors import KeepError, RefusedError
from modelkeep.sdk.client import Client

pytestmark = pytest.mark.slow
CALL_S = 10.0


class Serving:
    """A keep that is served by a process of its own."""

    def __init__(self, desk):
        self.desk = desk
        token = desk.json("tokens", "new", "alice", "--scope", "infer:digits")
        self.token_id, self.api_key = token["token_id"], token["api_key"]
        self.start()

    def start(self):
        self.process = Process(*self.desk.words("serve", "--json"))
        self.facts = self.process.event("ready")

    @property
    def processes(self):
        return json.loads((self.desk.keep / "run" / "service.json").read_bytes())["processes"]

    def client(self, key=None):
        return Client(
            server=self.facts["url"], api_key=key or self.api_key, ca=self.desk.keep / "ca.pem"
        )

    def accuracy(self):
        data = trained_models()[0]
        with self.client() as client:
            model = client.load_model("digits")
            return model.evaluate(data.held_out, data.held_out_labels).accuracy

    def status(self, key):
        """What one call is answered with, without any of the client's patience."""
        address = urlsplit(self.facts["url"])
        context = ssl.create_default_context(cafile=str(self.desk.keep / "ca.pem"))
        connection = http.client.HTTPSConnection(
            address.hostname, address.port, context=context, timeout=CALL_S
        )
        with contextlib.closing(connection):
            connection.request(
                "GET", "/v2/models/digits", headers={"authorization": f"Bearer {key}"}
            )
            return connection.getresponse().status


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    desk = Desk.made(tmp_path_factory.mktemp("served"))
    desk.admit(1)
    desk.admit(2)
    serving = Serving(desk)
    yield serving
    serving.process.clean()


@pytest.fixture
def admitted(one):
    return one


# ---- a service that runs -------------------------------------------------------------------------


def test_the_service_is_a_gateway_two_replicas_a_recorder_and_a_keyholder(served):
    wanted = ["gateway-0", "keyholder", "recorder", "replica-digits-2-0", "replica-digits-2-1"]
    assert sorted(served.processes) == wanted
    assert served.facts["models"] == ["digits:2"]
    assert abs(served.accuracy() - trained_models()[1][1].accuracy) < 0.005


def test_status_says_where_it_is_served(served):
    facts = served.desk.json("status")
    assert facts["served"] is True
    assert facts["service"]["url"] == served.facts["url"]
    assert f"service  {served.facts['url']}" in served.desk.run("status").out
    assert all(each["current_s"] < 5 for each in facts["stores"])
    assert "s ago" in served.desk.run("status").out


def test_verbs_work_beside_the_service(served):
    desk = served.desk
    before = len(desk.entries())
    desk.run("backup")
    desk.run("check", "--read-data")
    desk.json("ledger", "verify")
    assert len(desk.entries()) > before


def test_a_receipt_is_proven_offline(served):
    rows = trained_models()[0].held_out[:1]
    with served.client() as client:
        model = client.load_model("digits")
        model.predict(rows)
    address = urlsplit(served.facts["url"])
    context = ssl.create_default_context(cafile=str(served.desk.keep / "ca.pem"))
    connection = http.client.HTTPSConnection(address.hostname, address.port, context=context)
    body = {"name": "pixels", "datatype": "FP32", "shape": [1, 64], "data": rows[0].tolist()}
    with contextlib.closing(connection):
        connection.request(
            "POST",
            "/v2/models/digits/infer",
            json.dumps({"inputs": [body]}),
            {"authorization": f"Bearer {served.api_key}", "content-type": "application/json"},
        )
        receipt = connection.getresponse().headers["modelkeep-receipt"]
    desk = served.desk
    wait_until(lambda: desk.run("ledger", "prove", receipt, wanted=None).status == 0, 5)
    proof = desk.json("ledger", "prove", receipt)
    assert proof["record"]["principal"] == "alice"
    assert proof["record"]["model"] == "digits:2"
    assert "c2sp.org/tlog-proof" in proof["tlog_proof"]
    assert "was recorded and is proven" in desk.run("ledger", "prove", receipt).out


def test_state_is_not_rebuilt_under_a_running_gateway(served):
    assert served.desk.refusal("state", "rebuild", wanted=6) == "state.served"
    assert served.desk.json("tokens", "list")


def test_a_second_service_of_the_same_keep_is_refused(served, running):
    ended = running(Process(*served.desk.words("serve", "--json"))).ended()
    assert ended.status == 6
    assert ended.error["code"] == "lock.held"
    assert served.accuracy() > 0.9


def test_a_revoked_key_is_refused_within_a_second(served):
    token = served.desk.json("tokens", "new", "bob", "--scope", "infer:digits")
    wait_until(lambda: served.status(token["api_key"]) == 200, 1.5)
    served.desk.run("tokens", "revoke", token["token_id"])
    assert wait_until(lambda: served.status(token["api_key"]) == 401, 1.0) < 1.0
    with served.client(token["api_key"]) as client, pytest.raises(RefusedError) as refused:
        client.load_model("digits")
    assert refused.value.code == "auth.invalid"


def test_no_secret_stands_in_argv_environment_or_on_disk(served):
    raw = trained_models()[1][1].file.read_bytes()
    secret = served.api_key.split("_", 2)[2].encode()  # base64url: `_` may stand in it
    canaries = {"passphrase": PASSPHRASE.encode(), "key": secret, "weights": raw[2000:2064]}
    canaries["private key"] = b"PRIVATE KEY"
    assert min(map(len, canaries.values())) > 10
    served.accuracy()
    pids = {served.process.pid, *served.processes.values()}
    assert len(pids) == 6
    for pid in pids:
        for what in ("cmdline", "environ"):
            held = Path(f"/proc/{pid}/{what}").read_bytes()
            assert not [name for name, canary in canaries.items() if canary in held], (pid, what)
    for name, pid in served.processes.items():
        held = Path(f"/proc/{pid}/environ").read_bytes()
        if name.startswith("gateway"):  # OpenSSL's groups, which no program can set otherwise
            assert held.startswith(b"OPENSSL_CONF=/proc/self/fd/")
            assert held.count(b"\0") == 1
        else:
            assert held == b""
    for path, held in served.desk.files().items():
        assert not [name for name, canary in canaries.items() if canary in held], path


def test_a_replica_holds_no_key_and_no_network(served):
    for name, pid in served.processes.items():
        if not name.startswith("replica"):
            continue
        targets = [str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir()]
        memory = [each for each in targets if "memfd" in each]
        assert all("model-digits" in each or "plan-replica" in each for each in memory), memory
        assert not [each for each in targets if str(served.desk.keep) in each], targets


@pytest.mark.parametrize("name", ["gateway-0", "recorder", "replica-digits-2-0"])
def test_a_killed_process_is_replaced_and_the_ledger_says_so(served, name):
    before = served.processes[name]
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: served.processes[name] not in (before, -1), 10)
    wait_until(lambda: abs(served.accuracy() - trained_models()[1][1].accuracy) < 0.005, 10)

    def told():
        facts = [(each["kind"], each["facts"]) for each in served.desk.entries("process.")]
        ended = any(k == "process.ended" and f["pid"] == before for k, f in facts)
        started = any(
            k == "process.started" and f["pid"] == served.processes[name] for k, f in facts
        )
        return ended and started

    wait_until(told, 10)


def test_calls_go_on_while_a_replica_dies(served):
    failed, done = [], []
    stop = threading.Event()
    rows = trained_models()[0].held_out[:4]

    def call():
        with served.client() as client:
            model = client.load_model("digits")
            while not stop.is_set():
                try:
                    done.append(model.predict(rows)["label"].shape)
                except KeepError as error:
                    failed.append(repr(error))

    threads = [threading.Thread(target=call) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: len(done) > 10)
        os.kill(served.processes["replica-digits-2-1"], signal.SIGKILL)
        killed = len(done)
        wait_until(lambda: len(done) > killed + 30)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failed


# ---- its end -------------------------------------------------------------------------------------


def test_ctrl_c_ends_everything_and_nothing_is_left(admitted, running):
    serving = Serving(admitted)
    running(serving.process)
    assert len(serving.process.left()) == 6
    serving.process.interrupt()
    ended = serving.process.ended()
    assert (ended.status, ended.err) == (0, "")
    assert serving.process.left() == []
    assert not (admitted.keep / "run" / "service.json").exists()
    assert admitted.json("status")["served"] is False
    assert all(each["is_whole"] for each in admitted.json("ledger", "verify"))


def test_a_killed_supervisor_takes_everything_along_and_the_same_command_serves_again(
    admitted, running
):
    serving = Serving(admitted)
    first = running(serving.process)
    wanted = serving.accuracy()
    os.kill(first.pid, signal.SIGKILL)
    assert wait_until(lambda: first.left() == [], 5) < 2.0
    assert admitted.json("status")["served"] is False
    serving.start()
    running(serving.process)
    assert serving.accuracy() == wanted
    assert all(each["is_whole"] for each in admitted.json("ledger", "verify"))


def test_a_call_that_was_answered_is_recorded_even_if_all_dies_at_once(admitted, running):
    serving = Serving(admitted)
    first = running(serving.process)
    with serving.client() as client:
        client.load_model("digits").predict(np.zeros((1, 64), np.float32))
    for pid in first.left():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    wait_until(lambda: first.left() == [], 5)
    serving.start()
    running(serving.process)
    wait_until(lambda: admitted.entries("calls.batch"), 10)


@pytest.mark.parametrize("journal", ["journals/gateway-0-0", "ledger/wal-0"])
def test_a_successor_waits_for_who_still_writes_a_journal(admitted, running, journal):
    """An orphan of a killed supervisor drains; a second writer would spoil its journal."""
    with sole_writer(admitted.keep / journal):
        process = running(Process(*admitted.words("serve", "--json")))
        time.sleep(2)
        assert not (admitted.keep / "run" / "service.json").exists()
    assert process.event("ready")["models"] == ["digits:1"]


def test_a_gateway_whose_journal_somebody_else_wrote_to_is_replaced(admitted, running):
    serving = Serving(admitted)
    running(serving.process)
    serving.accuracy()
    before = serving.processes["gateway-0"]
    path = next((admitted.keep / "journals" / "gateway-0-0").glob("*.journal"))
    with path.open("ab") as stream:
        stream.write(b"not ours")
    with contextlib.suppress(KeepError):  # this call finds out, and is not answered
        serving.accuracy()
    wait_until(lambda: serving.processes["gateway-0"] != before)
    assert serving.accuracy() > 0.9


def test_status_beside_a_service_that_still_starts(admitted):
    """The lock is held and nothing is said yet."""
    (admitted.keep / "run").mkdir(exist_ok=True)
    with held(admitted.keep / "run" / "serve.lock", wait_s=0, what="a test"):
        facts = admitted.json("status")
        assert facts["served"] is True
        assert facts["service"] is None
        assert "service  starting" in admitted.run("status").out


# ---- what keeps it from starting -----------------------------------------------------------------


def refused(running, *words):
    process = running(Process(*words, "--json"))
    ended = process.ended()
    assert process.left() == []
    assert not ended.out
    assert "Traceback" not in ended.err
    return ended.status, ended.error["code"]


def test_a_port_that_is_taken_is_said(admitted, running):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        admitted.configure("port = 0", f"port = {taken.getsockname()[1]}")
        assert refused(running, *admitted.words("serve")) == (6, "serve.port")
    assert admitted.json("status")["served"] is False


def test_a_wrong_passphrase_does_not_serve(admitted, running, tmp_path):
    (tmp_path / "wrong").write_text("not the passphrase")
    words = ("--keep", admitted.keep, "--passphrase-file", tmp_path / "wrong")
    assert refused(running, *words, "serve") == (3, "keys.passphrase")


def test_no_keep_is_said_first(tmp_path):
    error = modelkeep("--keep", tmp_path, "serve", "--json", wanted=5).error
    assert error["code"] == "keep.missing"


def test_a_keep_without_models_serves_nothing_and_says_what_to_do(desk, running):
    process = running(Process(*desk.words("serve")))
    ended = process.ended()
    assert ended.status == 2
    assert "[serve.nothing]" in ended.err
    assert "modelkeep: hint: `modelkeep admit FILE --name NAME`" in ended.err


def test_a_model_that_nobody_admitted_cannot_be_served(admitted, running):
    admitted.configure("replicas = 2", 'replicas = 2\nmodels = ["digits:9"]')
    assert refused(running, *admitted.words("serve")) == (5, "model.unknown")


def test_a_file_that_no_runtime_can_answer_for_does_not_keep_the_others_from_being_served(
    admitted, running, tmp_path
):
    np.save(tmp_path / "weights.npy", np.arange(1000, dtype=np.float32))
    admitted.json("admit", tmp_path / "weights.npy", "--name", "weights")
    process = running(Process(*admitted.words("serve", "--json")))
    assert process.event("ready")["models"] == ["digits:1"]


@pytest.mark.parametrize("name", ["two words", "a..example", "x" * 64 + ".example"])
def test_a_host_name_that_fits_no_certificate_is_a_clear_error(admitted, running, name):
    admitted.configure("replicas = 2", f'replicas = 2\nhostnames = ["{name}"]')
    assert refused(running, *admitted.words("serve")) == (2, "serve.hostname")


def test_ipv6_and_names_in_other_letters_are_served(admitted, running):
    admitted.configure('host = "127.0.0.1"', 'host = "::1"\nhostnames = ["bücher.example"]')
    serving = Serving(admitted)
    running(serving.process)
    assert serving.facts["url"].startswith("https://[::1]:")
    assert serving.accuracy() > 0.9


def test_a_damaged_model_is_not_served_and_is_named(admitted, running):
    for path in (admitted.main / "pack").rglob("*"):
        if path.is_file():
            raw = path.read_bytes()
            path.write_bytes(raw[: len(raw) // 2] + b"\xff" + raw[len(raw) // 2 + 1 :])
    assert refused(running, *admitted.words("serve")) == (4, "model.damaged")
