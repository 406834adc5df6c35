"""ONNX models for the corpus: real exports, and models that are wrong in one way each."""

import warnings

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

WEIGHTS = np.arange(12, dtype=np.float32).reshape(3, 4)
VALUE = helper.make_tensor_value_info


def model(*, nodes=None, weights=None, name="small", imports=(("", 20),), **options):
    """A whole small model; every part can be replaced."""
    graph = helper.make_graph(
        nodes if nodes is not None else [helper.make_node("MatMul", ["x", "w"], ["y"], name="n")],
        name,
        [VALUE("x", TensorProto.FLOAT, ["batch", 3])],
        [VALUE("y", TensorProto.FLOAT, ["batch", 4])],
        weights if weights is not None else [numpy_helper.from_array(WEIGHTS, "w")],
    )
    opsets = [helper.make_opsetid(*each) for each in imports]
    return helper.make_model(graph, opset_imports=opsets, **options)


def from_sklearn():
    """What skl2onnx writes for a small classifier: a pipeline over two operator domains."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from skl2onnx import to_onnx  # noqa: PLC0415
        from sklearn.linear_model import LogisticRegression  # noqa: PLC0415

        made = np.random.default_rng(0)
        rows = made.normal(size=(40, 3)).astype(np.float32)
        fitted = LogisticRegression().fit(rows, (rows[:, 0] > 0).astype(np.int64))
        return to_onnx(fitted, rows[:1], options={"zipmap": False})


def branch(output):
    """A subgraph that reads `x` of the graph around it."""
    return helper.make_graph(
        [helper.make_node("Relu", ["x"], [output])],
        "branch-" + output,
        [],
        [VALUE(output, TensorProto.FLOAT, None)],
    )


def function(name, *nodes, domain="ours"):
    return helper.make_function(
        domain, name, ["a"], ["b"], list(nodes), [helper.make_opsetid("", 20)]
    )


def calling(op_type, domain="ours", **options):
    return model(
        nodes=[helper.make_node(op_type, ["x"], ["y"], domain=domain)],
        imports=(("", 20), (domain, 1)),
        weights=[],
        **options,
    )


def external(location):
    tensor = numpy_helper.from_array(WEIGHTS, "w")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return model(weights=[tensor])


def changed(change, **options):
    made = model(**options)
    change(made)
    return made


def wrong():
    """Name of the case, the rule that must name it, the model."""
    yield from _not_whole()
    yield from _not_sized()
    yield from _not_closed()


def _not_whole():
    yield "no ir_version", "ir_version", changed(lambda m: m.ClearField("ir_version"))
    yield "future ir_version", "ir_version", changed(lambda m: setattr(m, "ir_version", 999))
    yield "no opset", "opset", changed(lambda m: m.ClearField("opset_import"))
    yield (
        "opset without version",
        "opset",
        changed(lambda m: m.opset_import[0].ClearField("version")),
    )
    yield "two versions", "opset", changed(lambda m: m.opset_import.add(version=7))
    yield (
        "domain without opset",
        "opset",
        changed(lambda m: setattr(m.graph.node[0], "domain", "ai.onnx.ml")),
    )
    yield "no graph name", "graph", changed(lambda m: m.graph.ClearField("name"))
    yield "no nodes", "graph", changed(lambda m: m.graph.ClearField("node"))
    yield "no outputs", "graph", changed(lambda m: m.graph.ClearField("output"))
    yield (
        "output never produced",
        "output",
        changed(lambda m: setattr(m.graph.output[0], "name", "z")),
    )
    yield "no operator", "node", changed(lambda m: m.graph.node[0].ClearField("op_type"))


def _not_closed():
    relu = helper.make_node("Relu", ["x"], ["t"])
    add = helper.make_node("Add", ["a", "a"], ["b"])
    twice = helper.make_node("Twice", ["a"], ["b"], domain="ours")
    weight = numpy_helper.from_array(WEIGHTS, "w")
    yield "input never produced", "order", changed(lambda m: m.graph.ClearField("initializer"))
    yield (
        "wrong order",
        "order",
        model(nodes=[helper.make_node("Relu", ["t"], ["y"]), relu], weights=[]),
    )
    yield (
        "cycle",
        "order",
        model(
            nodes=[
                helper.make_node("Add", ["x", "u"], ["y"]),
                helper.make_node("Relu", ["y"], ["u"]),
            ]
        ),
    )
    yield "produced twice", "duplicate", model(nodes=[relu, relu], weights=[])
    yield "two of one name", "duplicate", model(weights=[weight, weight])
    yield from _by_function(twice, add)


def _not_sized():
    yield (
        "bytes cut off a tensor",
        "initializer",
        changed(lambda m: setattr(m.graph.initializer[0], "raw_data", WEIGHTS.tobytes()[:-1])),
    )
    yield (
        "shape too large",
        "initializer",
        changed(lambda m: m.graph.initializer[0].dims.__setitem__(0, 1 << 40)),
    )
    yield "no data", "initializer", changed(lambda m: m.graph.initializer[0].ClearField("raw_data"))
    yield (
        "two kinds of data",
        "initializer",
        changed(lambda m: m.graph.initializer[0].float_data.append(1.0)),
    )
    yield (
        "unknown type",
        "initializer",
        changed(lambda m: setattr(m.graph.initializer[0], "data_type", 99)),
    )
    for location in ("../../etc/passwd", "/etc/passwd", "a/../../b", "C:\\x", "weights.bin", ""):
        yield f"external {location}", "external", external(location)
    yield "foreign operator", "domain", calling("Anything")
    yield "python operator", "operator", calling("PyOp", "ai.onnx.contrib")
    yield "compiled program", "operator", calling("EPContext", "com.microsoft")


def _by_function(twice, add):
    yield "recursion", "function", calling("Twice", functions=[function("Twice", twice)])
    yield (
        "function not closed",
        "order",
        calling("Twice", functions=[function("Twice", helper.make_node("Add", ["a", "z"], ["b"]))]),
    )
    yield (
        "function for a standard operator",
        "function",
        model(functions=[function("MatMul", add, domain="")]),
    )
    yield (
        "branch not closed",
        "order",
        model(
            nodes=[
                helper.make_node(
                    "If", ["x"], ["y"], then_branch=branch("p"), else_branch=_leaking()
                )
            ]
        ),
    )


def _leaking():
    return helper.make_graph(
        [helper.make_node("Relu", ["from nowhere"], ["q"])],
        "leaking",
        [],
        [VALUE("q", TensorProto.FLOAT, None)],
    )


def benign():
    """Models of the same shapes that are right."""
    add = helper.make_node("Add", ["a", "a"], ["b"])
    yield "small", model()
    yield "sklearn", from_sklearn()
    yield "metadata", changed(lambda m: onnx.helper.set_model_props(m, {"author": "us"}))
    yield "function", calling("Twice", functions=[function("Twice", add)])
    yield (
        "two domains",
        model(
            nodes=[
                helper.make_node("Normalizer", ["x"], ["t"], domain="ai.onnx.ml"),
                helper.make_node("MatMul", ["t", "w"], ["y"]),
            ],
            imports=(("", 20), ("ai.onnx.ml", 1)),
        ),
    )
    yield "microsoft operator", calling("Gelu", "com.microsoft")
    yield (
        "branches",
        model(
            nodes=[
                helper.make_node(
                    "If", ["x"], ["y"], then_branch=branch("p"), else_branch=branch("q")
                )
            ]
        ),
    )
    yield (
        "optional inputs",
        model(
            nodes=[helper.make_node("Clip", ["x", "", "w"], ["y", ""])],
            weights=[numpy_helper.from_array(np.float32(6), "w")],
        ),
    )
    for kind, values in (
        (TensorProto.FLOAT, [1.0, 2.0]),
        (TensorProto.DOUBLE, [1.0, 2.0]),
        (TensorProto.INT64, [1, -2]),
        (TensorProto.INT8, [1, -2]),
        (TensorProto.UINT64, [1, 1 << 63]),
        (TensorProto.BOOL, [True, False]),
        (TensorProto.FLOAT16, [1.0, 2.0]),
        (TensorProto.COMPLEX64, [1j, 2j]),
        (TensorProto.STRING, ["a", "b"]),
        (TensorProto.INT4, [1, -2]),
    ):
        tensor = helper.make_tensor("w", kind, [2], values)
        yield f"typed {kind}", model(weights=[tensor], nodes=[_either()])
    empty = numpy_helper.from_array(np.zeros((0, 4), np.float32), "w")
    empty.ClearField("raw_data")
    yield "empty tensor", model(weights=[empty], nodes=[_either()])
    yield "ai.onnx by name", model(imports=(("ai.onnx", 20),))


def _either():
    return helper.make_node("Sum", ["x", "w"], ["y"])
