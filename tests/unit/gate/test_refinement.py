"""What the operator says of inputs holds, beyond what the model says."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.core.artifact import Port, Schema
from modelkeep.core.errors import UsageError
from modelkeep.gate.rule_settings import InputRule, OutputRule, rule_problems, rules_of
from modelkeep.gate.schema import SchemaCheck

SCHEMA = Schema(
    inputs=(
        Port(name="x", dtype="FP32", shape=(-1, 2)),
        Port(name="kind", dtype="INT64", shape=(-1,)),
    ),
    outputs=(Port(name="y", dtype="FP32", shape=(-1,)),),
)
TEXTS = Schema(
    inputs=(Port(name="word", dtype="BYTES", shape=(-1,)),),
    outputs=(Port(name="y", dtype="FP32", shape=(-1,)),),
)


def body(x, kind):
    return json.dumps(
        {
            "inputs": [
                {"name": "x", "datatype": "FP32", "shape": [len(x) // 2, 2], "data": x},
                {"name": "kind", "datatype": "INT64", "shape": [len(kind)], "data": kind},
            ]
        }
    ).encode()


def words(*given):
    one = {"name": "word", "datatype": "BYTES", "shape": [len(given)], "data": given}
    return json.dumps({"inputs": [one]}).encode()


def code_of(rules, raw, schema=SCHEMA):
    try:
        SchemaCheck(schema, rules).checked(raw)
    except UsageError as error:
        return error.code
    return ""


RANGE = InputRule(model="m", input="x", min=0, max=1)
KIND = InputRule(model="m", input="kind", values=(1, 2, 2.5))
ROWS = InputRule(model="m", input="x", rows_max=2)


@pytest.mark.parametrize(
    ("rules", "x", "kind", "code"),
    [
        ((RANGE,), [0, 1], [9], ""),
        ((RANGE,), [0, 1.001], [9], "schema.range"),
        ((RANGE,), [-0.001, 1], [9], "schema.range"),
        ((RANGE, InputRule(model="*", input="x", max=0.5)), [0, 0.6], [1], "schema.range"),
        ((KIND,), [7, 7], [2], ""),
        ((KIND,), [7, 7], [3], "schema.category"),
        ((ROWS,), [1, 2, 3, 4], [1], ""),
        ((ROWS,), [1, 2, 3, 4, 5, 6], [1], "schema.rows"),
        ((InputRule(model="m", input="other", max=0),), [5, 5], [1], ""),
    ],
)
def test_an_input_outside_the_rules_is_refused_and_one_inside_is_not(rules, x, kind, code):
    assert code_of(rules, body(x, kind)) == code


def test_a_category_that_is_no_whole_number_permits_no_integer():
    assert code_of((InputRule(model="m", input="kind", values=(1.5,)),), body([0, 0], [1]))


@pytest.mark.parametrize(
    ("rule", "given", "code"),
    [
        (InputRule(model="m", input="word", texts=("a", "b")), ("a", "b"), ""),
        (InputRule(model="m", input="word", texts=("a", "b")), ("a", "c"), "schema.category"),
        (InputRule(model="m", input="word", text_bytes_max=4), ("äö",), ""),
        (InputRule(model="m", input="word", text_bytes_max=4), ("äöü",), "schema.text"),
    ],
)
def test_texts_outside_the_rules_are_refused(rule, given, code):
    assert code_of((rule,), words(*given), TEXTS) == code


@given(
    st.lists(st.floats(-10, 10, width=32), min_size=2, max_size=8).filter(
        lambda values: len(values) % 2 == 0
    ),
    st.floats(-10, 10),
    st.floats(-10, 10),
)
def test_a_range_permits_exactly_what_lies_in_it(values, one, other):
    low, high = min(one, other), max(one, other)
    rule = InputRule(model="m", input="x", min=low, max=high)
    is_within = all(low <= value <= high for value in values)
    assert (code_of((rule,), body(values, [1])) == "") is is_within


def test_rules_are_those_of_the_model_and_of_every_model():
    every = InputRule(model="*", input="x")
    assert rules_of((RANGE, every, InputRule(model="n", input="x")), "m") == (RANGE, every)


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        ((InputRule(model="No Model", input="x"),), ()),
        ((InputRule(model="m", input=""),), ()),
        ((InputRule(model="m", input="x", min=2, max=1),), ()),
        ((InputRule(model="m", input="x", values=(float("nan"),)),), ()),
        ((InputRule(model="m", input="x", rows_max=-1),), ()),
        ((), (OutputRule(model="m", noise=-1),)),
        ((), (OutputRule(model="m", noise=float("inf")),)),
        ((), (OutputRule(model="m", decimals=16),)),
        ((), (OutputRule(model="m", top=-1),)),
    ],
)
def test_a_rule_that_makes_no_sense_is_named(inputs, outputs):
    assert any(is_wrong for is_wrong, _ in rule_problems(inputs, outputs))
    assert not any(wrong for wrong, _ in rule_problems((RANGE, KIND), (OutputRule(model="*"),)))
