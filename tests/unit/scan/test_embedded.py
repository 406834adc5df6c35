"""Bytes in base64, templates and graphs that grow: judged as what they come to."""

import base64
import itertools
import json
import os
import pickle

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.core.verdict import Decision, judged
from modelkeep.scan.rules import findings_of
from modelkeep.scan.settings import ScanSettings


class Acts:
    def __reduce__(self):
        return os.system, ("true",)


ACTING = [pickle.dumps({"a": Acts()}, protocol) for protocol in (0, 2, 4)]
QUIET = [pickle.dumps({"a": [1, "two"]}, protocol) for protocol in (0, 2, 4)]
ENCODINGS = (base64.b64encode, base64.encodebytes, base64.urlsafe_b64encode)


def decision(name, raw):
    return judged(findings_of(name, raw, ScanSettings())).decision


@pytest.mark.parametrize("encoded", ENCODINGS)
def test_a_text_that_stands_for_a_pickle_is_judged_as_one(encoded):
    for raw in ACTING:
        assert decision("model.b64", encoded(raw)) is Decision.DENY
        text = encoded(raw).decode()
        for document in ({":serialized:": text}, {"models": ["plain", text]}):
            assert decision("data", json.dumps({"a": document}).encode()) is Decision.DENY
    for raw in QUIET:
        assert decision("model.b64", encoded(raw)) is Decision.ALLOW
        document = {":serialized:": encoded(raw).decode()}
        assert decision("data.json", json.dumps(document).encode()) is Decision.ALLOW


@given(st.binary(min_size=12, max_size=200))
def test_numbers_in_base64_say_nothing(raw):
    """Digests, keys and vectors are in many documents."""
    prefix = b"\x01\x02\xfe\xff"  # no format begins so
    document = {"vector": base64.b64encode(prefix + raw).decode(), "digest": raw.hex()}
    found = findings_of("config.json", json.dumps(document).encode(), ScanSettings())
    assert {each.rule for each in found} <= {"scan.config.plain", "scan.format.unknown"} or any(
        each.rule.startswith("scan.pickle.") for each in found
    )


LOOP = "{%% set ns = namespace(a='aaaaaaaa') %%}{%% for i in range(40) %%}%s{%% endfor %%}"


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ("{% set ns.a = ns.a ~ ns.a %}", Decision.DENY),
        ("{% set ns.a = ns.a + 'x' + ns.a %}", Decision.DENY),
        ("{% set ns.a = [ns.a, ns.a] | join('-') %}", Decision.DENY),
        ("{% set ns.a = ns.a * 2 %}", Decision.DENY),
        ("{% set b %}{{ ns.a }}{{ ns.a }}{% endset %}{% set ns.a = b %}", Decision.DENY),
        ("{% set ns.a = ns.a ~ 'x' %}", Decision.ALLOW),
        ("{% set ns.a = ns.a + i | string %}", Decision.ALLOW),
        ("{% set b = ns.a if ns.a else ns.a | trim %}", Decision.ALLOW),
    ],
)
def test_a_template_that_doubles_a_text_in_each_round_is_a_bomb(body, wanted):
    assert decision("chat.jinja", (LOOP % body).encode()) is wanted


def graph(nodes, *, initializers=()):
    port = onnx.helper.make_tensor_value_info
    made = onnx.helper.make_graph(
        nodes,
        "g",
        [port("x", onnx.TensorProto.FLOAT, ["n"])],
        [port("y", onnx.TensorProto.FLOAT, None)],
        list(initializers),
    )
    opsets = [onnx.helper.make_opsetid("", 20)]
    return onnx.helper.make_model(made, opset_imports=opsets).SerializeToString()


def whole(name, *values):
    return onnx.helper.make_tensor(name, onnx.TensorProto.INT64, [len(values)], values)


def joined(rounds, width):
    node = onnx.helper.make_node
    names = ["x", *(f"v{at}" for at in range(rounds - 1)), "y"]
    return [node("Concat", [a] * width, [b], axis=0) for a, b in itertools.pairwise(names)]


def test_a_graph_that_joins_a_tensor_with_itself_over_and_over_is_a_bomb():
    assert decision("m.onnx", graph(joined(12, 16))) is Decision.DENY
    assert decision("m.onnx", graph(joined(3, 16))) is Decision.ALLOW


def looped(rounds, *, twice):
    node, port = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    carried = ["c", "c"] if twice else ["c", "one"]
    body = onnx.helper.make_graph(
        [
            node("Identity", ["go"], ["on"]),
            node("Constant", [], ["one"], value=onnx.helper.make_tensor("k", 1, [1], [1.0])),
            node("Concat", carried, ["d"], axis=0),
        ],
        "body",
        [port("i", 7, []), port("go", 9, []), port("c", 1, ["m"])],
        [port("on", 9, []), port("d", 1, ["k"])],
    )
    return graph(
        [node("Loop", ["rounds", "", "x"], ["y"], body=body)],
        initializers=[onnx.helper.make_tensor("rounds", 7, [], [rounds])],
    )


def test_a_loop_that_doubles_what_it_carries_is_a_bomb():
    assert decision("m.onnx", looped(40, twice=True)) is Decision.DENY
    assert decision("m.onnx", looped(40, twice=False)) is Decision.ALLOW
    assert decision("m.onnx", looped(4, twice=True)) is Decision.ALLOW


@pytest.mark.parametrize(
    ("operator", "inputs", "sizes"),
    [
        ("Pad", ["x", "s"], (0, 1 << 40)),
        ("Resize", ["x", "", "", "s"], (1 << 40,)),
        ("OneHot", ["x", "s", "x"], (1 << 40,)),
        ("Tile", ["x", "s"], (1 << 40,)),
    ],
)
def test_an_operator_that_is_told_to_make_more_than_a_model_has_is_a_bomb(operator, inputs, sizes):
    node = onnx.helper.make_node(operator, inputs, ["y"])
    assert decision("m.onnx", graph([node], initializers=[whole("s", *sizes)])) is Decision.DENY
    small = whole("s", *(min(size, 8) for size in sizes))
    assert decision("m.onnx", graph([node], initializers=[small])) is Decision.ALLOW


def test_numbers_that_are_made_without_an_input_are_counted():
    node = onnx.helper.make_node
    for size, wanted in ((1 << 40, Decision.DENY), (8, Decision.ALLOW)):
        made = node("RandomNormal", [], ["y"], shape=[size])
        assert decision("m.onnx", graph([made])) is wanted
        values = (onnx.helper.make_tensor(name, 7, [], [v]) for name, v in (("a", 0), ("d", 1)))
        limit = onnx.helper.make_tensor("b", 7, [], [size])
        made = node("Range", ["a", "b", "d"], ["y"])
        assert decision("m.onnx", graph([made], initializers=[*values, limit])) is wanted
