"""The unmodified `openai` client, a real gateway, and models that another server computes."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import http.client
import json
import os
import socket
import struct
import time
from pathlib import Path

import openai
import pytest
from openai import AsyncOpenAI, DefaultAsyncHttpxClient, DefaultHttpxClient, OpenAI
from openai_world import openai_world
from small_language_model import KEY, SECRET_WORDS, SmallServer, vector_of
from upstream_worker import until

from modelkeep.adapters.disk import RealDisk
from modelkeep.adapters.journal_file import JournalFile
from modelkeep.adapters.upstream_settings import UpstreamSettings
from modelkeep.core.call_record import CallRecord, IntentRecord, RefusalSummary, decoded_record
from modelkeep.gate.settings import GateSettings

pytestmark = pytest.mark.slow
CANARY = "canary words of a caller"
TURNS = [
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": CANARY},
]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    made = SmallServer(tmp_path_factory.mktemp("server"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def world(server, tmp_path_factory):
    kinds = ("chat", "completion", "embedding")
    upstream = UpstreamSettings(name="ngram", url=server.url, kinds=kinds)
    hasty = UpstreamSettings(
        name="talker", url=server.url, model="ngram", kinds=("chat",), silence_s_max=0.3
    )
    running = openai_world(
        tmp_path_factory.mktemp("keep") / "keep",
        (upstream, hasty),
        key=KEY,
        ca=server.ca,
        settings=GateSettings(read_timeout_s=2.0),
    )
    yield running
    running.stop()


@pytest.fixture
def client(world, server):
    server.well()
    with OpenAI(**options(world)) as made:
        yield made


def options(world, **more):
    kind = more.pop("kind", DefaultHttpxClient)
    return {
        "api_key": world.key,
        "base_url": f"{world.url}/v1",
        "max_retries": 0,
        "timeout": 60,
        "http_client": kind(verify=world.context()),
        **more,
    }


def chat(client, **more):
    return client.chat.completions.create(
        **{"model": "ngram", "messages": TURNS, "max_tokens": 12, "seed": 1, **more}
    )


def records(world):
    journal = JournalFile(RealDisk(), world.journal_folder, writable=False)
    with contextlib.closing(journal):
        return {position: decoded_record(raw) for position, raw in journal.read(0)}


def last_call(world):
    return [each for each in records(world).values() if isinstance(each, CallRecord)][-1]


# ---- models --------------------------------------------------------------------------------------


def test_language_models_are_listed_to_whoever_may_use_them(world, client):
    assert sorted(each.id for each in client.models.list()) == ["ngram", "talker"]
    assert client.models.retrieve("ngram").owned_by == "modelkeep"
    assert client.models.retrieve("ngram:1").id == "ngram:1"
    for name in ("nothing", "digits", "ngram:2", "NGRAM", "a/b"):
        with pytest.raises(openai.NotFoundError) as missing:
            client.models.retrieve(name)
        assert missing.value.code in ("model_not_found", "route.missing")
    with OpenAI(**options(world, api_key=world.limited_key)) as other:
        assert list(other.models.list()) == []


# ---- whole answers -------------------------------------------------------------------------------


def test_a_chat_is_answered_with_usage_and_reason(client):
    answer = chat(client)
    assert answer.object == "chat.completion"
    assert answer.model == "ngram:1"
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 12
    assert answer.usage.total_tokens == 12 + answer.usage.prompt_tokens


def test_seed_temperature_and_stop_are_honoured(client, server):
    once = chat(client, seed=5, max_tokens=40).choices[0].message.content
    assert chat(client, seed=5, max_tokens=40).choices[0].message.content == once
    assert chat(client, seed=6, max_tokens=40).choices[0].message.content != once
    cold = [chat(client, temperature=0, seed=each).choices[0].message.content for each in (1, 2)]
    assert cold[0] == cold[1]
    stop = once[len(once) // 2 :][:3]
    stopped = chat(client, seed=5, max_tokens=40, stop=[stop])
    assert stopped.choices[0].finish_reason == "stop"
    assert once.startswith(stopped.choices[0].message.content)
    assert stop not in stopped.choices[0].message.content
    chat(client, top_p=0.3, presence_penalty=0.5, frequency_penalty=-0.5, extra_body={"top_k": 7})
    said = server.asked[-1]
    assert (said["top_p"], said["top_k"], said["presence_penalty"]) == (0.3, 7, 0.5)


def test_several_choices_are_several_texts(client):
    answer = chat(client, n=3)
    assert [each.index for each in answer.choices] == [0, 1, 2]
    assert len({each.message.content for each in answer.choices}) == 3


def test_an_answer_can_be_sent_back_as_the_next_turn(client):
    message = chat(client).choices[0].message
    again = [*TURNS, message, {"role": "user", "content": "and then?"}]
    assert chat(client, messages=again).choices[0].message.content


def test_completions_have_the_protocol_s_own_length(client):
    answer = client.completions.create(model="ngram", prompt=["a keep", "the gate"], seed=1, n=2)
    assert [each.index for each in answer.choices] == [0, 1, 2, 3]
    assert answer.object == "text_completion"
    assert answer.usage.completion_tokens == 4 * 16


@pytest.mark.parametrize("form", ["float", "base64", None])
def test_embeddings_are_the_server_s_numbers(client, form):
    more = {"encoding_format": form} if form else {}
    answer = client.embeddings.create(model="ngram", input=["a keep", "the gate"], **more)
    got = answer.data[1].embedding
    if form == "base64":
        got = struct.unpack("<32f", base64.b64decode(got))
    assert got == pytest.approx(vector_of("the gate"), abs=1e-6)
    assert answer.usage.total_tokens == 4


def test_what_a_server_does_not_count_is_told_as_an_estimate(client, server):
    assert "estimated" not in chat(client).usage.model_extra
    server.says_usage = False
    usage = chat(client).usage
    assert usage.model_extra == {"estimated": True}
    assert usage.completion_tokens == 12


# ---- streams -------------------------------------------------------------------------------------


def test_a_stream_is_the_same_text_in_pieces_with_its_usage_last(client):
    whole = chat(client).choices[0].message.content
    chunks = list(chat(client, stream=True, stream_options={"include_usage": True}))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(each.choices[0].delta.content or "" for each in chunks[:-1]) == whole
    assert chunks[-2].choices[0].finish_reason == "length"
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == 12
    assert len({each.id for each in chunks}) == 1
    assert all(each.usage is None for each in chunks[:-1])
    assert all(each.usage is None for each in chat(client, stream=True))


def test_completions_stream_too(client):
    chunks = list(client.completions.create(model="ngram", prompt="a", stream=True, seed=2))
    whole = client.completions.create(model="ngram", prompt="a", seed=2).choices[0].text
    assert "".join(each.choices[0].text for each in chunks) == whole
    assert chunks[-1].choices[0].finish_reason == "length"


def test_pieces_arrive_as_they_are_made(client, server):
    server.pause_s = 0.05
    arrived = []
    for chunk in chat(client, stream=True, max_tokens=8):
        assert chunk.object == "chat.completion.chunk"
        arrived.append(time.monotonic())
    assert arrived[-1] - arrived[0] > 0.25


def test_the_async_client_streams_fifty_at_once(world, server):
    server.well()
    server.pause_s = 0.005

    async def one(client, seed):
        stream = await chat(client, stream=True, seed=seed)
        return "".join([each.choices[0].delta.content or "" async for each in stream])

    async def fifty():
        async with AsyncOpenAI(**options(world, kind=DefaultAsyncHttpxClient)) as client:
            return await asyncio.gather(*(one(client, seed) for seed in range(50)))

    texts = asyncio.run(fifty())
    assert len(set(texts)) > 40
    assert all(texts)


def test_a_gateway_may_stand_behind_a_gateway(world, server, tmp_path):
    """Two keeps, two records of one call; the first knows only the second's name and key."""
    server.well()
    behind = UpstreamSettings(name="far", url=f"{world.url}/v1", model="ngram")
    front = openai_world(
        tmp_path / "front", (behind,), key=world.key, ca=world.ca_path.read_bytes()
    )
    try:
        with OpenAI(**options(front)) as client:
            whole = chat(client, model="far")
            pieces = list(chat(client, model="far", stream=True))
            text = "".join(each.choices[0].delta.content or "" for each in pieces)
            assert text == whole.choices[0].message.content
            assert whole.usage.completion_tokens == 12
            assert (last_call(front).model, last_call(world).model) == ("far", "ngram")
            server.fault = "429"
            with pytest.raises(openai.RateLimitError) as limited:
                chat(client, model="far")
            assert limited.value.response.headers["retry-after"] == "7"
    finally:
        front.stop()


