"""A real upstream worker between a gateway's frames and a server that can misbehave."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

import pytest
from small_language_model import KEY, SECRET_WORDS, SmallServer
from upstream_worker import chat, until, worker

from modelkeep.adapters.upstream_dial import Dialer, is_reachable
from modelkeep.adapters.upstream_settings import UpstreamSettings, upstream_problems
from modelkeep.core.text import TextKind, TextRequest
from modelkeep.crypto.certificates import new_authority
from modelkeep.kernels.replica_faults import error_of_fault
from modelkeep.kernels.replica_frames import FaultFrame, Hello, Piece, TextEnd

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    made = SmallServer(tmp_path_factory.mktemp("server"))
    yield made
    made.close()


def settings_of(server, **more):
    usual = {"name": "ngram", "silence_s_max": 10.0, "timeout_s": 20.0}
    kinds = ("chat", "completion", "embedding")
    return UpstreamSettings(**{"url": server.url, "kinds": kinds, **usual, **more})


@pytest.fixture(scope="module")
def running(server, tmp_path_factory):
    folder = tmp_path_factory.mktemp("worker")
    with worker(settings_of(server), folder, key=KEY, ca=server.ca) as made:
        yield made


@pytest.fixture
def gateway(running, server):
    server.well()
    with contextlib.closing(running.gateway()) as made:
        yield made


def text_of(pieces):
    return "".join(each.text for each in pieces)


# ---- answers -------------------------------------------------------------------------------------


def test_an_answer_comes_in_pieces_with_what_it_used(gateway, server):
    pieces, end = gateway.answer(chat(seed=3))
    assert gateway.hello.model == "ngram"
    assert (end.reasons, end.completion_tokens) == (("length",), 20)
    assert len(pieces) == 20
    assert end.prompt_tokens > 0
    assert text_of(pieces) == text_of(gateway.answer(chat(seed=3))[0])
    assert text_of(pieces) != text_of(gateway.answer(chat(seed=4))[0])
    assert server.asked[0]["stream_options"] == {"include_usage": True}


def test_several_choices_and_prompts_keep_their_numbers(gateway):
    asked = TextRequest(
        kind=TextKind.COMPLETION, prompts=("a keep", "the gate"), choices=2, max_tokens=4, seed=1
    )
    pieces, end = gateway.answer(asked)
    assert {each.choice for each in pieces} == {0, 1, 2, 3}
    assert end.reasons == ("length",) * 4


def test_vectors_come_back_as_many_as_texts(gateway):
    _, end = gateway.answer(TextRequest(kind=TextKind.EMBEDDING, prompts=("a b", "b a", "c")))
    first, second, third = (bytes(each) for each in end.vectors)
    assert first == second != third
    assert end.prompt_tokens == 5


def test_a_server_that_does_not_count_is_counted(gateway, server):
    assert not gateway.answer(chat())[1].is_estimate
    server.says_usage = False
    _, end = gateway.answer(chat())
    assert (end.completion_tokens, end.is_estimate) == (20, True)


def test_connections_are_kept(gateway, server):
    gateway.answer(chat())
    before = server.connections
    for _ in range(5):
        gateway.answer(chat())
    assert server.connections == before


def test_fifty_answers_at_once_are_each_their_own(gateway, server):
    server.pause_s = 0.005
    numbers = {gateway.ask(chat(seed=each)): each for each in range(50)}
    texts, ended = dict.fromkeys(numbers, ""), set()
    while len(ended) < 50:
        frame = gateway.next()
        if isinstance(frame, Piece):
            texts[frame.number] += frame.text
        else:
            assert isinstance(frame, TextEnd)
            ended.add(frame.number)
    server.well()
    for number, seed in list(numbers.items())[::10]:
        assert texts[number] == text_of(gateway.answer(chat(seed=seed))[0])


# ---- faults --------------------------------------------------------------------------------------

FAULTS = (
    # fault, code, status, calls that the server saw
    ("400", "upstream.request", 400, 1),
    ("401", "upstream.failed", 503, 1),
    ("404", "upstream.failed", 503, 1),
    ("429", "upstream.limited", 429, 1),
    ("500", "upstream.failed", 503, 1),
    ("redirect", "upstream.failed", 503, 1),
    ("no-content", "upstream.answer", 502, 1),
    ("html", "upstream.answer", 502, 1),
    ("gzip", "upstream.answer", 502, 1),
    ("drop", "upstream.failed", 503, 3),
    ("garbage", "upstream.failed", 503, 3),
    ("huge-head", "upstream.failed", 503, 3),
    ("cut", "upstream.failed", 503, 1),
    ("cut-clean", "upstream.answer", 502, 1),
    ("no-reason", "upstream.answer", 502, 1),
    ("json", "upstream.answer", 502, 1),
    ("deep", "upstream.answer", 502, 1),
    ("utf8", "upstream.answer", 502, 1),
    ("huge-line", "upstream.answer", 502, 1),
    ("error-event", "upstream.answer", 502, 1),
    ("wrong-index", "upstream.answer", 502, 1),
    ("negative-index", "upstream.answer", 502, 1),
)


@pytest.mark.parametrize("case", FAULTS, ids=lambda each: each[0])
def test_every_fault_is_an_error_of_ours_and_the_next_call_is_answered(gateway, server, case):
    server.fault, code, status, server.faulty_calls = case
    calls = server.faulty_calls
    pieces, end = gateway.answer(chat())
    assert isinstance(end, FaultFrame)
    error = error_of_fault(end)
    assert (error.code, error.http_status) == (code, status)
    assert len(server.asked) == calls
    assert SECRET_WORDS not in text_of(pieces) + end.message + error.message
    assert isinstance(gateway.answer(chat())[1], TextEnd)


def test_a_server_that_falls_silent_is_waited_for_no_longer_than_is_set(server, tmp_path):
    server.well()
    settings = settings_of(server, silence_s_max=0.3)
    with worker(settings, tmp_path, key=KEY, ca=server.ca) as made:
        for server.fault in ("silent", "stall"):
            started_s = time.monotonic()
            _, end = made.gateway().answer(chat())
            assert error_of_fault(end).http_status == 504
            assert time.monotonic() - started_s < 5
        server.fault, server.pause_s = "", 0.2
        assert isinstance(made.gateway().answer(chat(max_tokens=4))[1], TextEnd)


def test_a_call_ends_when_its_time_is_over_however_busy_it_is(server, tmp_path):
    server.well()
    server.pause_s = 0.05
    settings = settings_of(server, timeout_s=0.5)
    with worker(settings, tmp_path, key=KEY, ca=server.ca) as made:
        pieces, end = made.gateway().answer(chat(max_tokens=10_000))
    assert pieces
    assert end.code == "upstream.deadline"
    assert until(lambda: server.broken_off == 1, 1.0)


@pytest.mark.parametrize("fault", ["vectors-few", "vectors-nan"])
def test_wrong_vectors_are_no_answer(gateway, server, fault):
    server.fault = fault
    _, end = gateway.answer(TextRequest(kind=TextKind.EMBEDDING, prompts=("a", "b")))
    assert end.code == "upstream.answer"


@pytest.mark.parametrize(("fault", "waits_s"), [("429-soon", 1), ("drop", 0)])
def test_a_call_that_was_not_begun_is_sent_again_after_the_pause_that_is_asked_for(
    gateway, server, fault, waits_s
):
    server.fault, server.faulty_calls = fault, 1
    started_s = time.monotonic()
    _, end = gateway.answer(chat())
    assert isinstance(end, TextEnd)
    assert len(server.asked) == 2
    assert waits_s <= time.monotonic() - started_s < waits_s + 1.5


def test_a_caller_is_told_how_long_the_server_wants_to_be_left_alone(gateway, server):
    server.fault = "429"
    _, end = gateway.answer(chat())
    assert error_of_fault(end).context["retry_after_s"] == 7


def test_nothing_is_sent_again_once_a_piece_has_come(gateway, server):
    server.fault = "cut"
    pieces, _ = gateway.answer(chat())
    assert len(pieces) == 3
    assert len(server.asked) == 1


# ---- whoever does not read, or is gone -----------------------------------------------------------


def test_a_call_that_is_cancelled_ends_at_the_server_within_a_second(gateway, server):
    server.pause_s = 0.05
    number = gateway.ask(chat(max_tokens=10_000))
    assert isinstance(gateway.next(), Piece)
    gateway.cancel(number)
    assert until(lambda: server.broken_off == 1, 1.0)


def test_a_call_that_is_cancelled_before_its_first_piece_ends_too(gateway, server):
    server.pause_s = 30.0
    number = gateway.ask(chat())
    gateway.next()
    gateway.cancel(number)
    assert until(lambda: server.broken_off == 1, 1.0)


def test_the_calls_of_a_gateway_that_is_gone_end_within_a_second(running, server):
    server.well()
    server.pause_s = 0.05
    gateway = running.gateway()
    for _ in range(5):
        gateway.ask(chat(max_tokens=10_000))
    assert until(lambda: server.begun == 5)
    gateway.close()
    assert until(lambda: server.broken_off == 5, 1.0)


def test_a_gateway_that_does_not_read_stops_the_server_and_costs_little_memory(
    gateway, server, running
):
    server.fault = "huge"
    gateway.ask(chat())
    assert until(lambda: server.sent_bytes > 500_000)
    assert until(lambda: stands_still(lambda: server.sent_bytes), 15.0)
    assert server.sent_bytes < 32 * 1024 * 1024
    assert resident_bytes(running.process.popen.pid) < 200 * 1024 * 1024


def test_an_answer_without_end_is_cut_off_at_its_bound(server, tmp_path):
    server.well()
    server.fault = "huge"
    settings = settings_of(server, answer_bytes_max=1_000_000)
    with worker(settings, tmp_path, key=KEY, ca=server.ca) as made:
        pieces, end = made.gateway().answer(chat())
    assert end.code == "upstream.answer"
    assert len(text_of(pieces)) < 1_000_000


def test_a_gateway_that_sends_nonsense_is_cut_off(running):
    for raw in (b"\xff" * 8, b"\x01\x00\x00\x00\xc1", b"\x05\x00\x00\x00hello"):
        gateway = running.gateway()
        gateway.socket.sendall(raw)
        with pytest.raises(EOFError):
            gateway.next()


# ---- whom it speaks to ---------------------------------------------------------------------------


def test_a_server_that_another_authority_vouches_for_is_not_spoken_to(server, tmp_path):
    server.well()
    stranger = new_authority(keep_id="1" * 16, now_ns=time.time_ns()).certificate
    with worker(settings_of(server, retries=0), tmp_path, key=KEY, ca=stranger) as made:
        _, end = made.gateway().answer(chat())
    assert end.code == "upstream.unreachable"
    assert server.asked == []


def test_nobody_at_the_port_is_unreachable_and_loopback_needs_no_tls(tmp_path):
    plain = SmallServer(tmp_path, is_secure=False)
    try:
        with worker(settings_of(plain, retries=0), tmp_path, key=KEY) as made:
            gateway = made.gateway()
            assert isinstance(gateway.answer(chat())[1], TextEnd)
            plain.close()
            plain.fault = "drop"  # what is connected still
            gateway.answer(chat())
            assert gateway.answer(chat())[1].code == "upstream.unreachable"
    finally:
        plain.close()


@pytest.mark.parametrize(
    ("address", "is_open", "when_listed"),
    [
        ("93.184.216.34", True, True),
        ("2606:2800:220:1::1", True, True),
        ("10.1.2.3", False, True),
        ("192.168.0.1", False, False),
        ("127.0.0.1", False, False),
        ("::1", False, False),
        ("169.254.169.254", False, False),
        ("100.64.0.1", False, False),
        ("0.0.0.0", False, False),  # noqa: S104 - must be refused
        ("224.0.0.1", False, False),
        ("fe80::1%eth0", False, False),
        ("fd00::1", False, True),
        ("::ffff:10.1.2.3", False, True),
        ("::ffff:169.254.169.254", False, False),
        ("2002:a9fe:a9fe::1", False, False),
        ("::ffff:93.184.216.34", True, True),
    ],
)
def test_private_addresses_are_spoken_to_only_where_they_are_listed(address, is_open, when_listed):
    listed = ("10.1.0.0/16", "fd00::/8")
    assert is_reachable(address, (), is_literal=False) == is_open
    assert is_reachable(address, listed, is_literal=False) == when_listed


def test_a_name_that_stands_for_this_machine_is_not_dialled(server, monkeypatch):
    """As after DNS rebinding: the name is somebody's, the address is ours."""
    rows = [(2, 1, 6, "", ("127.0.0.1", server.port))]
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: rows)
    made, _ = Dialer("model.example", server.port, ()).connection()
    assert made is None
    made, _ = Dialer("model.example", server.port, ("127.0.0.0/8",)).connection()
    assert made is not None
    made.close()


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"url": "http://model.example/v1"}, "url"),
        ({"url": "https://me:secret@model.example/v1"}, "url"),
        ({"url": "https://model.example/v1?key=x"}, "url"),
        ({"url": "ftp://model.example"}, "url"),
        ({"name": "../x"}, "name"),
        ({"kinds": ()}, "kinds"),
        ({"kinds": ("chat", "images")}, "kinds"),
        ({"networks": ("10.0.0.0/0",)}, "networks"),
        ({"networks": ("somewhere",)}, "networks"),
        ({"timeout_s": 0.0}, "timeout_s"),
        ({"silence_s_max": float("inf")}, "silence_s_max"),
        ({"retries": 11}, "retries"),
        ({"answer_bytes_max": 0}, "answer_bytes_max"),
        ({"calls_max": 0}, "calls_max"),
    ],
)
def test_a_table_that_says_nonsense_is_refused_by_the_name_of_its_key(changes, word):
    good = {"name": "big", "url": "https://model.example/v1"}
    assert not any(is_bad for is_bad, _ in upstream_problems((UpstreamSettings(**good),)))
    problems = upstream_problems((UpstreamSettings(**{**good, **changes}),))
    told = [text for is_bad, text in problems if is_bad]
    assert len(told) == 1
    assert word in told[0]
    assert "secret" not in told[0]


