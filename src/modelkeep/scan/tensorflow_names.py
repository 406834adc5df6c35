"""Where the name of a file comes from: a walk back through a graph and its functions.

Theory of operation. From an input that names a file, every input of every node is followed back:
through nodes that pass their values on, through those that change them, into functions and out of
them to each of their callers. At the ends stand constants and things that somebody else gives.
`Origins` says which. A node is met once per way it is reached, and a graph has a budget of steps:
what is not followed to its end is `UNKNOWN`, never clean.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from modelkeep.scan.tensorflow_nodes import Graph, Node, Scope, functions_of, texts_of

_STEPS_MAX = 500_000
_STEPS_OF_ONE_MAX = 20_000
# Reading a node's attributes costs a step for so many bytes; no more are looked at than this.
_BYTES_OF_ONE_STEP = 4
_BYTES_MAX = 200_000
# Operators that give back what they got: the inputs from which their values come.
_PASSING = frozenset(
    {"Identity", "IdentityN", "Pack", "Concat", "ConcatV2", "Reshape", "ExpandDims",
     "Squeeze", "Select", "SelectV2", "Switch", "Merge", "Enter", "Exit", "RefSwitch",
     "RefIdentity", "NextIteration", "StopGradient", "Snapshot", "EnsureShape",
     "GuaranteeConst", "ShardedFilename", "ShardedFilespec", "Unpack", "Split", "SplitV",
     "StridedSlice", "Slice", "Tile", "Fill", "BroadcastTo", "Gather", "GatherV2",
     "PreventGradient", "ReadVariableOp"}
)  # fmt: skip
# Operators that make a name of parts, all of which are seen: their inputs and attributes.
_MAKING = frozenset({"StringJoin", "StaticRegexReplace", "RegexReplace"})
# Of these the first input; the others are numbers that choose.
_FIRST_ONLY = frozenset({"Switch", "RefSwitch", "ShardedFilename", "ShardedFilespec"})
_CONSTANTS = frozenset({"Const", "HostConst"})
_PLACEHOLDERS = frozenset({"Placeholder", "PlaceholderV2", "PlaceholderWithDefault"})
_VARIABLES = frozenset({"VarHandleOp", "VariableV2", "Variable"})
_DIRECT_CALLS = frozenset({"PartitionedCall", "StatefulPartitionedCall", "TPUPartitionedCall"})
_BRANCHES = frozenset({"If", "StatelessIf", "_If", "Case", "StatelessCase"})
_LOOPS = frozenset({"While", "StatelessWhile", "_While"})
_CALLS = _DIRECT_CALLS | _BRANCHES | _LOOPS
# What TensorFlow 1 calls the file of a checkpoint until somebody gives another name.
_SAVER_NODE = re.compile(r"(?:.*/)?save(?:_\d+)?/(?:Const|filename/input)")
_SAVER_DEFAULT = "model"
# What stands between a saver's operators and the end of the graph.
_SAVER_OPERATORS = frozenset(
    {"Identity", "IdentityN", "NoOp", "Pack", "ExpandDims", "Concat", "ConcatV2", "Const",
     "ShardedFilename", "ShardedFilespec", "StringJoin", "Select", "StaticRegexFullMatch",
     "Placeholder", "PlaceholderWithDefault"}
)  # fmt: skip
_SAVERS = frozenset({"Save", "SaveV2", "SaveSlices", "MergeV2Checkpoints"})


class Kind(StrEnum):
    """Who gives a name that is no constant."""

    SAVER = "saver"  # TensorFlow's own saving and restoring
    ASSET = "asset"  # the loader, from the model's folder
    FED = "fed"  # whoever runs the graph, at a place that no signature offers
    CALLER = "caller"  # the caller of a signature or of a function
    COMPUTED = "computed"  # what nodes make of something else
    UNKNOWN = "unknown"


class _Way(StrEnum):
    WHOLE = "whole"
    PART = "part"
    DEFAULT = "default"


@dataclass(slots=True)
class Origins:
    """The ends of a walk.

    Attributes:
        whole: constants that are the name.
        parts: constants that the name is made from.
        defaults: constants that are the name until somebody gives another.
        assets: constants in whose place the loader puts the name of an asset.
    """

    whole: set[str] = field(default_factory=set)
    parts: set[str] = field(default_factory=set)
    defaults: set[str] = field(default_factory=set)
    assets: set[str] = field(default_factory=set)
    kinds: set[Kind] = field(default_factory=set)


class _Step(NamedTuple):
    scope: Scope
    reference: str
    way: _Way


class Walk:
    """The walks of one graph, and their common budget."""

    __slots__ = ("_graph", "_idle", "_known", "_live", "_read_texts", "_steps", "_view")

    def __init__(self, view: memoryview, graph: Graph) -> None:
        self._view = view
        self._graph = graph
        self._steps = 0
        self._read_texts: dict[int, tuple[list[str], bool]] = {}
        self._known: dict[tuple[str, str], Origins] = {}
        self._idle: frozenset[str] | None = None
        self._live: frozenset[str] | None = None

    def origins(self, scope: Scope, reference: str) -> Origins:
        """Where the value of an input comes from."""
        key = (scope.function, reference)
        if key not in self._known:
            self._known[key] = self._walked(scope, reference)
        return self._known[key]

    def is_live(self, scope: Scope, node: Node) -> bool:
        """Whether running the model may run this node: all but what only a saver runs."""
        if scope.function:
            return scope.function in self._live_functions()
        return node.name not in self._idle_nodes()

    # ---- one walk ----

    def _walked(self, scope: Scope, reference: str) -> Origins:
        found = Origins()
        pending = [_Step(scope, reference, _Way.WHOLE)]
        seen: set[tuple[str, str, _Way]] = set()
        while pending:
            step = pending.pop()
            name = step.reference.partition(":")[0]
            key = (step.scope.function, name, step.way)
            if key in seen:
                continue
            seen.add(key)
            node = step.scope.nodes.get(name)
            if self._steps > _STEPS_MAX or len(seen) > _STEPS_OF_ONE_MAX or self._graph.is_partial:
                found.kinds.add(Kind.UNKNOWN)
                break
            before = len(pending)
            if name in step.scope.arguments:
                pending.extend(self._of_argument(step, name, found))
            elif node is not None:
                pending.extend(self._of_node(step, node, found))
            else:
                found.kinds.add(Kind.UNKNOWN)
            self._steps += 1 + len(pending) - before
        return found

    def _of_node(self, step: _Step, node: Node, found: Origins) -> Iterable[_Step]:
        scope, _, way = step
        operator = node.operator
        if operator in _CONSTANTS:
            self._constant(step, node, found)
            return ()
        if operator in _PLACEHOLDERS:
            found.kinds.add(self._placeholder(scope, node))
            return [_Step(scope, each, _Way.DEFAULT) for each in node.values]
        if operator in _VARIABLES:
            return self._of_variable(step, node, found)
        if operator in _CALLS or operator in self._graph.functions:
            return self._of_call(step, node, found)
        values = node.values
        if operator in _PASSING:
            if operator in ("Select", "SelectV2"):
                values = values[1:]
            elif operator in _FIRST_ONLY:
                values = values[:1]
            return [_Step(scope, each, way) for each in values]
        if operator not in _MAKING:
            found.kinds.add(Kind.COMPUTED if values else Kind.UNKNOWN)
        texts, is_hidden = self._texts(node)
        found.parts.update(filter(None, texts))  # a separator, what is put in
        if is_hidden:
            found.kinds.add(Kind.UNKNOWN)
        way = _Way.PART if way is _Way.WHOLE else way
        return [_Step(scope, each, way) for each in values]

    def _texts(self, node: Node, wanted: str = "") -> tuple[list[str], bool]:
        if node.offset not in self._read_texts:
            self._read(node)
            self._read_texts[node.offset] = texts_of(self._view, node, wanted)
        return self._read_texts[node.offset]

    def _read(self, node: Node) -> None:
        self._steps += min(node.length, _BYTES_MAX) // _BYTES_OF_ONE_STEP

    def _constant(self, step: _Step, node: Node, found: Origins) -> None:
        texts, is_hidden = self._texts(node, "value")
        if is_hidden:
            found.kinds.add(Kind.UNKNOWN)
        is_main = not step.scope.function
        if is_main and node.name in self._graph.assets:
            found.kinds.add(Kind.ASSET)
            found.assets.update(texts)
        elif is_main and node.name in self._graph.savers:
            found.kinds.add(Kind.SAVER)
            found.defaults.update(texts)
        elif texts == [_SAVER_DEFAULT] and is_main and _SAVER_NODE.fullmatch(node.name):
            found.kinds.add(Kind.FED)
            found.defaults.update(texts)
        else:
            places = {_Way.WHOLE: found.whole, _Way.PART: found.parts,
                      _Way.DEFAULT: found.defaults}  # fmt: skip
            places[step.way].update(texts)

    def _placeholder(self, scope: Scope, node: Node) -> Kind:
        graph = self._graph
        if scope.function:
            return Kind.UNKNOWN
        for names, kind in (
            (graph.given, Kind.CALLER),
            (graph.savers, Kind.SAVER),
            (graph.assets, Kind.ASSET),
        ):
            if node.name in names:
                return kind
        return Kind.FED

    def _of_variable(self, step: _Step, node: Node, found: Origins) -> Iterable[_Step]:
        """A variable that is given its value once, in the main graph, and that none else sees."""
        scope = step.scope
        given: list[_Step] = []
        for each in scope.nodes.values():
            if not any(_is_of(reference, node.name) for reference in each.values):
                continue
            if each.operator in ("AssignVariableOp", "Assign") and len(each.values) > 1:
                given.append(_Step(scope, each.values[1], step.way))
            elif each.operator not in ("ReadVariableOp", "VarIsInitializedOp", "Identity"):
                given = []
                break
        self._steps += len(scope.nodes) // 10
        if not given:
            found.kinds.add(Kind.UNKNOWN)
        return given

    # ---- functions ----

    def _of_call(self, step: _Step, node: Node, found: Origins) -> Iterator[_Step]:
        self._read(node)
        names, is_hidden = functions_of(self._view, node)
        if is_hidden:
            found.kinds.add(Kind.UNKNOWN)
        names = [node.operator] if node.operator in self._graph.functions else names
        for name in names:
            function = self._graph.functions.get(name)
            if function is None:
                found.kinds.add(Kind.UNKNOWN)
            else:
                yield from (_Step(function, each, step.way) for each in function.returns)
        if node.operator in _LOOPS:  # a loop that is not entered gives back what it got
            yield from (_Step(step.scope, each, step.way) for each in node.values)

    def _of_argument(self, step: _Step, name: str, found: Origins) -> Iterator[_Step]:
        graph, scope = self._graph, step.scope
        place = scope.arguments[name]
        calls = graph.calls.get(scope.function, ())
        if scope.function in graph.exported:
            yield from self._of_bound(step, place, found)
        elif not calls:
            found.kinds.add(Kind.UNKNOWN if graph.has_hidden_calls else Kind.FED)
        for caller, node in calls:
            values = node.values
            shift = 1 if node.operator in _BRANCHES else 0
            is_known = node.operator in _CALLS or node.operator == scope.function
            if is_known and scope.is_exact and place + shift < len(values):
                values = [values[place + shift]]
            else:
                found.kinds.add(Kind.UNKNOWN)
            yield from (_Step(caller, each, step.way) for each in values)
            if node.operator in _LOOPS:
                for each in functions_of(self._view, node)[0]:
                    body = graph.functions.get(each)
                    if body is not None:
                        yield from (_Step(body, value, step.way) for value in body.returns)

    def _of_bound(self, step: _Step, place: int, found: Origins) -> Iterator[_Step]:
        """An argument of a function that a SavedModel offers: its objects bind the last ones."""
        bound = self._graph.exported[step.scope.function]
        first = len(step.scope.arguments) - len(bound)
        if place < first or first < 0:
            found.kinds.add(Kind.CALLER)
            return
        thing = bound[place - first]
        if thing.kind == "constant":
            yield _Step(self._graph.main, thing.name, step.way)
        else:
            found.kinds.add(Kind.ASSET if thing.kind == "asset" else Kind.UNKNOWN)

    # ---- what only a saver runs ----

    def _live_functions(self) -> frozenset[str]:
        """Functions that the model's callers reach."""
        if self._live is not None:
            return self._live
        graph = self._graph
        live = set(graph.functions) if graph.has_hidden_calls else set(graph.exported)
        called: dict[str, list[str]] = {}
        for name, calls in graph.calls.items():
            for scope, node in calls:
                if scope.function:
                    called.setdefault(scope.function, []).append(name)
                elif node.name not in self._idle_nodes():
                    live.add(name)
        pending = list(live)
        while pending:
            for name in called.get(pending.pop(), ()):
                if name not in live:
                    live.add(name)
                    pending.append(name)
        self._live = frozenset(live)
        return self._live

    def _idle_nodes(self) -> frozenset[str]:
        """Nodes of the main graph that nothing but a saver's own nodes takes from."""
        if self._idle is None:
            self._idle = self._found_idle()
        return self._idle

    def _found_idle(self) -> frozenset[str]:
        graph = self._graph
        nodes = graph.main.nodes
        idle = {name for name, node in nodes.items()
                if name not in graph.roots and self._may_idle(node)}  # fmt: skip
        pending = [node for name, node in nodes.items() if name not in idle]
        while pending:
            for reference in pending.pop().inputs:
                name = reference.removeprefix("^").partition(":")[0]
                if name in idle:
                    idle.discard(name)
                    pending.append(nodes[name])
        return frozenset(idle)

    def _may_idle(self, node: Node) -> bool:
        operator = node.operator
        if operator in _SAVERS or operator in _DIRECT_CALLS:
            return True
        if operator not in _SAVER_OPERATORS:
            return False
        nodes = self._graph.main.nodes
        sources = (nodes.get(each.partition(":")[0]) for each in node.values)
        return all(
            source is not None and source.operator in _SAVER_OPERATORS | _SAVERS | _DIRECT_CALLS
            for source in sources
        )


def _is_of(reference: str, name: str) -> bool:
    return reference == name or reference.startswith(f"{name}:")
