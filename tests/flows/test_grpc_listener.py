"""gRPC and HTTP are two ways into one passage: equal answers, equal refusals, no side door."""

from __future__ import annotations

import concurrent.futures
import json
import random
import socket
import ssl
import threading
import time
import warnings
from types import SimpleNamespace

import grpc
import pytest
from gateway_inside import Inside
from gateway_world import certificate
from grpc_calls import STATUS_BY_HTTP, GrpcCaller, HttpCaller, message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelkeep.core.call_record import CallRecord, RefusalSummary
from modelkeep.gate.settings import GateSettings
from modelkeep.kernels.digest import keyed_id
from modelkeep.web import open_inference_pb2 as pb
from modelkeep.web.grpc_methods import SERVICE, UNSUPPORTED, address_of
from modelkeep.web.grpc_server import tls_of_pem

pytestmark = pytest.mark.slow
BODY_BYTES_MAX = 1024 * 1024
X = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1.0, 2.0, 3.0, 4.0]}
GOOD = {"inputs": [X]}
MESSAGE = message(GOOD, model="doubling", is_raw=True)
ECHO_PORTS = ("FP32", "FP16", "FP64", "INT64", "INT32", "INT8", "UINT8", "UINT64", "BOOL", "BYTES")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    bounds = GateSettings(
        body_bytes_max=BODY_BYTES_MAX, idle_timeout_s=1.0, read_timeout_s=1.0, call_timeout_s=10.0
    )
    running = Inside(tmp_path_factory.mktemp("inside"), bounds).start()
    yield running
    running.stop()
    assert running.complaints == []


@pytest.fixture(scope="module")
def rpc(world):
    caller = GrpcCaller(world)
    yield caller
    caller.close()


@pytest.fixture(scope="module")
def web(world):
    caller = HttpCaller(world)
    yield caller
    caller.close()


# ---- equal answers ------------------------------------------------------------------------------


def outputs_of(raw):
    """The outputs of an answer with typed values, as HTTP has them."""
    answer = pb.ModelInferResponse.FromString(raw)
    found = {}
    for each in answer.outputs:
        ((_, values),) = each.contents.ListFields()
        values = [v.decode() if isinstance(v, bytes) else v for v in values]
        found[each.name] = (each.datatype, list(each.shape), values)
    return found


ASKED = [
    GOOD,
    {"inputs": [{**X, "shape": [2, 4], "data": [0.1] * 8}], "id": "mine"},
    {"inputs": [X], "outputs": [{"name": "best"}]},
    {"inputs": [X], "outputs": [{"name": "y", "parameters": {"classification": 3}}]},
    {"inputs": [X], "parameters": {"timeout": 10_000_000, "priority": 0, "sequence_id": 0}},
]


@pytest.mark.parametrize("call", ASKED)
def test_both_give_equal_outputs(rpc, web, call):
    status, _, answer = web.ask("POST", "/v2/models/doubling/infer", json.dumps(call).encode())
    raw, _ = rpc.ask("ModelInfer", message(call, model="doubling"))
    assert status == 200
    wanted = {e["name"]: (e["datatype"], e["shape"], e["data"]) for e in answer["outputs"]}
    assert outputs_of(raw) == wanted
    assert pb.ModelInferResponse.FromString(raw).id == answer.get("id", "")


# ---- equal refusals -----------------------------------------------------------------------------

