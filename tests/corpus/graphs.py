"""ONNX files: tensors that lie elsewhere, graphs that grow beyond any machine."""
# ruff: noqa: E501 - tables

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper

from modelkeep.core.verdict import Decision
from tests.corpus.cases import SECRET, Case, Family, Harm, Traps

ONNX = Family("onnx", "onnx_run", "model.onnx")
OLD = "onnx_run_1_17"
_NODE = helper.make_node
_HUGE, _SMALL = 1 << 41, 4
_FLOATS = len(SECRET) // 4


def cases(traps: Traps) -> Iterator[Case]:
    """All of them."""
    yield from _elsewhere(traps)
    for name, (evil, twin) in _bombs().items():
        yield ONNX.case(name, evil.SerializeToString(), twin.SerializeToString(), harm=Harm.MEMORY)
    forever, short = (_loop(_kept(), trips) for trips in (1 << 62, 3))
    yield ONNX.case(
        "loop-without-end", forever.SerializeToString(), short.SerializeToString(),
        harm=Harm.TIME, wanted=Decision.HOLD,
    )  # fmt: skip


def _model(
    nodes: list[NodeProto], weights: list[TensorProto] = [], *, functions: list[object] = [],  # noqa: B006
    output: int = TensorProto.FLOAT, domain: str = "",
) -> ModelProto:  # fmt: skip
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "small", [value("x", TensorProto.FLOAT, ["n"])], [value("y", output, None)], weights
    )
    imports = [helper.make_opsetid("", 15)] + [helper.make_opsetid(domain, 1)] * bool(domain)
    return helper.make_model(graph, opset_imports=imports, ir_version=8, functions=functions)


def _external(location: str, **more: object) -> bytes:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[_FLOATS])
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **more}.items():
        tensor.external_data.add(key=key, value=str(value))
    return _model([_NODE("Add", ["x", "w"], ["y"])], [tensor]).SerializeToString()


def _elsewhere(traps: Traps) -> Iterator[Case]:
    """Weights in a file that is not the model's; onnxruntime before 1.20 reads it."""
    weights = np.ones(_FLOATS, np.float32).tobytes()
    twin = {"model.onnx": _external("weights.bin"), "weights.bin": weights}
    for name, path, beside in (
        ("climbs", lambda t: t.up(t.secret), {}),
        ("climbs-from-inside", lambda t: "sub/../" + t.up(t.secret), {"sub/x.bin": weights}),
        ("climbs-after-a-dot", lambda t: "./" + t.up(t.secret), {}),
        ("climbs-twice-slashed", lambda t: t.up(t.secret).replace("/", "//"), {}),
        ("through-proc", lambda t: t.up("/proc/self/root" + t.secret), {}),
        ("through-proc-cwd", lambda t: t.up("/proc/self/cwd/" + t.up(t.secret)), {}),
        ("through-proc-task", lambda t: t.up("/proc/self/task/../root" + t.secret), {}),
    ):
        trap = traps(f"onnx-{name}")
        evil = {"model.onnx": _external(path(trap)), "weights.bin": weights, **beside}
        yield ONNX.case(name, evil, twin | beside, harm=Harm.READ, loader=OLD)
    trap = traps("onnx-location-twice")
    tensor = _external("weights.bin")
    doubled = ModelProto.FromString(tensor)
    doubled.graph.initializer[0].external_data.add(key="location", value=trap.up(trap.secret))
    evil = {"model.onnx": doubled.SerializeToString(), "weights.bin": weights}
    yield ONNX.case("location-twice", evil, twin, harm=Harm.READ, loader=OLD)


def _ints(name: str, *values: int) -> TensorProto:
    return helper.make_tensor(name, TensorProto.INT64, [len(values)], values)


def _scalar(name: str, value: int) -> TensorProto:
    return helper.make_tensor(name, TensorProto.INT64, [], [value])


def _computed(size: int) -> ModelProto:
    """The shape is a product of two constants: no tensor of the file holds it."""
    nodes = [_NODE("Mul", ["a", "b"], ["s"]), _NODE("ConstantOfShape", ["s"], ["y"])]
    return _model(nodes, [_ints("a", size >> 1), _ints("b", 2)])


def _outer(size: int) -> ModelProto:
    nodes = [
        _NODE("Expand", ["x", "s"], ["a"]), _NODE("Reshape", ["a", "c"], ["p"]),
        _NODE("Reshape", ["a", "r"], ["q"]), _NODE("MatMul", ["p", "q"], ["y"]),
    ]  # fmt: skip
    return _model(nodes, [_ints("s", size), _ints("c", -1, 1), _ints("r", 1, -1)])


