"""The `openai` client, a real gateway, and a real llama.cpp with a model of 135M parameters.

`./run verify openai-llama` makes the environment (140 MB) and runs it.
"""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from openai import BadRequestError, DefaultHttpxClient, OpenAI
from openai_world import openai_world
from upstream_worker import until

from modelkeep.adapters.upstream_settings import UpstreamSettings
from modelkeep.gate.settings import GateSettings

pytestmark = [pytest.mark.verify("openai-llama"), pytest.mark.slow]
ROOT = Path(__file__).resolve().parents[2]
KEY = "sk-of-llama"
ASKED = [{"role": "user", "content": "What is the capital of France? Answer in one word."}]


@pytest.fixture(scope="module")
def llama(count):
    """The address of a real server."""
    if not count(0, full=1):
        pytest.skip("needs an environment of 140 MB: ./run verify openai-llama")
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        from _vault_environments import environment  # noqa: PLC0415
    finally:
        sys.path.pop(0)
    python = environment("llama")
    assert python is not None
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    script = ROOT / "benchmarks" / "peers" / "llama" / "serve.py"
    server = subprocess.Popen(
        [python, script, str(port), KEY],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with server:
        assert server.stdout is not None
        assert server.stdin is not None
        for line in server.stdout:
            if line.startswith("http://"):
                break
        yield f"http://127.0.0.1:{port}/v1"
        server.kill()


@pytest.fixture(scope="module")
def world(llama, tmp_path_factory):
    running = openai_world(
        tmp_path_factory.mktemp("keep") / "keep",
        (UpstreamSettings(name="smol", url=llama, silence_s_max=300.0),),
        key=KEY,
        settings=GateSettings(call_timeout_s=300.0),
    )
    yield running
    running.stop()


@pytest.fixture
def client(world):
    with OpenAI(
        api_key=world.key,
        base_url=f"{world.url}/v1",
        max_retries=0,
        timeout=600,
        http_client=DefaultHttpxClient(verify=world.context()),
    ) as made:
        yield made


def chat(client, **more):
    asked = {"model": "smol", "messages": ASKED, "max_tokens": 40, "temperature": 0, **more}
    return client.chat.completions.create(**asked)


def test_llama_answers_whole_and_in_pieces_alike_with_what_it_used(client):
    whole = chat(client)
    assert "Paris" in whole.choices[0].message.content
    assert whole.choices[0].finish_reason == "stop"
    chunks = list(chat(client, stream=True, stream_options={"include_usage": True}))
    said = "".join(each.choices[0].delta.content or "" for each in chunks if each.choices)
    assert said == whole.choices[0].message.content
    assert chunks[-1].usage == whole.usage
    assert whole.usage.completion_tokens > 0


def test_stops_lengths_and_completions_are_llama_s(client):
    short = chat(client, max_tokens=3)
    assert short.choices[0].finish_reason == "length"
    assert short.usage.completion_tokens == 3
    cut = chat(client, stop=["Par"])
    assert "Par" not in cut.choices[0].message.content
    text = client.completions.create(model="smol", prompt="One, two, three,", temperature=0)
    assert re.search("four", text.choices[0].text)


def test_twelve_streams_at_once_are_each_their_own(client):
    def one(number):
        asked = [{"role": "user", "content": f"Write the number {number} and stop."}]
        parts = chat(client, messages=asked, stream=True)
        return "".join(each.choices[0].delta.content or "" for each in parts)

    with ThreadPoolExecutor(12) as pool:
        texts = list(pool.map(one, range(40, 52)))
    assert sum(str(number) in text for number, text in zip(range(40, 52), texts, strict=True)) >= 9


def test_whoever_goes_leaves_the_server_free_for_the_next(client):
    """Eight callers go in the middle of long texts, on four slots; the ninth need not wait."""
    for _ in range(8):
        stream = chat(
            client,
            stream=True,
            max_tokens=4000,
            messages=[{"role": "user", "content": "Write a very long story about a ship."}],
        )
        next(stream)
        stream.close()
    started_s = time.monotonic()
    assert until(lambda: chat(client, max_tokens=2).choices)
    assert time.monotonic() - started_s < 15


def test_a_call_that_is_longer_than_the_context_is_the_caller_s_fault(client):
    with pytest.raises(BadRequestError) as refused:
        chat(client, messages=[{"role": "user", "content": "word " * 20_000}])
    assert refused.value.code == "upstream.request"
