"""A real gateway keeps to the policies of its models: how much leaves, and until when."""

import contextlib
import http.client
import json
import time

import numpy as np
import pytest
import tritonclient.http as triton
from gateway_world import digits_model, started
from onnxruntime import InferenceSession

from modelkeep.core.policy import Output, Policy

pytestmark = pytest.mark.slow
ROWS = np.linspace(0, 16, 3 * 64, dtype=np.float32).reshape(3, 64)


@pytest.fixture(scope="module")
def model():
    return digits_model()


@contextlib.contextmanager
def gateway(folder, model, policy):
    running = started(folder, model=model, policy=policy, replica_count=1)
    try:
        running.wait_ready()
        yield running
    finally:
        running.stop()


def answers(world, *, binary):
    """What a public client gets: labels, probabilities."""
    ssl = {"ssl": True, "ssl_options": {"ca_certs": str(world.ca_path)}}
    given = triton.InferInput("x", list(ROWS.shape), "FP32")
    given.set_data_from_numpy(ROWS, binary_data=binary)
    wanted = [
        triton.InferRequestedOutput(name, binary_data=binary) for name in ("label", "probabilities")
    ]
    with contextlib.closing(
        triton.InferenceServerClient(f"127.0.0.1:{world.port}", **ssl)
    ) as client:
        headers = {"Authorization": f"Bearer {world.key}"}
        found = client.infer("digits", [given], outputs=wanted, headers=headers)
    return found.as_numpy("label"), found.as_numpy("probabilities")


def test_rounded_and_labelled_answers_of_one_model(model, tmp_path):
    labels, full = InferenceSession(model).run(["label", "probabilities"], {"x": ROWS})
    assert (full != np.round(full, 1)).any(), "otherwise this would show nothing"
    with gateway(tmp_path / "rounded", model, Policy(output=Output.ROUNDED, decimals=1)) as world:
        for binary in (True, False):
            same, rounded = answers(world, binary=binary)
            assert (same == labels).all()
            assert (rounded == np.round(full, 1)).all()
    with gateway(tmp_path / "labels", model, Policy(output=Output.LABELS)) as world:
        for binary in (True, False):
            same, ones = answers(world, binary=binary)
            assert (same == labels).all()
            assert (ones == np.eye(10, dtype=np.float32)[full.argmax(axis=1)]).all()


def test_from_its_end_on_a_model_is_refused_over_kept_connections_too(model, tmp_path):
    ends_ns = time.time_ns() + 15 * 10**8
    with gateway(tmp_path / "ends", model, Policy(not_after_ns=ends_ns)) as world:
        headers = {"Authorization": f"Bearer {world.key}"}
        connection = http.client.HTTPSConnection(
            "127.0.0.1", world.port, context=world.context(), timeout=10
        )
        with contextlib.closing(connection):
            status, raw = 0, b""
            while time.time_ns() < ends_ns + 60 * 10**9 and status != 403:
                last_ns = time.time_ns()
                connection.request("GET", "/v2/models/digits", headers=headers)
                answer = connection.getresponse()
                status, raw = answer.status, answer.read()
                assert status == (200 if last_ns < ends_ns - 10**8 else status)
                time.sleep(0.02)
            assert (status, json.loads(raw)["code"]) == (403, "policy.expired")
            body = {
                "inputs": [{"name": "x", "shape": [1, 64], "datatype": "FP32", "data": [1.0] * 64}]
            }
            connection.request("POST", "/v2/models/digits/infer", json.dumps(body), headers)
            refused = connection.getresponse()
            assert (refused.status, json.loads(refused.read())["code"]) == (403, "policy.expired")
            assert refused.headers["modelkeep-receipt"], "the refusal is on record"