# ---- records -------------------------------------------------------------------------------------


def test_a_stream_has_its_intent_before_and_its_record_after_and_neither_has_a_word(world, client):
    raw = client.chat.completions.with_raw_response.create(
        model="ngram", messages=TURNS, max_tokens=12, seed=1, stream=True
    )
    position = int(raw.headers["modelkeep-receipt"].partition(":")[2])
    intent = records(world)[position]
    assert isinstance(intent, IntentRecord)
    assert (intent.principal, intent.model) == ("caller", "ngram")
    list(raw.parse())
    record = last_call(world)
    assert record.call_id == intent.call_id
    assert (record.status, record.tokens_out) == (200, 12)
    assert record.tokens_in > 0
    assert record.output_commitment
    journal = b"".join(path.read_bytes() for path in world.journal_folder.iterdir())
    for word in (CANARY, "be brief", KEY):
        assert word.encode() not in journal


def test_the_end_of_a_stream_leaves_after_its_record_and_carries_its_receipt(world, server):
    server.well()
    with sent(world, {"model": "ngram", "messages": TURNS, "max_tokens": 5, "stream": True}) as got:
        assert got.headers["content-type"] == "text/event-stream"
        raw = got.read()
    *_, receipt, done, rest = raw.split(b"\n\n")
    assert (done, rest) == (b"data: [DONE]", b"")
    name, _, position = receipt.removeprefix(b": modelkeep-receipt ").partition(b":")
    record = records(world)[int(position)]
    assert name == b"gateway-0"
    assert isinstance(record, CallRecord)
    assert (record.status, record.tokens_out) == (200, 5)