# ---- the process ---------------------------------------------------------------------------------


def test_who_reads_the_server_s_words_is_locked_in_and_the_dialer_has_no_key(running, server):
    gateway = running.gateway()  # it is locked in before it greets
    server.well()
    pid = running.process.popen.pid
    status = Path(f"/proc/{pid}/status").read_text()
    assert "Seccomp:\t2" in status
    assert "NoNewPrivs:\t1" in status
    dialer = children_of(pid)
    assert len(dialer) == 1
    assert "memfd:key" not in held_by(dialer[0])
    assert "memfd:key" not in held_by(pid)  # it was read and closed
    assert KEY.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
    assert KEY.encode() not in Path(f"/proc/{pid}/environ").read_bytes()
    gateway.close()


def test_both_processes_end_with_the_supervisor_or_with_each_other(server, tmp_path):
    for end in ("lifeline", "dialer", "worker"):
        folder = tmp_path / end
        folder.mkdir()
        with worker(settings_of(server), folder, key=KEY, ca=server.ca) as made:
            assert isinstance(made.gateway().hello, Hello)
            pid = made.process.popen.pid
            (dialer,) = children_of(pid)
            if end == "dialer":
                os.kill(dialer, signal.SIGKILL)
            elif end == "worker":
                os.kill(pid, signal.SIGKILL)
            else:
                os.close(made.lifeline)
                made.lifeline = os.open("/dev/null", os.O_RDONLY)
            made.process.popen.wait(timeout=5)
            assert until(lambda dialer=dialer: not is_alive(dialer))


def stands_still(number):
    before = number()
    time.sleep(0.3)
    return number() == before


def resident_bytes(pid):
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def children_of(pid):
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def held_by(pid):
    names = []
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            names.append(str(each.readlink()))
    return " ".join(names)


def is_alive(pid):
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False