BAD = {
    "unknown input": {"inputs": [{**X, "name": "w"}]},
    "missing input": {"inputs": []},
    "duplicate input": {"inputs": [X, X]},
    "another type": {"inputs": [{**X, "datatype": "FP64"}]},
    "no type": {"inputs": [{**X, "datatype": "INT64", "data": [1, 2, 3, 4]}]},
    "too few values": {"inputs": [{**X, "data": [1.0]}]},
    "no values": {"inputs": [{key: X[key] for key in ("name", "shape", "datatype")}]},
    "another shape": {"inputs": [{**X, "shape": [1, 5]}]},
    "no rows": {"inputs": [{**X, "shape": [0, 4], "data": []}]},
    "negative shape": {"inputs": [{**X, "shape": [-1, 4]}]},
    "huge shape": {"inputs": [{**X, "shape": [2**62, 4]}]},
    "deep shape": {"inputs": [{**X, "shape": [1] * 70}]},
    "input's parameter": {"inputs": [{**X, "parameters": {"shared_memory_region": "a"}}]},
    "unknown parameter": {"inputs": [X], "parameters": {"mine": "a"}},
    "sequence": {"inputs": [X], "parameters": {"sequence_id": 3}},
    "named sequence": {"inputs": [X], "parameters": {"sequence_id": "a"}},
    "sequence's start": {"inputs": [X], "parameters": {"sequence_start": True}},
    "priority": {"inputs": [X], "parameters": {"priority": 1}},
    "timeout": {"inputs": [X], "parameters": {"timeout": -1}},
    "timeout in words": {"inputs": [X], "parameters": {"timeout": "soon"}},
    "id": {"inputs": [X], "id": "i" * 257},
    "unknown output": {"inputs": [X], "outputs": [{"name": "z"}]},
    "duplicate output": {"inputs": [X], "outputs": [{"name": "y"}, {"name": "y"}]},
    "output's parameter": {"inputs": [X], "outputs": [{"name": "y", "parameters": {"a": 1}}]},
    "classes": {"inputs": [X], "outputs": [{"name": "y", "parameters": {"classification": -1}}]},
    "many classes": {
        "inputs": [X],
        "outputs": [{"name": "y", "parameters": {"classification": 10**6}}],
    },
}


@pytest.mark.parametrize("name", BAD)
def test_both_refuse_a_bad_call_in_the_same_words(rpc, web, name):
    call = BAD[name]
    status, _, said = web.ask("POST", "/v2/models/doubling/infer", json.dumps(call).encode())
    assert status == 400
    code, ours, text, trailing = rpc.refusal("ModelInfer", message(call, model="doubling"))
    assert (code, ours) == (STATUS_BY_HTTP[status], said["code"])
    if name != "input's parameter":  # each says what its protocol has
        assert text == said["error"]
        assert trailing.get("modelkeep-hint-bin", b"").decode() == said.get("hint", "")
    assert trailing["modelkeep-receipt"].startswith("gateway-0:")


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        (("doubling", "", ""), (401, "auth.missing")),
        (("doubling", "", "mk_wrong"), (401, "auth.invalid")),
        (("doubling", "", "other"), (403, "auth.forbidden")),
        (("nothing", "", "other"), (403, "auth.forbidden")),
        (("nothing", "", "caller"), (404, "model.missing")),
        (("doubling", "7", "caller"), (404, "model.missing")),
        (("doubling", "", "scraper"), (403, "auth.forbidden")),
    ],
)
def test_both_refuse_the_same_callers(world, rpc, web, asked, wanted):
    (model, version, key), (status, code) = asked, wanted
    key = world.keys.get(key, key)
    path = f"/v2/models/{model}{f'/versions/{version}' if version else ''}/infer"
    found, _, said = web.ask("POST", path, json.dumps(GOOD).encode(), key=key)
    assert (found, said["code"]) == (status, code)
    raw = message(GOOD, model=model, version=version)
    assert rpc.refusal("ModelInfer", raw, key=key)[:3] == (
        STATUS_BY_HTTP[status],
        code,
        said["error"],
    )


QUESTIONS = {
    "ServerMetadata": "/v2",
    "ModelMetadata": "/v2/models/doubling",
    "ModelReady": "/v2/models/doubling/ready",
    "ModelConfig": "/v2/models/doubling/config",
    "ModelStatistics": "/v2/models/doubling/stats",
}


