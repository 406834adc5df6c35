"""A real gateway with two real replicas, called by real clients over TLS."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import signal
import socket
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tritonclient.http as triton
from gateway_world import digits_model, started

from modelkeep.adapters.disk import RealDisk
from modelkeep.adapters.journal_file import JournalFile
from modelkeep.core.call_record import CallRecord, RefusalSummary, decoded_record
from modelkeep.core.entry import Entry
from modelkeep.gate.settings import GateSettings

pytestmark = pytest.mark.slow
INFER = "/v2/models/digits/infer"
MEGABYTE = b" " * 1024 * 1024


@pytest.fixture(scope="module")
def model():
    return digits_model()


@pytest.fixture(scope="module")
def world(model, tmp_path_factory):
    settings = GateSettings(read_timeout_s=2.0, idle_timeout_s=30.0, call_timeout_s=10.0)
    running = started(tmp_path_factory.mktemp("keep") / "keep", model=model, settings=settings)
    running.wait_ready()
    yield running
    running.stop()


@pytest.fixture
def client(world):
    made = triton.InferenceServerClient(
        f"127.0.0.1:{world.port}", ssl=True, ssl_options={"ca_certs": str(world.ca_path)}
    )
    yield made
    made.close()


def bearer(key):
    return {"Authorization": f"Bearer {key}"}


def body_of(values, shape=None, **more):
    shape = shape or [1, 64]
    given = {"name": "x", "shape": shape, "datatype": "FP32", "data": values, **more}
    return json.dumps({"inputs": [given]}).encode()


GOOD = body_of([1.0] * 64)


def call(world, method="POST", path=INFER, body=None, headers=None, *, key=""):
    """One request on a connection of its own: status, headers, parsed body."""
    connection = http.client.HTTPSConnection(
        "127.0.0.1", world.port, context=world.context(), timeout=20
    )
    with contextlib.closing(connection):
        connection.request(method, path, body, {**(bearer(key or world.key)), **(headers or {})})
        answer = connection.getresponse()
        raw = answer.read()
        is_json = raw and answer.headers.get("content-type") == "application/json"
        return answer.status, dict(answer.headers), json.loads(raw) if is_json else raw


def exchange(world, *parts, timeout=4.0):
    """Raw bytes in, everything until the server closes (or goes quiet) out."""
    with (
        socket.create_connection(("127.0.0.1", world.port), timeout=timeout) as plain,
        world.context().wrap_socket(plain, server_hostname="127.0.0.1") as secure,
    ):
        for part in parts:
            secure.sendall(part)
        got = b""
        with contextlib.suppress(TimeoutError, ssl.SSLError, ConnectionError):
            while chunk := secure.recv(65536):
                got += chunk
        return got


def statuses(raw):
    return [int(each) for each in re.findall(rb"HTTP/1\.1 (\d{3}) ", raw)]


def head(world, *lines, method="POST", path=INFER, version="HTTP/1.1", host="localhost"):
    all_lines = [f"{method} {path} {version}"]
    all_lines += [f"Host: {host}"] if host else []
    all_lines += [f"Authorization: Bearer {world.key}", *lines, "", ""]
    return "\r\n".join(all_lines).encode()


def records(world):
    """What the journal of the running gateway holds by now."""
    journal = JournalFile(RealDisk(), world.journal_folder, writable=False)
    with contextlib.closing(journal):
        return {position: decoded_record(raw) for position, raw in journal.read(0)}


# ---- the public client --------------------------------------------------------------------------


def test_tritonclient_works_unmodified_over_tls(world, client):
    headers = bearer(world.key)
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("digits", headers=headers)
    assert "binary_tensor_data" in client.get_server_metadata(headers=headers)["extensions"]
    metadata = client.get_model_metadata("digits", headers=headers)
    assert metadata["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 64]}]
    assert metadata["versions"] == ["1"]


@pytest.mark.parametrize("is_binary_in", [True, False])
@pytest.mark.parametrize("is_binary_out", [True, False])
def test_tritonclient_infers_in_json_and_binary_alike(world, client, is_binary_in, is_binary_out):
    rows = np.random.default_rng(5).uniform(0, 16, (3, 64)).astype(np.float32)
    given = triton.InferInput("x", list(rows.shape), "FP32")
    given.set_data_from_numpy(rows, binary_data=is_binary_in)
    wanted = [
        triton.InferRequestedOutput(name, binary_data=is_binary_out)
        for name in ("probabilities", "label")
    ]
    got = client.infer("digits", [given], outputs=wanted, headers=bearer(world.key))
    probabilities = got.as_numpy("probabilities")
    assert probabilities.shape == (3, 10)
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-3)
    assert (probabilities.argmax(axis=1) == got.as_numpy("label")).all()


# ---- nothing is answered before its record -------------------------------------------------------


def test_every_answer_has_its_record_under_its_receipt(world):
    receipts = {}
    for _ in range(20):
        status, headers, _ = call(world, body=GOOD)
        receipts[headers["modelkeep-receipt"]] = status
    status, headers, _ = call(world, body=body_of([1.0] * 63))
    receipts[headers["modelkeep-receipt"]] = status
    kept = records(world)
    assert len(receipts) == 21
    for receipt, status in receipts.items():
        name, _, position = receipt.partition(":")
        record = kept[int(position)]
        assert name == "gateway-0"
        assert isinstance(record, CallRecord)
        assert record.status == status
        assert record.principal == "caller"
        assert record.input_commitment
        assert bool(record.output_commitment) == (status == 200)


def test_refusals_before_authentication_are_summarised(world):
    for _ in range(5):
        assert call(world, body=GOOD, key="mk_wrong")[0] == 401
    ends = time.monotonic() + 3
    counted = 0
    while counted < 5 and time.monotonic() < ends:
        counted = sum(
            record.count
            for record in records(world).values()
            if isinstance(record, RefusalSummary)
            and (record.prefix, record.reason) == ("127.0.0.0/24", "auth.invalid")
        )
        time.sleep(0.1)
    assert counted >= 5


# ---- refusals ------------------------------------------------------------------------------------


def test_no_key_and_wrong_keys_are_one_401(world):
    status, headers, answer = call(world, body=GOOD, headers={"Authorization": ""})
    assert (status, answer["code"]) == (401, "auth.invalid")
    assert headers["www-authenticate"].startswith("Bearer")
    raw = exchange(world, b"GET /v2 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert statuses(raw) == [401]
    assert b"auth.missing" in raw
    known, secret = world.key[:19], world.key[20:]
    wrong = [f"{known}_{'A' * 43}", f"mk_{'0' * 16}_{secret}", "nonsense"]
    answers = [call(world, body=GOOD, key=key)[2] for key in wrong]
    assert all(each == answers[0] for each in answers)


def test_scopes_are_kept_apart(world):
    assert call(world, body=GOOD, key=world.limited_key)[0] == 403
    assert call(world, body=GOOD, key=world.metrics_key)[0] == 403
    assert call(world, "GET", "/metrics")[0] == 403
    status, _, text = call(world, "GET", "/metrics", key=world.metrics_key)
    assert status == 200
    assert b"modelkeep_calls_total{" in text


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (body_of([1.0] * 63, [1, 63]), "schema.shape"),
        (body_of([1.0] * 63), "schema.shape"),
        (body_of([1.0] * 64, [0, 64]), "schema.shape"),
        (body_of([1.0] * 64, [-1, 64]), "schema.shape"),
        (body_of([float("nan")] + [1.0] * 63), "schema.json"),
        (body_of([float("inf")] + [1.0] * 63), "schema.json"),
        (GOOD.replace(b"1.0", b"1e999", 1), "schema.data"),
        (GOOD.replace(b"1.0", b"1e300", 1), "schema.range"),
        (GOOD.replace(b"1.0", b'"1"', 1), "schema.data"),
        (GOOD.replace(b"FP32", b"FP64"), "schema.dtype"),
        (GOOD.replace(b'"x"', b'"y"'), "schema.input"),
        (b'{"inputs":[]}', "schema.missing"),
        (b"{", "schema.json"),
        (b"", "schema.json"),
        (b"\xff\xfe", "schema.json"),
        (b"[" * 100_000, "schema.json"),
        (GOOD.replace(b"[1.0, ", b"[" * 100_000, 1), "schema.json"),
        (b'{"inputs":' + b"[" * 50_000 + b"]" * 50_000 + b"}", "schema.json"),
    ],
)
def test_bad_bodies_are_400_with_a_reason(world, body, code):
    status, headers, answer = call(world, body=body, headers={"content-type": "application/json"})
    assert (status, answer["code"]) == (400, code)
    assert answer["error"]
    assert headers["modelkeep-receipt"]


def test_a_nan_in_a_binary_tensor_is_refused(world):
    part = json.dumps(
        {
            "inputs": [
                {
                    "name": "x",
                    "shape": [1, 64],
                    "datatype": "FP32",
                    "parameters": {"binary_data_size": 256},
                }
            ]
        }
    ).encode()
    for bad in (np.nan, np.inf):
        row = np.ones(64, np.float32)
        row[7] = bad
        headers = {"Inference-Header-Content-Length": str(len(part))}
        status, _, answer = call(world, body=part + row.tobytes(), headers=headers)
        assert (status, answer["code"]) == (400, "schema.finite")


def test_paths_methods_and_media_types(world):
    assert call(world, "GET", "/nothing")[0] == 404
    assert call(world, "GET", "/v2/models/other")[0] == 404
    assert call(world, path="/v2/models/digits/versions/7/infer", body=GOOD)[0] == 404
    status, headers, _ = call(world, "GET", INFER)
    assert (status, headers["allow"]) == (405, "POST")
    assert call(world, "HEAD", "/v2")[0] == 405
    for header in ({"Content-Encoding": "gzip"}, {"Content-Type": "text/html"}):
        assert call(world, body=GOOD, headers=header)[0] == 415
    status, _, answer = call(world, body=GOOD, headers={"X": "y" * 40_000})
    assert (status, answer["code"]) == (431, "limit.header")


# ---- large and slow ------------------------------------------------------------------------------


@pytest.mark.parametrize("key_is_good", [True, False])
def test_a_body_of_100_mb_is_refused_and_the_client_reads_why(world, key_is_good):
    key = world.key if key_is_good else "mk_wrong"
    status, headers, answer = call(world, body=MEGABYTE * 100, key=key)
    assert status == (413 if key_is_good else 401)
    assert answer["code"] == ("limit.body" if key_is_good else "auth.invalid")
    assert headers["connection"] == "close"


def test_a_chunked_body_is_bounded_too(world):
    status, _, answer = call(world, body=(MEGABYTE for _ in range(40)))
    assert (status, answer["code"]) == (413, "limit.body")


def test_a_chunked_body_is_answered(world):
    assert call(world, body=iter([GOOD[:10], GOOD[10:]]))[0] == 200


def test_a_slow_request_is_cut_off_with_408(world):
    started_at = time.monotonic()
    raw = exchange(world, head(world, "Content-Length: 500"), b"{", timeout=8)
    assert statuses(raw) == [408]
    assert time.monotonic() - started_at < 5


def test_expect_100_continue_is_refused_before_the_body(world):
    lines = ("Content-Length: 100000000", "Expect: 100-continue")
    assert statuses(exchange(world, head(world, *lines), timeout=1)) == [413]
    good = head(world, f"Content-Length: {len(GOOD)}", "Expect: 100-continue")
    assert statuses(exchange(world, good, GOOD, timeout=1)) == [100, 200]


# ---- smuggling -----------------------------------------------------------------------------------

SMUGGLED = b"GET /v2/health/live HTTP/1.1\r\nHost: a\r\n\r\n"
CHUNKED = "Transfer-Encoding: chunked"
AMBIGUOUS_HEADS = (
    ("Content-Length: 5", "Content-Length: 6"),
    ("Content-Length: 5", "Content-Length: 5"),
    ("Content-Length: 5, 5",),
    ("Content-Length: +5",),
    ("Content-Length: -5",),
    ("Content-Length: 0x5",),
    ("Content-Length: ",),
    ("Content-Length: 99999999999999999999",),
    ("Content-Length: 5", CHUNKED),
    (CHUNKED, "Content-Length: 5"),
    ("Transfer-Encoding: xchunked",),
    ("Transfer-Encoding: identity",),
    ("Transfer-Encoding: gzip, chunked",),
    ("Transfer-Encoding: chunked, identity",),
    (CHUNKED, CHUNKED),
    ("Transfer-Encoding : chunked",),
    ("Transfer-Encoding: \x0bchunked",),
    ("Content-Length : 5",),
    ("Content-Length: 5", " folded: 1"),
    ("X: a\rContent-Length: 5",),
    ("X: a\nContent-Length: 5",),
    ("X: a\0b",),
    ("Host: other", "Content-Length: 0"),
    ("Connection: upgrade", "Upgrade: h2c", "Content-Length: 0"),
    ("no-colon-here",),
    (": empty",),
    ("Bad(name: 1",),
)
BAD_CHUNKS = (
    b"zz\r\n\r\n",
    b"0x1\r\na\r\n0\r\n\r\n",
    b"-1\r\na\r\n0\r\n\r\n",
    b"1 \r\na\r\n0\r\n\r\n",
    b"1\na\n0\n\n",
    b"1;a\nb\r\na\r\n0\r\n\r\n",
    b"1\r\naXX0\r\n\r\n",
    b"fffffffffffffffff\r\na\r\n0\r\n\r\n",
    b"0\r\nContent-Length: 5\r\n\r\n",
)
OTHER_PROTOCOLS = (
    b"GET / HTTP/2.0\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.2\r\nHost: a\r\n\r\n",
    b"GET /\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\n Host: b\r\n\r\n",
    b"GET / HTTP/1.1\nHost: a\n\n",
    b"get / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"\x16\x03\x01\x02\x00",
)


def test_whatever_is_ambiguous_is_one_400_and_the_end_of_the_connection(world):
    """Each case is followed by a good request that must never be answered."""
    cases = [head(world, *lines) + b"0\r\n\r\n" for lines in AMBIGUOUS_HEADS]
    cases += [head(world, CHUNKED) + chunks for chunks in BAD_CHUNKS]
    cases += OTHER_PROTOCOLS
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda raw: exchange(world, raw + SMUGGLED), cases))
    for raw, answer in zip(cases, answers, strict=True):
        assert statuses(answer) == [400], raw
        assert b"connection: close\r\n" in answer, raw


def test_pipelined_requests_are_answered_in_order(world):
    infer = head(world, f"Content-Length: {len(GOOD)}") + GOOD
    raw = exchange(world, infer + SMUGGLED + infer + SMUGGLED + infer, timeout=1.5)
    assert statuses(raw) == [200] * 5
    assert [b"model_name" in part for part in raw.split(b"HTTP/1.1 ")[1:]] == [
        True, False, True, False, True,
    ]  # fmt: skip


def test_a_request_in_single_bytes_is_one_request(world):
    whole = head(world, f"Content-Length: {len(GOOD)}", "Connection: close") + GOOD
    assert statuses(exchange(world, *(bytes([each]) for each in whole))) == [200]


# ---- keys ----------------------------------------------------------------------------------------


def test_a_revoked_key_is_refused_within_a_second(world):
    from gateway_world import token_entry  # noqa: PLC0415

    from modelkeep.adapters.system import SystemEntropy  # noqa: PLC0415
    from modelkeep.gate.authn import new_token  # noqa: PLC0415

    text, token = new_token(SystemEntropy(), principal="brief", scopes=("infer:digits",))
    key = text.reveal().decode()
    at = world.state.applied().entries
    world.state.apply(at, [token_entry(token, at)])
    time.sleep(1)
    assert call(world, body=GOOD, key=key)[0] == 200
    facts = {"token_id": token.token_id}
    world.state.apply(at + 1, [Entry(kind="token.revoked", at_ns=at, actor="test", facts=facts)])
    time.sleep(1)
    assert call(world, body=GOOD, key=key)[0] == 401


# ---- losing processes ----------------------------------------------------------------------------


def test_a_killed_replica_under_load_fails_no_request(world):
    outcomes = []
    stop = threading.Event()

    def keep_calling():
        connection = http.client.HTTPSConnection(
            "127.0.0.1", world.port, context=world.context(), timeout=20
        )
        with contextlib.closing(connection):
            while not stop.is_set():
                connection.request("POST", INFER, GOOD, bearer(world.key))
                answer = connection.getresponse()
                answer.read()
                outcomes.append(answer.status)

    threads = [threading.Thread(target=keep_calling) for _ in range(8)]
    for thread in threads:
        thread.start()
    for index in (0, 1, 0):
        time.sleep(0.4)
        world.replicas[index].kill()
        time.sleep(0.2)
        world.replicas[index].start()
        time.sleep(0.6)  # the supervisor's restart; one replica is always there
    stop.set()
    for thread in threads:
        thread.join()
    assert len(outcomes) > 100
    assert set(outcomes) == {200}


def test_stopped_and_killed_gateways_leave_a_record_for_every_answer(model, tmp_path_factory):
    running = started(tmp_path_factory.mktemp("short") / "keep", model=model)
    outcomes = []
    stop = threading.Event()

    def keep_calling():
        while not stop.is_set():
            with contextlib.suppress(OSError, http.client.HTTPException):
                status, headers, _ = call(running, body=GOOD)
                outcomes.append((status, headers["modelkeep-receipt"]))

    try:
        running.wait_ready()
        threads = [threading.Thread(target=keep_calling) for _ in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(0.4)
        assert running.gateway.kill(signal.SIGTERM) == 0
        assert {status for status, _ in outcomes} == {200}  # a drained gateway drops no call
        running.gateway.start()
        running.wait_ready()
        time.sleep(0.4)
        running.gateway.kill(signal.SIGKILL)
        running.gateway.start()
        running.wait_ready()
        stop.set()
        for thread in threads:
            thread.join()
        kept = records(running)
    finally:
        stop.set()
        running.stop()
    receipts = [receipt for status, receipt in outcomes if status == 200]
    assert len(set(receipts)) == len(receipts) > 20
    for receipt in receipts:
        record = kept[int(receipt.partition(":")[2])]
        assert isinstance(record, CallRecord)
        assert record.status == 200


def test_while_the_disk_is_full_calls_are_refused_and_answered_again_after(world):
    full = world.folder / "full"
    full.touch()
    try:
        status, _, answer = call(world, body=GOOD)
        assert (status, answer["code"]) == (503, "ledger.full")
    finally:
        full.unlink()
    assert call(world, body=GOOD)[0] == 200
