"""Unmodified tritonclient, HTTP and gRPC, blocking and asyncio: its whole public call list.

Every public method of each client stands in a table with what it must come to: the right answer,
or the protocol's own error. A method that a newer client brings fails here until it is listed.
"""

from __future__ import annotations

import asyncio
import inspect
import queue
import ssl

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
import tritonclient.http.aio
from gateway_inside import Inside
from tritonclient.http.auth import BasicAuth
from tritonclient.utils import InferenceServerException

pytestmark = pytest.mark.slow
MODULES = {
    "http": tritonclient.http,
    "http.aio": tritonclient.http.aio,
    "grpc": tritonclient.grpc,
    "grpc.aio": tritonclient.grpc.aio,
}
ROWS = np.array([[1, 2, 3, 4], [9, 8, 7, 6]], np.float32)
WAIT_S = 20


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    running = Inside(tmp_path_factory.mktemp("inside")).start()
    yield running
    running.stop()
    assert running.complaints == []


class Bench:
    """One client and what its methods are called with."""

    def __init__(self, world, kind):
        self.world, self.kind, self.module = world, kind, MODULES[kind]
        self.client = opened(world, kind)

    @property
    def headers(self):  # a new one each time: the HTTP client writes into it
        return {"authorization": f"Bearer {self.world.key}"}

    def inputs(self):
        made = self.module.InferInput("x", list(ROWS.shape), "FP32")
        made.set_data_from_numpy(ROWS)
        return [made]

    def text(self, found):
        """An answer as text, whatever it is."""
        return str(found)


def opened(world, kind):
    make = MODULES[kind].InferenceServerClient
    if kind == "http":
        return make(
            f"localhost:{world.port}", ssl=True, ssl_options={"ca_certs": str(world.ca_path)}
        )
    if kind == "http.aio":
        context = ssl.create_default_context(cafile=str(world.ca_path))
        return make(f"localhost:{world.port}", ssl=True, ssl_context=context)
    return make(f"localhost:{world.grpc_port}", ssl=True, root_certificates=str(world.ca_path))


def refused(said):
    """The protocol's own error: UNIMPLEMENTED, 501."""
    return isinstance(said, InferenceServerException) and said.status() in (
        "501",
        "StatusCode.UNIMPLEMENTED",
    )


def doubled(result):
    return (result.as_numpy("y") == 2 * ROWS).all() and list(result.as_numpy("best")) == [3, 0]


def has(*words):
    return lambda found: all(word in str(found) for word in words)


def is_true(found):
    return found is True


def anything(found):
    return not isinstance(found, Exception)


def streamed(bench):
    """Three requests on one stream of the blocking client; the answers in order."""
    answers = queue.Queue()
    bench.client.start_stream(lambda result, error: answers.put(error or result),
                              headers=bench.headers)  # fmt: skip
    for _ in range(3):
        bench.client.async_stream_infer("doubling", bench.inputs())
    found = [answers.get(timeout=WAIT_S) for _ in range(3)]
    bench.client.stop_stream()
    return all(doubled(each) for each in found)


async def streamed_aio(bench):
    async def requests():
        for _ in range(3):
            yield {"model_name": "doubling", "inputs": bench.inputs()}

    found = [pair async for pair in bench.client.stream_infer(requests(), headers=bench.headers)]
    return len(found) == 3 and all(error is None and doubled(result) for result, error in found)


def called_back(bench):
    answers = queue.Queue()
    bench.client.async_infer(
        "doubling",
        bench.inputs(),
        lambda result, error: answers.put(error or result),
        headers=bench.headers,
    )
    return answers.get(timeout=WAIT_S)


def asked(name, *arguments, check, **more):
    """A method that takes headers."""
    return (
        lambda bench: getattr(bench.client, name)(*arguments, headers=bench.headers, **more),
        check,
    )