@pytest.mark.parametrize("method", [*QUESTIONS, "RepositoryIndex", "ModelInfer", *UNSUPPORTED])
def test_no_method_but_health_is_answered_without_a_key(rpc, method):
    raw = (
        MESSAGE if method == "ModelInfer" else pb.ModelQuestion(name="doubling").SerializeToString()
    )
    for key, code in (("", "auth.missing"), ("mk_wrong", "auth.invalid")):
        assert rpc.refusal(method, raw, key=key)[:2] == ("UNAUTHENTICATED", code)


@pytest.mark.parametrize("method", QUESTIONS)
def test_a_key_for_another_model_learns_nothing(world, rpc, web, method):
    if method == "ServerMetadata":
        pytest.skip("is about no model")
    for name in ("doubling", "nothing"):
        raw = pb.ModelQuestion(name=name).SerializeToString()
        path = QUESTIONS[method].replace("doubling", name)
        status, _, said = web.ask("GET", path, key=world.keys["other"])
        refusal = rpc.refusal(method, raw, key=world.keys["other"])
        assert (status, said["code"]) == (403, "auth.forbidden")
        assert refusal[:3] == ("PERMISSION_DENIED", said["code"], said["error"])


def test_the_index_and_statistics_show_what_the_key_may_use(world, rpc):
    for key, names in (("caller", {"doubling", "echo"}), ("other", set())):
        raw, _ = rpc.ask("RepositoryIndex", b"", key=world.keys[key])
        assert {each.name for each in pb.RepositoryIndexResponse.FromString(raw).models} == names
        raw, _ = rpc.ask("ModelStatistics", b"", key=world.keys[key])
        found = pb.ModelStatisticsResponse.FromString(raw).model_stats
        assert {each.name for each in found} == names


@pytest.mark.parametrize("method", UNSUPPORTED)
def test_an_extension_that_we_do_not_have_says_so(rpc, method):
    assert rpc.refusal(method, b"")[:2] == ("UNIMPLEMENTED", "route.unsupported")


@pytest.mark.parametrize(
    "path",
    [
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        "/grpc.channelz.v1.Channelz/GetServers",
        f"/{SERVICE}/Nothing",
        "/inference.GrpcInferenceService/ModelInfer",
        "/",
        "/a/b/c",
    ],
)
def test_there_is_no_other_method_and_no_other_service(rpc, path):
    assert rpc.refusal(path, b"")[:2] == ("UNIMPLEMENTED", "route.missing")


def test_a_header_that_stands_twice_is_refused(world, rpc):
    more = (("authorization", f"Bearer {world.key}"),)
    assert rpc.refusal("ModelInfer", MESSAGE, more=more)[:2] == ("INVALID_ARGUMENT", "http.header")


def test_refusals_before_authentication_are_counted(world, rpc):
    for _ in range(3):
        rpc.refusal("ModelInfer", MESSAGE, key="mk_counted")
    summed = threading.Event()
    world.on_loop(lambda: world.loop.create_task(_summarised(world, summed)))
    assert summed.wait(5)
    counted = [each for each in world.records().values() if isinstance(each, RefusalSummary)]
    assert sum(each.count for each in counted if each.reason == "auth.invalid") >= 3
    assert {each.prefix for each in counted} == {"127.0.0.0/24"}


async def _summarised(world, done):
    await world.serving.summarise()
    done.set()


# ---- records ------------------------------------------------------------------------------------


def test_an_answer_has_its_record_under_its_receipt_and_commits_to_the_very_bytes(world, rpc):
    raw, call = rpc.ask("ModelInfer", MESSAGE, more=(
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),))  # fmt: skip
    name, _, position = dict(call.trailing_metadata())["modelkeep-receipt"].partition(":")
    record = world.records()[int(position)]
    assert name == "gateway-0"
    assert isinstance(record, CallRecord)
    assert (record.status, record.model, record.version) == (200, "doubling", 1)
    assert record.input_commitment == keyed_id(bytes(32), record.nonce + MESSAGE)
    assert record.output_commitment == keyed_id(bytes(32), record.nonce + raw)
    assert record.trace.hex() == "0af7651916cd43dd8448eb211c80319c"


