"""Unit tests of scan.graphs: bounds and scopes that the corpus does not reach."""

from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from modelkeep.scan.graphs import graph_findings
from modelkeep.scan.settings import ScanSettings
from tests.attack.scan import models

SETTINGS = ScanSettings()
SMALL = models.model().SerializeToString()


def look(model, **bounds):
    return graph_findings("m.onnx", memoryview(model.SerializeToString()), ScanSettings(**bounds))


def nested(depth):
    """`depth` conditions inside each other; the innermost reads the outermost input."""
    node = helper.make_node("Relu", ["x"], ["y"])
    for _ in range(depth):
        graph = helper.make_graph(
            [node], "inner", [], [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
        )
        node = helper.make_node("If", ["x"], ["y"], then_branch=graph, else_branch=graph)
    return models.model(nodes=[node], weights=[])


def test_inner_graphs_see_all_that_enclose_them():
    assert look(nested(4)) == ()


def test_a_value_of_one_branch_is_not_seen_in_another():
    left = models.branch("p")
    right = helper.make_graph(
        [helper.make_node("Relu", ["p"], ["q"])],
        "right",
        [],
        [helper.make_tensor_value_info("q", TensorProto.FLOAT, None)],
    )
    node = helper.make_node("If", ["x"], ["y"], then_branch=left, else_branch=right)
    (finding,) = look(models.model(nodes=[node], weights=[]))
    assert finding.rule == "scan.graph.order"
    assert "reads p, which nothing before it produces" in finding.evidence


def test_findings_of_one_model_are_bounded():
    nodes = [helper.make_node("Relu", [f"missing{n}"], [f"t{n}"]) for n in range(50)]
    assert len(look(models.model(nodes=nodes), findings_max=7)) == 14


def test_a_grave_finding_is_not_lost_behind_light_ones():
    foreign = [helper.make_node(f"Op{n}", ["x"], [f"t{n}"], domain="ours") for n in range(9)]
    nodes = [*foreign, helper.make_node("Relu", ["missing"], ["y"])]
    findings = look(models.model(nodes=nodes, imports=(("", 20), ("ours", 1))), findings_max=3)
    assert "scan.graph.order" in {each.rule for each in findings}


def test_graphs_that_nest_without_end_are_refused_and_not_followed():
    # Depth is that of messages: an attribute and a graph for each level.
    raw = b""
    for _ in range(3000):
        raw = _message(1, _message(5, _message(6, raw))) if len(raw) < 60_000 else raw
    (finding,) = graph_findings("m.onnx", memoryview(b"\x08\x08" + _message(7, raw)), SETTINGS)
    assert finding.rule == "scan.graph.broken"
    assert "nest too deeply" in finding.evidence


def _message(number, raw):
    length, size = b"", len(raw)
    while size > 0x7F:
        length += bytes([size & 0x7F | 0x80])
        size >>= 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + raw


@given(st.integers(0, len(SMALL) - 1), st.integers(0, 255))
@settings(deadline=None, max_examples=400)
def test_no_changed_byte_makes_the_judge_raise(at, byte):
    changed = bytearray(SMALL)
    changed[at] = byte
    graph_findings("m.onnx", memoryview(bytes(changed)), SETTINGS)