BOTH = {
    "is_server_live": (lambda bench: bench.client.is_server_live(), is_true),
    "is_server_ready": (lambda bench: bench.client.is_server_ready(), is_true),
    "is_model_ready": asked("is_model_ready", "doubling", check=is_true),
    "get_server_metadata": asked("get_server_metadata", check=has("modelkeep", "statistics")),
    "get_model_metadata": asked("get_model_metadata", "doubling", "1", check=has("best", "INT64")),
    "get_model_config": asked("get_model_config", "doubling", check=has("TYPE_FP32", "onnx")),
    "get_inference_statistics": asked(
        "get_inference_statistics", "doubling", "1", check=has("doubling", "success")
    ),
    "get_model_repository_index": asked(
        "get_model_repository_index", check=has("doubling", "echo", "READY")
    ),
    "infer": (
        lambda bench: bench.client.infer("doubling", bench.inputs(), headers=bench.headers),
        doubled,
    ),
    "load_model": asked("load_model", "doubling", check=refused),
    "unload_model": asked("unload_model", "doubling", check=refused),
    "get_trace_settings": asked("get_trace_settings", check=refused),
    "update_trace_settings": asked("update_trace_settings", None, {"a": "1"}, check=refused),
    "get_log_settings": asked("get_log_settings", check=refused),
    "update_log_settings": asked("update_log_settings", {"log_info": False}, check=refused),
    "get_system_shared_memory_status": asked("get_system_shared_memory_status", check=refused),
    "register_system_shared_memory": asked(
        "register_system_shared_memory", "a", "/a", 64, check=refused
    ),
    "unregister_system_shared_memory": asked("unregister_system_shared_memory", check=refused),
    "get_cuda_shared_memory_status": asked("get_cuda_shared_memory_status", "a", check=refused),
    "register_cuda_shared_memory": asked(
        "register_cuda_shared_memory", "a", b"aGFuZGxl", 0, 64, check=refused
    ),
    "unregister_cuda_shared_memory": asked("unregister_cuda_shared_memory", "a", check=refused),
    # Of the client alone: nothing reaches a server.
    "plugin": (lambda bench: bench.client.plugin(), lambda found: found is None),
    "register_plugin": (lambda bench: bench.client.register_plugin(bench.plugin), anything),
    "unregister_plugin": (lambda bench: bench.client.unregister_plugin(), anything),
    "close": (lambda _bench: None, anything),  # at the end of every test
}
HTTP = {
    **BOTH,
    "generate_request_body": (
        lambda bench: bench.client.generate_request_body(bench.inputs()),
        anything,
    ),
    "parse_response_body": (
        lambda bench: bench.client.parse_response_body(
            b'{"model_name":"a","model_version":"1","outputs":[]}'
        ),
        anything,
    ),
}
TABLES = {
    "http": {
        **HTTP,
        "async_infer": (
            lambda bench: bench.client.async_infer(
                "doubling", bench.inputs(), headers=bench.headers
            ).get_result(),
            doubled,
        ),
    },
    "http.aio": HTTP,
    "grpc": {
        **BOTH,
        "async_infer": (called_back, doubled),
        "start_stream": (streamed, is_true),
        "async_stream_infer": (streamed, is_true),
        "stop_stream": (streamed, is_true),
    },
    "grpc.aio": {**BOTH, "stream_infer": (streamed_aio, is_true)},
}


def public(kind):
    """The public methods of a client."""
    found = inspect.getmembers(MODULES[kind].InferenceServerClient, callable)
    return {name for name, _ in found if not name.startswith("_")}


@pytest.mark.parametrize("kind", MODULES)
def test_every_public_method_of_the_client_is_listed(kind):
    assert public(kind) == set(TABLES[kind])


async def whole_list(world, kind):
    bench = Bench(world, kind)
    bench.plugin = BasicAuth("a", "b")
    faults = {}
    # Plugins last, and in this order: one that is registered writes into every request.
    plugins = ["plugin", "register_plugin", "unregister_plugin"]
    for name in [*sorted(set(TABLES[kind]) - set(plugins)), *plugins]:
        call, check = TABLES[kind][name]
        try:
            found = call(bench)
            if inspect.isawaitable(found):
                found = await asyncio.wait_for(found, WAIT_S)
        except InferenceServerException as error:
            found = error
        if not check(found):
            faults[name] = found
    closing = bench.client.close()
    if inspect.isawaitable(closing):
        await closing
    return faults