def test_a_refused_name_does_not_enter_a_record(world, rpc):
    odd = "no/such\nname" * 1000
    code, ours, _, trailing = rpc.refusal("ModelInfer", message(GOOD, model=odd))
    assert (code, ours) == ("NOT_FOUND", "model.missing")
    record = world.records()[int(trailing["modelkeep-receipt"].partition(":")[2])]
    assert (record.model, record.version, record.status) == ("", 0, 404)


def test_a_cancelled_call_is_answered_and_recorded_all_the_same(world, rpc):
    before = len(world.records())
    world.runtime.delay_s = 0.3
    try:
        ask = rpc.channel.unary_unary(f"/{SERVICE}/ModelInfer")
        metadata = (("authorization", f"Bearer {world.key}"),)
        calls = [ask.future(MESSAGE, metadata=metadata) for _ in range(5)]
        time.sleep(0.1)
        for each in calls:
            each.cancel()
        with pytest.raises(grpc.RpcError) as raised:
            rpc.ask("ModelInfer", MESSAGE, timeout=0.1)
        assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        wait_for(lambda: len(world.records()) >= before + 6)
    finally:
        world.runtime.delay_s = 0.0
    wait_for(lambda: world.serving.in_flight == 0)


def wait_for(holds, *, seconds=5.0):
    ends = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < ends
        time.sleep(0.02)


# ---- streams ------------------------------------------------------------------------------------


def test_a_stream_answers_in_order_and_a_refusal_does_not_end_it(world, rpc):
    bad = message({"inputs": [{**X, "shape": [1, 5]}]}, model="doubling")
    calls = [
        message({"inputs": [{**X, "data": [float(n)] * 4}], "id": str(n)}, model="doubling")
        for n in range(100)
    ]
    calls[50] = bad
    found = [pb.ModelStreamInferResponse.FromString(raw) for raw in rpc.stream(iter(calls))]
    assert len(found) == 100
    assert "schema.shape" in found[50].error_message
    kept = world.records()
    for number, each in enumerate(found):
        if number != 50:
            answer = pb.ModelInferResponse.FromString(each.infer_response)
            assert (each.error_message, answer.id) == ("", str(number))
        position = int(each.modelkeep_receipt.partition(":")[2])
        assert kept[position].status == (400 if number == 50 else 200)


def test_a_stream_marks_its_last_answers_if_it_is_asked_to(rpc):
    asked = {"inputs": [X], "parameters": {"triton_enable_empty_final_response": True}}
    (raw,) = rpc.stream(iter([message(asked, model="doubling")]))
    answer = pb.ModelInferResponse.FromString(
        pb.ModelStreamInferResponse.FromString(raw).infer_response
    )
    assert answer.parameters["triton_final_response"].bool_param


def test_many_streams_run_side_by_side(rpc):
    def one(number):
        calls = [message({**GOOD, "id": f"{number}-{n}"}, model="doubling") for n in range(20)]
        found = [pb.ModelStreamInferResponse.FromString(raw) for raw in rpc.stream(iter(calls))]
        answers = [pb.ModelInferResponse.FromString(each.infer_response).id for each in found]
        return answers == [f"{number}-{n}" for n in range(20)]

    with concurrent.futures.ThreadPoolExecutor(16) as threads:
        assert all(threads.map(one, range(32)))


def test_a_stream_needs_a_key_and_ends_when_it_is_revoked(world, rpc):
    with pytest.raises(grpc.RpcError) as raised:
        list(rpc.stream(iter([MESSAGE]), key="mk_wrong"))
    assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED

    def requests():
        yield MESSAGE
        answered.wait(5)
        world.revoke_all()
        time.sleep(0.1)
        yield MESSAGE

    answered = threading.Event()
    answers = rpc.stream(requests())
    try:
        assert pb.ModelStreamInferResponse.FromString(next(answers)).infer_response
        answered.set()
        with pytest.raises(grpc.RpcError) as raised:
            next(answers)
    finally:
        world.let_in()
    assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_a_silent_stream_is_ended(rpc):
    silent = threading.Event()

    def requests():
        yield MESSAGE
        silent.wait(10)

    started = time.monotonic()
    answers = rpc.stream(requests())
    next(answers)
    with pytest.raises(grpc.RpcError) as raised:
        next(answers)
    silent.set()
    assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert 0.5 < time.monotonic() - started < 4


