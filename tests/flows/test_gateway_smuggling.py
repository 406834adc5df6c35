"""The smuggling corpus against the gateway, alone and behind nginx: nobody gets what is not his."""

from __future__ import annotations

import contextlib
import random
import re
import shutil
import socket
import ssl
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from gateway_world import started
from small_onnx import small_onnx
from smuggling_cases import Case, all_cases

from modelkeep.core.artifact import Port, Schema
from modelkeep.gate.settings import GateSettings

pytestmark = pytest.mark.slow
# What an honest client asks on the same connection; it ends it.
HONEST = b"GET /v2/health/live HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
LIVE = b'{"live":true}'
SMALL = Schema(
    inputs=(Port(name="x", dtype="FP32", shape=(-1, 4)),),
    outputs=(Port(name="y", dtype="FP32", shape=(-1, 4)),),
)
STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")
NGINX = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin")
CONF = """daemon off;
worker_processes 1;
pid {home}/pid;
error_log {home}/log;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {home}/b; proxy_temp_path {home}/p;
    fastcgi_temp_path {home}/f; uwsgi_temp_path {home}/u; scgi_temp_path {home}/s;
    ignore_invalid_headers off;
    underscores_in_headers on;
    upstream gateway {{ server 127.0.0.1:{port}; keepalive 1; }}
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    server {{ listen 127.0.0.1:{buffered}; location / {{ proxy_pass https://gateway; }} }}
    server {{
        listen 127.0.0.1:{streamed};
        location / {{ proxy_request_buffering off; proxy_pass https://gateway; }}
    }}
}}
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    settings = GateSettings(read_timeout_s=2.0, idle_timeout_s=30.0)
    folder = tmp_path_factory.mktemp("keep") / "keep"
    folder.parent.mkdir(exist_ok=True)
    model = small_onnx(folder.parent / "small.onnx").read_bytes()
    running = started(folder, model=model, schema=SMALL, settings=settings, replica_count=1)
    running.wait_ready()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def cases(count):
    """A part in CI, spread over the corpus; everything for `./run verify smuggling`."""
    every = all_cases()
    wanted = count(len(every) // 20, full=len(every))
    return random.Random(wanted).sample(every, wanted)  # noqa: S311  # the same each time


def received(sock):
    """Everything until the other side closes or goes quiet."""
    got = b""
    with contextlib.suppress(TimeoutError, ssl.SSLError, ConnectionError):
        while chunk := sock.recv(65536):
            got += chunk
    return got


def alone(world, context, case):
    with (
        socket.create_connection(("127.0.0.1", world.port), timeout=5) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as secure,
    ):
        head, separator, rest = case.raw.partition(b"\r\nHost: a\r\n")
        key = f"\r\nHost: a\r\nAuthorization: Bearer {world.key}\r\n".encode()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            secure.sendall((head + key + rest if separator else head) + HONEST)
        return received(secure)


def is_right(case, answer):
    """A refusal and the end, or the case's own answers and then the honest one's."""
    statuses = [int(each) for each in STATUS.findall(answer)]
    if case.answers:
        return len(statuses) == case.answers + 1 and statuses[-1] == 200
    is_refused = len(statuses) == 1 and 400 <= statuses[0] < 500
    return is_refused and LIVE not in answer and b"connection: close\r\n" in answer


@pytest.mark.verify("smuggling")
def test_no_case_is_cut_in_two_ways_by_the_gateway_alone(world, cases):
    context = world.context()
    with ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(lambda case: alone(world, context, case), cases))
    wrong = [
        (case.name, STATUS.findall(answer), answer[:80])
        for case, answer in zip(cases, answers, strict=True)
        if not is_right(case, answer)
    ]
    assert not wrong, f"{len(wrong)} of {len(cases)}: {wrong[:8]}"


def test_the_judge_sees_a_smuggled_answer():
    refusal = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n"
    more = b"HTTP/1.1 404 Not Found\r\n\r\n"
    live = b"HTTP/1.1 200 OK\r\n\r\n" + LIVE
    bad, good = Case("bad", b""), Case("good", b"", 1)
    assert is_right(bad, refusal)
    assert is_right(good, more + live)
    for answer in (b"", refusal + more, more, refusal + live, live):
        assert not is_right(bad, answer)
    for answer in (b"", refusal, live, more + more + live):
        assert not is_right(good, answer)


# ---- behind nginx --------------------------------------------------------------------------------


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as made:
        return made.getsockname()[1]


@pytest.fixture(scope="module")
def fronts(world, tmp_path_factory):
    if NGINX is None:
        pytest.skip("nginx is not here")
    home = tmp_path_factory.mktemp("nginx")
    ports = (free_port(), free_port())
    (home / "conf").write_text(
        CONF.format(home=home, port=world.port, buffered=ports[0], streamed=ports[1])
    )
    process = subprocess.Popen([NGINX, "-c", home / "conf", "-p", home], stderr=subprocess.DEVNULL)
    ends = time.monotonic() + 10
    while time.monotonic() < ends:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", ports[1]), 1):
            break
        time.sleep(0.05)
    yield ports
    process.terminate()
    process.wait(10)


def exchanged(port, *parts, timeout_s=1.0):
    with socket.create_connection(("127.0.0.1", port), timeout=timeout_s) as plain:
        with contextlib.suppress(ConnectionError):
            for part in parts:
                plain.sendall(part)
        return received(plain)


@pytest.mark.verify("smuggling")
@pytest.mark.parametrize("way", [0, 1], ids=["buffered", "streamed"])
def test_no_victim_behind_nginx_gets_the_answer_to_a_smuggled_request(fronts, cases, way):
    """Attacker and victims share nginx's one connection to the gateway."""
    port = fronts[way]
    wrong = []
    for case in cases:
        # The attacker's own connection ends with its request; what it smuggled lies upstream.
        exchanged(port, case.raw, timeout_s=0.1)
        for _ in range(2):
            answer = exchanged(port, HONEST, timeout_s=5.0)
            if STATUS.findall(answer) != [b"200"] or LIVE not in answer:
                wrong.append((case.name, answer[:120]))
    assert not wrong, f"{len(wrong)} victims: {wrong[:8]}"