@pytest.mark.parametrize("kind", MODULES)
def test_the_whole_call_list_gets_its_answer_or_the_protocols_own_error(world, kind):
    assert asyncio.run(whole_list(world, kind)) == {}


@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_every_method_that_asks_something_needs_a_key(world, kind):
    bench = Bench(world, kind)
    bench.__class__ = type("Keyless", (Bench,), {"headers": property(lambda _self: {})})
    for name in sorted(set(BOTH) - {"close", "plugin", "register_plugin", "unregister_plugin"}):
        if name in ("is_server_live", "is_server_ready"):
            continue
        call, _ = BOTH[name]
        if kind == "http" and name == "is_model_ready":  # its client swallows the status
            assert call(bench) is False
            continue
        with pytest.raises(InferenceServerException) as raised:
            call(bench)
        assert raised.value.status() in ("401", "StatusCode.UNAUTHENTICATED"), name
    bench.client.close()


@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_both_clients_ask_in_every_way_they_have(world, kind):
    bench = Bench(world, kind)
    wanted = [bench.module.InferRequestedOutput("y", class_count=2)]
    found = bench.client.infer(
        "doubling",
        bench.inputs(),
        "1",
        wanted,
        request_id="mine",
        priority=0,
        timeout=5_000_000,
        headers=bench.headers,
    )
    assert found.get_response().id == "mine" if kind == "grpc" else found.get_response()["id"]
    texts = found.as_numpy("y").tolist()
    assert texts == [[b"8.000000:3", b"6.000000:2"], [b"18.000000:0", b"16.000000:1"]]
    for wish in ({"sequence_id": 7}, {"priority": 1}, {"parameters": {"mine": "1"}}):
        with pytest.raises(InferenceServerException) as raised:
            bench.client.infer("doubling", bench.inputs(), headers=bench.headers, **wish)
        assert raised.value.status() in ("400", "StatusCode.INVALID_ARGUMENT"), wish
    bench.client.close()


@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_a_calls_own_timeout_is_kept(world, kind):
    bench = Bench(world, kind)
    world.runtime.delay_s = 0.05
    try:
        with pytest.raises(InferenceServerException) as raised:
            bench.client.infer("doubling", bench.inputs(), timeout=1000, headers=bench.headers)
    finally:
        world.runtime.delay_s = 0.0
        bench.client.close()
    assert raised.value.status() in ("504", "StatusCode.DEADLINE_EXCEEDED")


@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_every_element_type_comes_back_as_it_went(world, kind):
    module = MODULES[kind]
    bench = Bench(world, kind)
    given = {
        "FP16": np.array([[1.5, -2]], np.float16),
        "FP32": np.array([[1.5, -2e30]], np.float32),
        "FP64": np.array([[1.5, -2e300]], np.float64),
        "INT8": np.array([[-128, 127]], np.int8),
        "INT32": np.array([[-(2**31), 2**31 - 1]], np.int32),
        "INT64": np.array([[-(2**63), 2**63 - 1]], np.int64),
        "UINT8": np.array([[0, 255]], np.uint8),
        "UINT64": np.array([[0, 2**64 - 1]], np.uint64),
        "BOOL": np.array([[True, False]]),
        "BYTES": np.array([["", "Grüße, 世界"]], np.object_),
    }
    inputs = []
    for dtype, values in given.items():
        made = module.InferInput(f"in-{dtype}", [1, 2], dtype)
        made.set_data_from_numpy(values)
        inputs.append(made)
    found = bench.client.infer("echo", inputs, headers=bench.headers)
    bench.client.close()
    for dtype, values in given.items():
        got = found.as_numpy(f"out-{dtype}")
        if dtype == "BYTES":
            assert [each.decode() for each in got.reshape(-1)] == values.reshape(-1).tolist()
        else:
            assert got.tobytes() == values.tobytes(), dtype