def test_a_stream_that_is_not_read_stops_being_asked(world):
    rows = BODY_BYTES_MAX // 20
    large = message(
        {"inputs": [{**X, "shape": [rows, 4], "data": [1.0] * 4 * rows}]},
        model="doubling", is_raw=True,
    )  # fmt: skip
    caller = GrpcCaller(world)
    before = world.runtime.asked
    answers = caller.stream(iter([large] * 200), timeout=30)
    time.sleep(0.5)  # nothing is read: windows fill, and no more is computed than fits them
    assert world.runtime.asked - before < 60
    wait_for(lambda: world.serving.in_flight == 0 and not world.grpc._methods._streams)
    with pytest.raises(grpc.RpcError) as raised:
        list(answers)
    # What it is told, or that its connection is closed: it had nothing under way any more.
    assert raised.value.code().name in {"DEADLINE_EXCEEDED", "UNAVAILABLE"}
    caller.close()


@pytest.mark.parametrize(("key", "status"), [("", "UNAUTHENTICATED"), (None, "INVALID_ARGUMENT")])
def test_a_method_whose_message_does_not_come_is_ended(rpc, key, status):
    """Without a key at once; with one when its time is over."""
    silent = threading.Event()
    started = time.monotonic()

    def nothing():
        silent.wait(10)
        yield from ()

    ask = rpc.channel.stream_unary(f"/{SERVICE}/ModelInfer")
    metadata = (("authorization", f"Bearer {rpc.key}"),) if key is None else ()
    with pytest.raises(grpc.RpcError) as raised:
        ask(nothing(), metadata=metadata, timeout=20)
    silent.set()
    assert raised.value.code().name in {status, "DEADLINE_EXCEEDED"}
    assert time.monotonic() - started < (0.9 if key == "" else 4)


def test_cancelled_streams_leave_nothing_behind(world, rpc):
    world.runtime.delay_s = 0.05
    try:
        for _ in range(10):
            answers = rpc.stream(iter([MESSAGE] * 10))
            time.sleep(0.01)
            answers.cancel()
    finally:
        world.runtime.delay_s = 0.0
    wait_for(lambda: world.serving.in_flight == 0 and not world.grpc._methods._streams)
    assert (
        rpc.ask("ServerReady", b"", key="")[0]
        == pb.ServerReadyResponse(ready=True).SerializeToString()
    )


# ---- bytes that are no messages -----------------------------------------------------------------

