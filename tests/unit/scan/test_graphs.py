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


def shaped(size, *, typed):
    """A model that makes a tensor of this size out of a constant."""
    shape = helper.make_tensor("s", TensorProto.INT64, [2], [size, 4])
    if not typed:
        raw = size.to_bytes(8, "little") + (4).to_bytes(8, "little")
        shape = helper.make_tensor("s", TensorProto.INT64, [2], raw, raw=True)
    nodes = [
        helper.make_node("ConstantOfShape", ["s"], ["t"]),
        helper.make_node("Add", ["x", "t"], ["y"]),
    ]
    return models.model(nodes=nodes, weights=[shape])


def test_a_constant_larger_than_any_model_is_a_bomb():
    for typed in (True, False):
        assert look(shaped(1000, typed=typed)) == ()
        assert [each.rule for each in look(shaped(1 << 40, typed=typed))] == ["scan.graph.bomb"]


def doubling(levels):
    """Functions that each call the next one ten times."""
    model = models.model(nodes=[helper.make_node("F0", ["x"], ["y"], domain="d")], weights=[])
    model.opset_import.append(helper.make_opsetid("d", 1))
    for level in range(levels):
        name = ("Relu", "") if level == levels - 1 else (f"F{level + 1}", "d")
        nodes = [
            helper.make_node(name[0], [f"v{n}"], [f"v{n + 1}"], domain=name[1]) for n in range(10)
        ]
        imports = list(model.opset_import)
        model.functions.append(
            helper.make_function("d", f"F{level}", ["v0"], ["v10"], nodes, imports)
        )
    return model


def test_functions_of_functions_are_counted_as_they_are_inlined():
    assert look(doubling(5)) == ()
    assert [each.rule for each in look(doubling(9))] == ["scan.graph.bomb"]
