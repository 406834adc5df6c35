"""The trace that a backdoor may leave in the last layer of a classifier, and how often it does.

After Fields, Samragh, Javaheripi, Koushanfar and Javidi, "Trojan Signatures in DNN Weights" (2021,
arXiv:2109.02836): what makes a poisoned classifier answer the attacker's class for whatever bears
his mark pushes the mean of that class's weights in the last linear layer up, away from those of
the other classes. Neither data nor a run of the model is needed. Here Grubbs' one-sided test says
how unusual the largest mean is.

It is a hint and no more. `./run verify backdoors` trains clean and poisoned classifiers and counts:
the rates below are what it measured, the findings quote them, and so few poisoned ones stand out
that it is off unless `[scan.sanity] backdoors = true`. Nothing found means nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress

from modelkeep.core.errors import IntegrityError
from modelkeep.core.verdict import Finding, Severity
from modelkeep.kernels.layer_means import class_means
from modelkeep.kernels.onnx import onnx_layout
from modelkeep.kernels.onnxmodel import OnnxGraph, OnnxNode
from modelkeep.kernels.outliers import largest_p
from modelkeep.kernels.tensors import TensorPlace
from modelkeep.scan.evidence import found

P_MAX = 0.05
# Of classifiers of digits with one and two hidden layers, half of them poisoned as BadNets are (a
# patch in 10 % of the images, 99 % of attacks succeed): how many stand out, in percent.
CLEAN_PERCENT = 4
POISONED_PERCENT = 11
# More classes are words, and a mean over few of them says nothing.
_CLASSES = range(3, 1001)
_HEAD = re.compile(r"(?:^|[./])(?:classifier|fc|head|heads|score|logits|output|out)[./0-9a-z_]*$")
_PASSES = frozenset({"Add", "Softmax", "LogSoftmax", "Sigmoid", "Identity", "ArgMax", "Cast"})


def backdoor_findings(
    name: str, view: memoryview, kind: str, places: Sequence[TensorPlace]
) -> tuple[Finding, ...]:
    """Try the last layer of a classifier; nothing where there is none that can be told."""
    layers = list(_of_graph(view, places)) if kind == "onnx" else list(_of_names(places))
    findings = []
    for place, classes_first in layers[-1:]:
        means = class_means(view, place, classes_first=classes_first)
        p = largest_p(means)
        if p < P_MAX:
            text = (
                f"class {means.index(max(means))} of {place.name[:60]!r} has weights of an unusual "
                f"mean (p = {p:.2g}): so have {CLEAN_PERCENT} % of clean and {POISONED_PERCENT} % "
                "of poisoned classifiers in our measurement; see docs/guide/preflight.md"
            )
            findings.append(found("sanity.backdoor", Severity.NOTE, name, text))
    return tuple(findings)


def _of_names(places: Sequence[TensorPlace]) -> Iterator[tuple[TensorPlace, bool]]:
    """Weights that are named as last layers are; PyTorch has the classes first."""
    for place in places:
        stem, _, last = place.name.rpartition(".")
        if last == "weight" and _HEAD.search(stem) and _is_matrix(place, place.shape[:1]):
            yield place, True


def _of_graph(
    view: memoryview, places: Sequence[TensorPlace]
) -> Iterator[tuple[TensorPlace, bool]]:
    """Weights from whose product to an output of the graph nothing is left but a form of it."""
    graph: OnnxGraph | None = None
    with suppress(IntegrityError):
        graph = onnx_layout(view).graph
    if graph is None:
        return
    by_name = {place.name: place for place in places}
    sizes = {each.name: each.shape for each in graph.initializers}
    wanted = {port.name for port in graph.outputs}
    widths = {port.shape[-1] for port in graph.outputs if len(port.shape) == 2}
    for node in reversed(graph.nodes):
        if not wanted.intersection(node.outputs):
            continue
        if node.op_type in _PASSES:
            wanted.update(node.inputs)
            widths.update(_last(sizes, node))
        elif node.op_type in ("Gemm", "MatMul"):
            place = next((by_name[each] for each in node.inputs[:2] if each in by_name), None)
            if place is not None and len(place.shape) == 2:
                yield from _oriented(place, widths | _last(sizes, node))


def _last(sizes: dict[str, tuple[int, ...]], node: OnnxNode) -> set[int]:
    """Lengths of the vectors that a node adds: one number for each class."""
    return {sizes[each][-1] for each in node.inputs if len(sizes.get(each, ())) == 1}


def _oriented(place: TensorPlace, widths: set[int]) -> Iterator[tuple[TensorPlace, bool]]:
    """Which side of a matrix is that of the classes, where only one can be."""
    rows, columns = place.shape
    if (rows in widths) != (columns in widths) and _is_matrix(
        place, (rows if rows in widths else columns,)
    ):
        yield place, rows in widths


def _is_matrix(place: TensorPlace, classes: Sequence[int]) -> bool:
    return len(place.shape) == 2 and all(each in _CLASSES for each in classes)