METHODS = ["ModelInfer", "ModelMetadata", "ModelConfig", "ModelStatistics", "RepositoryIndex"]
KNOWN = {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED"}


def outcome(rpc, method, raw):
    try:
        rpc.ask(method, raw)
    except grpc.RpcError as error:
        return error.code().name
    return "OK"


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(raw=st.binary(max_size=300), method=st.sampled_from(METHODS))
def test_any_bytes_are_answered_or_refused(rpc, raw, method):
    assert outcome(rpc, method, raw) in KNOWN


PARAMETERS = st.dictionaries(
    st.sampled_from(["timeout", "priority", "sequence_id", "binary_data_output", "a", "é"]),
    st.one_of(
        st.booleans().map(lambda v: {"bool_param": v}),
        st.integers(-(2**63), 2**63 - 1).map(lambda v: {"int64_param": v}),
        st.floats().map(lambda v: {"double_param": v}),
        st.text(max_size=5).map(lambda v: {"string_param": v}),
        st.just({}),
    ).map(lambda fields: pb.InferParameter(**fields)),
    max_size=2,
)


@st.composite
def requests(draw):
    """Messages near a right one."""
    made = pb.ModelInferRequest.FromString(MESSAGE)
    made.model_version = draw(st.sampled_from(["", "1", "01", "2", "-1", "x", "٣", "9" * 40]))
    for name, value in draw(PARAMETERS).items():
        made.parameters[name].CopyFrom(value)
    tensor = made.inputs[0]
    tensor.shape[:] = draw(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=4) | st.just([1, 4]))
    tensor.datatype = draw(st.sampled_from(["FP32", "BYTES", "FP16", ""]))
    for name, value in draw(PARAMETERS).items():
        tensor.parameters[name].CopyFrom(value)
    tensor.contents.fp32_contents.extend(draw(st.lists(st.floats(width=32), max_size=5)))
    tensor.contents.bytes_contents.extend(draw(st.lists(st.binary(max_size=3), max_size=2)))
    del made.raw_input_contents[:]
    made.raw_input_contents.extend(draw(st.lists(st.binary(max_size=20), max_size=3)))
    for name in draw(st.lists(st.sampled_from(["y", "best", "x", ""]), max_size=3)):
        made.outputs.add(name=name)
    return made.SerializeToString()


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(raw=requests())
def test_any_message_is_answered_or_refused(rpc, raw):
    assert outcome(rpc, "ModelInfer", raw) in KNOWN


@pytest.mark.verify("grpc-mutations")
def test_every_mutation_of_a_message_is_answered_or_refused(rpc, count):
    chance = random.Random(7)  # noqa: S311 - mutations, the same every time
    late = 0
    for _ in range(count(100, full=100_000)):
        raw = bytearray(MESSAGE)
        for _ in range(chance.randrange(1, 4)):
            at = chance.randrange(len(raw))
            match chance.randrange(3):
                case 0:
                    raw[at] ^= 1 << chance.randrange(8)
                case 1:
                    del raw[at : at + chance.randrange(1, 9)]
                case 2:
                    raw[at:at] = chance.randbytes(chance.randrange(1, 9))
            if not raw:
                break
        found = outcome(rpc, "ModelInfer", bytes(raw))
        if found == "DEADLINE_EXCEEDED":  # the machine stood still for a second: no message's fault
            late += 1
            found = outcome(rpc, "ModelInfer", bytes(raw))
        assert found in KNOWN
    assert late <= 3


# ---- too much -----------------------------------------------------------------------------------


@pytest.mark.parametrize("extra", [1, 100 * 1024, 20 * BODY_BYTES_MAX])
def test_a_message_that_is_too_large_is_refused(rpc, extra):
    assert outcome(rpc, "ModelInfer", bytes(BODY_BYTES_MAX + extra)) == "RESOURCE_EXHAUSTED"
    assert outcome(rpc, "ModelInfer", MESSAGE) == "OK"


def test_compressed_messages_are_not_taken(rpc):
    with pytest.raises(grpc.RpcError) as raised:
        rpc.ask("ModelInfer", bytes(20 * BODY_BYTES_MAX), compression=grpc.Compression.Gzip)
    assert raised.value.code() in (
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.INTERNAL,
    )


def test_headers_that_are_too_large_are_refused(rpc):
    more = tuple((f"a-{n}", "v" * 4000) for n in range(20))
    assert rpc.refusal("ModelInfer", MESSAGE, more=more)[0] == "RESOURCE_EXHAUSTED"
    assert outcome(rpc, "ModelInfer", MESSAGE) == "OK"


def test_a_call_above_the_bound_is_told_when_to_come_again(world, rpc):
    world.serving.in_flight += world.settings.calls_in_flight_max
    try:
        code, ours, _, trailing = rpc.refusal("ModelInfer", MESSAGE)
    finally:
        world.serving.in_flight -= world.settings.calls_in_flight_max
    assert (code, ours, trailing["retry-after"]) == ("UNAVAILABLE", "gate.busy", "1")
    status = pb.Status.FromString(trailing["grpc-status-details-bin"])
    assert status.details[0].type_url.endswith("/google.rpc.RetryInfo")
    assert pb.RetryInfo.FromString(status.details[0].value).retry_delay.seconds == 1


