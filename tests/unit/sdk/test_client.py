"""The client's own decisions: which error a refusal is, what an answer's label is."""

import json

import numpy as np
import pytest

from modelkeep.core.errors import (
    IntegrityError,
    LimitError,
    MissingError,
    RefusedError,
    UnavailableError,
    UsageError,
)
from modelkeep.sdk.client import Client, _labels, _outputs, _refusal


def body(**facts):
    return json.dumps(facts).encode()


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, UsageError),
        (401, RefusedError),
        (403, RefusedError),
        (404, MissingError),
        (405, UsageError),
        (413, LimitError),
        (429, LimitError),
        (500, UnavailableError),
        (502, IntegrityError),
        (503, UnavailableError),
        (504, UnavailableError),
        (301, UsageError),
    ],
)
def test_a_status_is_an_error_that_says_what_to_do(status, kind):
    error = _refusal(status, body(error="no", code="some.code", hint="do this"))
    assert type(error) is kind
    assert (error.code, error.message, error.hint) == ("some.code", "no", "do this")
    assert error.context["status"] == status


@pytest.mark.parametrize("raw", [b"", b"<html>", b"[]", b"null", b'"x"', b"{}", b"\xff", b"1"])
def test_an_answer_that_is_not_ours_is_still_an_error_of_its_class(raw):
    error = _refusal(404, raw)
    assert isinstance(error, MissingError)
    assert error.code == "client.status"
    assert "404" in error.message


@pytest.mark.parametrize("server", ["http://localhost:1", "localhost:1", "", "ftp://x", "HTTPS//x"])
def test_a_server_without_tls_is_refused_before_any_key_is_sent(server):
    with pytest.raises(UsageError) as refused:
        Client(server=server, api_key="mk_secret")
    assert refused.value.code == "client.server"


@pytest.mark.parametrize("content", [None, b"", b"not a certificate", b"\xff\xfe"])
def test_a_certificate_that_is_none_is_a_usage_error(tmp_path, content):
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError) as refused:
        Client(server="https://localhost:1", api_key="mk_secret", ca=path)
    assert refused.value.code == "client.ca"


def test_a_server_that_is_not_there_is_unavailable_and_the_key_is_not_repeated():
    with Client(server="https://127.0.0.1:1", api_key="mk_secret") as client:
        assert client.is_ready() is False
        with pytest.raises(UnavailableError) as failed:
            client.load_model("digits")
    assert failed.value.code == "client.connection"
    assert "mk_secret" not in str(failed.value) + repr(failed.value) + failed.value.hint


# ---- answers -------------------------------------------------------------------------------------

FLOATS = np.array([[0.1, 0.9], [0.8, 0.2]], np.float32)


@pytest.mark.parametrize(
    ("outputs", "labels"),
    [
        ({"label": np.array([3, 4])}, [3, 4]),
        ({"label": np.array([[3], [4]])}, [3, 4]),
        ({"probabilities": FLOATS}, [1, 0]),
        ({"probabilities": FLOATS, "label": np.array([7, 8])}, [7, 8]),
        ({"ids": np.array([[1, 2], [3, 4]]), "probabilities": FLOATS}, [1, 1]),
        ({"label": np.array([3, 4], np.uint8)}, [3, 4]),
    ],
)
def test_a_label_is_the_integer_output_else_the_largest_of_the_first(outputs, labels):
    assert _labels(outputs).tolist() == labels


def described(**more):
    return {"name": "y", "datatype": "FP32", "shape": [2, 2], **more}


def test_outputs_come_as_json_or_as_bytes_and_are_the_same():
    plain = body(outputs=[described(data=FLOATS.reshape(-1).tolist())])
    assert np.array_equal(_outputs(plain, {})["y"], FLOATS)
    head = body(outputs=[described(parameters={"binary_data_size": 16})])
    headers = {"inference-header-content-length": str(len(head))}
    assert np.array_equal(_outputs(head + FLOATS.tobytes(), headers)["y"], FLOATS)


@pytest.mark.parametrize(
    ("raw", "headers"),
    [
        (b"", {}),
        (b"rubbish", {}),
        (b"{}", {}),
        (body(outputs=[described(data=[1.0])]), {}),
        (body(outputs=[{**described(data=[1.0] * 4), "datatype": "FP99"}]), {}),
        (body(outputs=[described(parameters={"binary_data_size": 16})]), {}),
        (b"{}", {"inference-header-content-length": "x"}),
    ],
    ids=["empty", "rubbish", "no-outputs", "too-few", "dtype", "cut", "header"],
)
def test_an_answer_that_is_no_answer_is_an_integrity_error(raw, headers):
    """A program that calls us catches KeepError, whatever stands between it and the gateway."""
    with pytest.raises(IntegrityError):
        _outputs(raw, headers)