def test_a_caller_s_words_are_in_no_record_even_where_a_name_belongs(world, client):
    with pytest.raises(openai.NotFoundError) as missing:
        chat(client, model=CANARY)
    assert missing.value.code == "model_not_found"
    assert (last_call(world).status, last_call(world).model) == (404, "")


def test_a_client_that_is_gone_ends_the_work_and_the_record_says_so(world, client, server):
    server.pause_s = 0.05
    stream = chat(client, stream=True, max_tokens=100_000)
    next(stream)
    stream.close()
    assert until(lambda: server.broken_off == 1, 1.0)
    assert until(lambda: last_call(world).code == "client.gone", 2.0)
    assert last_call(world).status == 499
    assert last_call(world).tokens_out > 0


@pytest.mark.parametrize("is_stream", [True, False])
def test_a_client_that_is_gone_before_the_first_piece_ends_the_work_too(world, server, is_stream):
    server.well()
    server.fault, server.faulty_calls = "stall-first", 1
    body = json.dumps({"model": "ngram", "messages": TURNS, "stream": is_stream}).encode()
    with contextlib.closing(connected(world)) as made:
        made.sendall(request(world, body))
        assert until(lambda: server.begun == 1)
    assert until(lambda: server.broken_off == 1, 1.0)
    assert until(lambda: last_call(world).code == "client.gone", 2.0)


def test_a_client_that_does_not_read_costs_little_and_is_cut_off(world, server):
    """What is made for it waits in sockets; then the server is slowed down, then it is cut off."""
    server.well()
    server.fault = "huge"
    body = json.dumps({"model": "ngram", "messages": TURNS, "stream": True}).encode()
    with contextlib.closing(connected(world)) as made:
        made.sendall(request(world, body))
        made.recv(1000)
        assert until(lambda: server.broken_off == 1, 10.0)
        assert resident_bytes(world.gateway.popen.pid) < 400 * 1024 * 1024
    assert server.sent_bytes < 400 * 1024 * 1024
    server.well()
    with OpenAI(**options(world)) as client:
        assert chat(client).choices


# ---- refusals ------------------------------------------------------------------------------------


def test_every_refusal_is_the_client_s_own_exception(world, client):
    for key, error in (("mk_wrong", openai.AuthenticationError), ("", openai.AuthenticationError)):
        with OpenAI(**options(world, api_key=key or "x")) as other, pytest.raises(error) as raised:
            chat(other)
        assert raised.value.code == "invalid_api_key"
    limited = OpenAI(**options(world, api_key=world.limited_key))
    with limited, pytest.raises(openai.PermissionDeniedError) as denied:
        chat(limited)
    assert denied.value.code == "auth.forbidden"
    with pytest.raises(openai.NotFoundError):
        chat(client, model="nothing")
    with pytest.raises(openai.BadRequestError) as tensors:
        chat(client, model="digits")
    assert tensors.value.code == "schema.kind"
    with pytest.raises(openai.BadRequestError) as kind:
        client.embeddings.create(model="talker", input="x")
    assert kind.value.code == "upstream.kind"


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"response_format": {"type": "json_object"}}, "response_format.type"),
        ({"logit_bias": {"5": 1}}, "logit_bias"),
        ({"logprobs": True}, "logprobs"),
        ({"temperature": 9}, "temperature"),
        ({"extra_body": {"never_heard_of": 1}}, "never_heard_of"),
    ],
)
def test_what_is_not_honoured_is_a_bad_request_that_names_it(client, more, param):
    with pytest.raises(openai.BadRequestError) as refused:
        chat(client, **more)
    assert refused.value.param == param
    assert param.partition(".")[0] in refused.value.message


