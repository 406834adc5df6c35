"""The OpenAPI document says what the routes and records say, and nothing that is not there."""

import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, validate

from modelkeep.core.artifact import Port, Schema
from modelkeep.core.errors import HTTP_BY_CODE, KeepError, UsageError
from modelkeep.core.record import parsed_json, to_json
from modelkeep.flows.call import Served
from modelkeep.gate.schema import SchemaCheck
from modelkeep.web.openapi import document, own_operation
from modelkeep.web.openapi_models import call_schema
from modelkeep.web.openapi_operations import v2_operations
from modelkeep.web.openapi_text import text_operations, token_operations
from modelkeep.web.v2_routes import OF_MODEL, PLAIN, Question, parsed_route

ALL = [*v2_operations(), *text_operations(), *token_operations(), own_operation()]
DOCUMENT = document(ALL)
METHODS = ("get", "post", "put", "delete", "patch", "head", "options", "trace")


def plain(value):
    """As it is read out of the document."""
    return parsed_json(to_json(value), what="a schema")


def operations(found):
    return [
        (path, method, operation)
        for path, item in found["paths"].items()
        for method, operation in item.items()
    ]


def test_every_route_is_in_it_and_every_path_of_it_is_a_route():
    asked = set()
    found = document(v2_operations())
    for path, method, _ in operations(found):
        target = path.replace("{model}", "digits").replace("{version}", "1").encode()
        route = parsed_route(method.upper().encode(), target)
        asked.add((route.question, route.version))
        for other in METHODS:
            if other not in found["paths"][path]:
                with pytest.raises(KeepError) as raised:
                    parsed_route(other.upper().encode(), target)
                assert raised.value.code == "route.method"
    plain = {(question, None) for _, question in PLAIN.values()}
    of_model = {(question, version) for _, question in OF_MODEL.values() for version in (None, 1)}
    assert asked == plain | of_model
    assert {question for question, _ in asked} == set(Question) - {Question.UNSUPPORTED}


def test_every_reference_leads_somewhere():
    text = to_json(DOCUMENT).decode()
    named = DOCUMENT["components"]["schemas"]
    for name in re.findall(r'"#/components/schemas/([^"]+)"', text):
        assert name in named


def test_all_but_health_needs_a_key():
    for path, _, operation in operations(DOCUMENT):
        is_open = path.startswith("/v2/health/") or path == "/v1/token"
        assert operation["security"] == ([] if is_open else [{"key": []}])
        assert ("401" in operation["responses"]) is not path.startswith("/v2/health/")


def test_identifiers_are_unique():
    names = [operation["operationId"] for _, _, operation in operations(DOCUMENT)]
    assert len(set(names)) == len(names)


def test_statuses_are_ones_that_errors_have():
    ours = {200, 400, 403, 404, 502, 503, *HTTP_BY_CODE.values()}
    for _, _, operation in operations(DOCUMENT):
        assert {int(status) for status in operation["responses"]} <= ours


PORTS = (
    Port(name="x", dtype="FP32", shape=(-1, 3)),
    Port(name="t", dtype="BYTES", shape=(1,)),
    Port(name="b", dtype="BOOL", shape=(1,)),
    Port(name="i", dtype="INT8", shape=(-1,)),
)


def test_a_model_has_a_path_for_its_calls_with_its_own_form():
    check = SchemaCheck(Schema(inputs=PORTS, outputs=PORTS[:2]))
    found = document(ALL, [Served("digits", 7, check)])
    assert "/v2/models/{model}/infer" not in found["paths"]
    for path in ("/v2/models/digits/infer", "/v2/models/digits/versions/7/infer"):
        body = found["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        assert len(check.checked(to_json(body["example"])).inputs) == 4
        validate(plain(body["example"]), plain(body["schema"]))
    (asked,) = found["paths"]["/v2/models/{model}"]["get"]["parameters"]
    assert asked["example"] == "digits"


@settings(max_examples=30, suppress_health_check=list(HealthCheck), deadline=None)
@given(st.data())
def test_what_the_document_says_of_a_call_is_what_the_check_takes(data):
    check = SchemaCheck(Schema(inputs=PORTS, outputs=PORTS[:1]))
    said = Draft202012Validator(plain(call_schema(check.schema)))
    rows = data.draw(st.sampled_from([1, 2]))
    inputs = []
    for port in PORTS:
        shape = [rows if each == -1 else each for each in port.shape]
        value = {
            "FP32": st.floats(width=32, allow_nan=False, allow_infinity=False),
            "BYTES": st.text(max_size=3),
            "BOOL": st.booleans(),
            "INT8": st.integers(-200, 200),
        }[port.dtype]
        values = data.draw(st.lists(value, min_size=1, max_size=6))
        inputs.append({"name": port.name, "datatype": port.dtype, "shape": shape, "data": values})
    call = {"inputs": inputs, "id": data.draw(st.text(max_size=3))}
    try:
        check.checked(to_json(call))
    except UsageError:
        assert not said.is_valid(call)
    else:
        assert said.is_valid(call)


def test_a_large_input_is_no_example():
    ports = (Port(name="x", dtype="FP32", shape=(1, 3, 224, 224)),)
    check = SchemaCheck(Schema(inputs=ports, outputs=()))
    assert len(to_json(document(ALL, [Served("eyes", 1, check)]))) < 200_000