def test_bytes_that_are_no_tls_harm_nobody(world, rpc):
    for raw in (
        b"GET / HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01" * 90,
    ):
        with socket.create_connection(("127.0.0.1", world.grpc_port), timeout=5) as plain:
            plain.sendall(raw)
    assert outcome(rpc, "ModelInfer", MESSAGE) == "OK"


# ---- certificates -------------------------------------------------------------------------------


def shown_by(port):
    """The certificate that a new connection is shown, and the TLS version."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection(("127.0.0.1", port), timeout=5) as plain,
        context.wrap_socket(plain) as secure,
    ):
        return ssl.DER_cert_to_PEM_cert(secure.getpeercert(binary_form=True)).encode()


def test_a_new_certificate_serves_at_once_and_open_connections_go_on(world):
    first, second = certificate(), certificate()
    server, port = world.listening(tls_of_pem(first[1]))
    there = SimpleNamespace(grpc_port=port, key=world.key, ca=first[0])
    old = GrpcCaller(there)
    assert outcome(old, "ModelInfer", MESSAGE) == "OK"
    assert shown_by(port).strip() == first[0].strip()
    server.replace_tls(tls_of_pem(second[1]))
    assert shown_by(port).strip() == second[0].strip()
    there.ca = second[0]
    new = GrpcCaller(there)
    for caller in (new, old):
        assert outcome(caller, "ModelInfer", MESSAGE) == "OK"
        caller.close()
    world.ended(server)


@pytest.mark.parametrize("version", ["TLSv1", "TLSv1_1"])
def test_old_tls_is_not_spoken(world, version):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
    context.set_ciphers("ALL:@SECLEVEL=0")
    with (
        socket.create_connection(("127.0.0.1", world.grpc_port), timeout=5) as plain,
        pytest.raises((ssl.SSLError, ConnectionError)),
    ):
        context.wrap_socket(plain)


def test_client_certificates_can_be_demanded_and_are_told_to_the_passage(world):
    ours, theirs = certificate(), certificate("client")
    server, port = world.listening(tls_of_pem(ours[1], client_ca=theirs[0], needs_client=True))
    seen = []
    known = world.serving.known
    world.serving.known = lambda arrival: seen.append(arrival) or known(arrival)
    (stranger, strangers_key), (certified, certified_key) = (
        (tls.chain, tls.key) for tls in (tls_of_pem(ours[1]), tls_of_pem(theirs[1]))
    )
    make = grpc.ssl_channel_credentials
    cases = (
        (make(ours[0]), False),
        (make(ours[0], strangers_key, stranger), False),
        (make(ours[0], certified_key, certified), True),
    )
    try:
        for credentials, is_let_in in cases:
            assert _is_let_in(f"localhost:{port}", credentials, world.key) is is_let_in
    finally:
        del world.serving.known
        world.ended(server)
    assert [each.certificate for each in seen] == [ssl.PEM_cert_to_DER_cert(theirs[0].decode())]


def _is_let_in(address, credentials, key):
    with grpc.secure_channel(address, credentials) as channel:
        ask = channel.unary_unary(f"/{SERVICE}/ModelInfer")
        try:
            ask(MESSAGE, metadata=(("authorization", f"Bearer {key}"),), timeout=5)
        except grpc.RpcError as error:
            return error.code() is not grpc.StatusCode.UNAVAILABLE
        return True


def test_addresses_are_read_as_grpc_writes_them():
    assert address_of("ipv4:10.1.2.3:4567") == "10.1.2.3"
    assert address_of("ipv6:%5B2001:db8::1%5D:4567") == "2001:db8::1"
    assert address_of("ipv6:[::1]:4567") == "::1"
    assert address_of("unix:/run/a") == ""
    assert address_of("") == ""