def test_paths_methods_and_media(world):
    for method, path, status in (
        ("GET", "/v1/nothing", 404),
        ("GET", "/v1/chat/completions", 405),
        ("POST", "/v1/models", 405),
        ("GET", "/v1/models", 200),
        ("GET", "/v2", 200),
    ):
        with sent(world, None, method=method, path=path) as got:
            assert got.status == status
    for headers in ({"Content-Type": "text/plain"}, {"Content-Encoding": "gzip"}):
        with sent(world, {}, headers=headers) as got:
            assert got.status == 415
            assert json.load(got)["error"]["type"] == "invalid_request_error"
    with sent(world, {}, headers={"Authorization": ""}) as got:
        assert got.status == 401
        assert got.headers["www-authenticate"]
    for raw in (b"", b"{", b"[]", b"\xff", b"[" * 100_000):
        with sent(world, raw) as got:
            assert got.status == 400
            assert json.load(got)["error"]["code"] == "schema.json"


def test_refusals_before_the_key_is_known_are_counted_and_no_record(world):
    with sent(world, {}, headers={"Authorization": "Bearer mk_wrong"}) as got:
        assert got.status == 401
        assert "modelkeep-receipt" not in got.headers
    assert until(
        lambda: any(isinstance(each, RefusalSummary) for each in records(world).values()), 3.0
    )


FAULTS = (
    ("400", openai.BadRequestError, "upstream.request"),
    ("401", openai.InternalServerError, "upstream.failed"),
    ("429", openai.RateLimitError, "rate_limit_exceeded"),
    ("500", openai.InternalServerError, "upstream.failed"),
    ("redirect", openai.InternalServerError, "upstream.failed"),
    ("silent", openai.InternalServerError, "upstream.deadline"),
    ("html", openai.InternalServerError, "upstream.answer"),
    ("json", openai.InternalServerError, "upstream.answer"),
    ("cut", openai.InternalServerError, "upstream.failed"),
)


@pytest.mark.parametrize("case", FAULTS, ids=lambda each: each[0])
def test_the_server_s_faults_are_errors_without_its_words(world, client, server, case):
    server.fault, error, code = case
    with pytest.raises(error) as raised:
        chat(client, model="talker")
    assert raised.value.code == code
    assert SECRET_WORDS not in str(raised.value)
    assert last_call(world).code.startswith("upstream.")
    if server.fault == "429":
        assert raised.value.response.headers["retry-after"] == "7"


@pytest.mark.parametrize("fault", ["cut", "json", "error-event", "stall"])
def test_a_stream_that_breaks_off_is_an_error_to_the_client_and_recorded(
    world, client, server, fault
):
    server.fault = fault
    got = []
    pieces = (each.choices[0].delta.content for each in chat(client, stream=True, model="talker"))
    with pytest.raises(openai.APIError) as broken:
        got.extend(pieces)
    assert len(got) == 3
    assert SECRET_WORDS not in str(broken.value)
    assert last_call(world).code.startswith("upstream.")
    assert last_call(world).tokens_out == 3


def test_a_stream_that_fails_before_its_first_piece_has_its_own_status(client, server):
    server.fault = "429"
    with pytest.raises(openai.RateLimitError) as limited:
        chat(client, stream=True)
    assert limited.value.response.headers["retry-after"] == "7"


# ---- bytes ---------------------------------------------------------------------------------------


def connected(world):
    plain = socket.create_connection(("127.0.0.1", world.port), timeout=10)
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
    return world.context().wrap_socket(plain, server_hostname="127.0.0.1")


def request(world, body):
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {world.key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


@contextlib.contextmanager
def sent(world, body, *, method="POST", path="/v1/chat/completions", headers=None):
    connection = http.client.HTTPSConnection(
        "127.0.0.1", world.port, context=world.context(), timeout=20
    )
    with contextlib.closing(connection):
        raw = json.dumps(body).encode() if isinstance(body, dict) else body
        usual = {"Authorization": f"Bearer {world.key}", "Content-Type": "application/json"}
        connection.request(method, path, raw, {**usual, **(headers or {})})
        yield connection.getresponse()


def resident_bytes(pid):
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