def _typed(size: int) -> ModelProto:
    """An attribute of a constant says a shape that its bytes do not have."""
    node = _NODE("Constant", [], ["s"], value=_ints("s", size))
    return _model([node, _NODE("Expand", ["x", "s"], ["y"])])


def _bombs() -> dict[str, tuple[ModelProto, ModelProto]]:
    """A graph that makes a tensor of 2^41 elements, and one that makes four."""

    def shaped(operator: str, size: int) -> ModelProto:
        inputs = ["s"] if operator == "ConstantOfShape" else ["x", "s"]
        return _model([_NODE(operator, inputs, ["y"])], [_ints("s", size)])

    def padded(size: int) -> ModelProto:
        return _model([_NODE("Pad", ["x", "s"], ["y"])], [_ints("s", 0, size)])

    def ranged(size: int) -> ModelProto:
        bounds = [_scalar("a", 0), _scalar("l", size), _scalar("d", 1)]
        node = _NODE("Range", ["a", "l", "d"], ["y"])
        return _model([node], bounds, output=TensorProto.INT64)

    def one_hot(size: int) -> ModelProto:
        values = helper.make_tensor("v", TensorProto.FLOAT, [2], [0.0, 1.0])
        node = _NODE("OneHot", ["i", "d", "v"], ["y"])
        return _model([node], [_ints("i", 0), _scalar("d", size), values])

    def resized(size: int) -> ModelProto:
        nodes = [_NODE("Reshape", ["x", "s"], ["m"]), _NODE("Resize", ["m", "", "", "z"], ["y"])]
        return _model(nodes, [_ints("s", 1, 1, 1, 1), _ints("z", 1, 1, size >> 20 or 2, 1 << 20 if size > 9 else 2)])  # fmt: skip

    def random(size: int) -> ModelProto:
        return _model([_NODE("RandomUniform", [], ["y"], shape=[size])])

    def doubled(steps: int) -> ModelProto:
        names = ["x", *(f"t{at}" for at in range(steps - 1)), "y"]
        nodes = [_NODE("Concat", [names[at]] * 16, [names[at + 1]], axis=0) for at in range(steps)]
        return _model(nodes)

    return {
        "constant-of-a-shape": (
            shaped("ConstantOfShape", _HUGE),
            shaped("ConstantOfShape", _SMALL),
        ),
        "expand": (shaped("Expand", _HUGE), shaped("Expand", _SMALL)),
        "pad": (padded(_HUGE), padded(_SMALL)),
        "range": (ranged(_HUGE), ranged(_SMALL)),
        "one-hot": (one_hot(_HUGE), one_hot(_SMALL)),
        "resize": (resized(_HUGE), resized(_SMALL)),
        "random": (random(_HUGE), random(_SMALL)),
        "doubling": (doubled(11), doubled(2)),
        "computed-shape": (_computed(_HUGE), _computed(_SMALL)),
        "outer-product": (_outer(1 << 21), _outer(_SMALL)),
        "shape-in-a-constant": (_typed(_HUGE), _typed(_SMALL)),
        "loop-that-doubles": (_loop(_doubled(), 60), _loop(_kept(), 3)),
        "functions-of-functions": (_functions(20), _functions(2)),
    }


def _body(*nodes: NodeProto) -> GraphProto:
    value = helper.make_tensor_value_info
    return helper.make_graph(
        [_NODE("Identity", ["c"], ["d"]), *nodes], "body",
        [value("i", TensorProto.INT64, []), value("c", TensorProto.BOOL, []),
         value("v", TensorProto.FLOAT, None)],
        [value("d", TensorProto.BOOL, []), value("w", TensorProto.FLOAT, None)],
    )  # fmt: skip


def _doubled() -> GraphProto:
    return _body(_NODE("Concat", ["v", "v"], ["w"], axis=0))


def _kept() -> GraphProto:
    return _body(_NODE("Identity", ["v"], ["w"]))


def _loop(body: GraphProto, trips: int) -> ModelProto:
    yes = helper.make_tensor("k", TensorProto.BOOL, [], [True])
    return _model([_NODE("Loop", ["n", "k", "x"], ["y"], body=body)], [_scalar("n", trips), yes])


def _functions(depth: int) -> ModelProto:
    """Each function joins what it is given four times, and calls the next one with that."""
    made = []
    imports = [helper.make_opsetid("", 15), helper.make_opsetid("own", 1)]
    for at in range(depth):
        nodes = [_NODE("Concat", ["a"] * 4, ["t" if at else "b"], axis=0)]
        nodes += [_NODE(f"F{at - 1}", ["t"], ["b"], domain="own")] if at else []
        made.append(helper.make_function("own", f"F{at}", ["a"], ["b"], nodes, imports))
    node = _NODE(f"F{depth - 1}", ["x"], ["y"], domain="own")
    return _model([node], functions=made, domain="own")
