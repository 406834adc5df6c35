"""TensorFlow: SavedModels and frozen graphs, whose operators read and write files."""
# ruff: noqa: E501 - tables

from __future__ import annotations

from collections.abc import Iterator, Mapping

from model_files import message

from modelkeep.core.verdict import Decision
from tests.corpus.cases import Case, Family, Harm, Trap, Traps

GRAPH = Family("tensorflow-graph", "frozen_graph", "frozen.pb")
SAVED = Family("savedmodel", "savedmodel_init", "")
_STRING, _FLOAT, _INT64, _BOOL, _RESOURCE, _INT32 = 7, 1, 9, 10, 20, 3


def cases(traps: Traps) -> Iterator[Case]:
    """All of them."""
    for name, (nodes, twin_nodes, harm) in _GRAPHS.items():
        trap = traps(f"tensorflow-graph-{name}")
        evil, twin = (_graph(*_filled(each, trap)) for each in (nodes, twin_nodes))
        is_known = name == "lines-of-a-file"
        wanted = Decision.HOLD if is_known else Decision.DENY
        yield GRAPH.case(name, evil, twin, harm=harm, wanted=wanted)
    trap = traps("tensorflow-graph-as-text")
    text = (
        'node { name: "a" op: "Const" attr { key: "dtype" value { type: DT_STRING } } '
        'attr { key: "value" value { tensor { dtype: DT_STRING tensor_shape {} '
        f'string_val: "{trap.secret}" }} }} }} }}\n'
    )
    use = '{} {{ name: "b" op: "{}" input: "a" {} }}\n'
    evil = text + use.format("node", "ReadFile", "")
    twin = text + use.format("node", "Identity", 'attr { key: "T" value { type: DT_STRING } }')
    yield GRAPH.case(
        "as-text", evil.encode(), twin.encode(), harm=Harm.READ, loader="text_graph",
        main="graph.pbtxt",
    )  # fmt: skip
    trap = traps("tensorflow-graph-prints-as-text")
    printing = text + (
        'node {{ name: "print" op: "PrintV2" input: "a" attr {{ key: "output_stream" '
        'value {{ s: "{}" }} }} attr {{ key: "end" value {{ s: "" }} }} }}\n'
        'node {{ name: "b" op: "Identity" input: "a" input: "^print" '
        'attr {{ key: "T" value {{ type: DT_STRING }} }} }}\n'
    )
    evil, twin = (
        printing.replace(text, "").format(each) for each in (f"file://{trap.new}", "stderr")
    )
    yield GRAPH.case(
        "prints-as-text", (text + evil).encode(), (text + twin).encode(), harm=Harm.WRITE,
        loader="text_graph", main="graph.pbtxt",
    )  # fmt: skip
    for name, (nodes, twin_nodes, harm) in _GRAPHS.items():
        if name not in _SAVED:
            continue
        trap = traps(f"savedmodel-{name}")
        evil, twin = (
            {"saved_model.pb": _saved(_filled(each, trap)), "variables/variables.index": b""}
            for each in (nodes, twin_nodes)
        )
        yield SAVED.case(name, evil, twin, harm=harm)
    trap = traps("savedmodel-in-a-function")
    evil, twin = (
        {"saved_model.pb": _saved(_filled(each, trap), in_function=True)}
        for each in _GRAPHS["writes-a-file"][:2]
    )
    yield SAVED.case("in-a-function", evil, twin, harm=Harm.WRITE)


_SAVED = ("reads-a-file", "writes-a-file", "saves-outside", "prints-to-a-file")
Node = tuple[str, str, tuple[str, ...], Mapping[str, bytes]]


def _const(name: str, value: str) -> Node:
    return name, "Const", (), {"dtype": _type(_STRING), "value": message((8, message(
        (1, _STRING), (2, b""), (8, value))))}  # fmt: skip


def _number(name: str, value: int, kind: int = _INT64) -> Node:
    field = 10 if kind == _INT64 else 7
    return name, "Const", (), {"dtype": _type(kind), "value": message((8, message(
        (1, kind), (2, b""), (field, value))))}  # fmt: skip


def _vector(name: str, *values: str) -> Node:
    shape = message((2, message((1, len(values)))))
    return name, "Const", (), {"dtype": _type(_STRING), "value": message((8, message(
        (1, _STRING), (2, shape), *((8, each) for each in values))))}  # fmt: skip


def _type(kind: int) -> bytes:
    return message((6, kind))


def _text(value: str) -> bytes:
    return message((2, value))


def _types(*kinds: int) -> bytes:
    return message((1, b"".join(message((6, kind)) for kind in kinds)))


def _same(name: str, source: str, kind: int = _STRING) -> Node:
    return name, "Identity", (source,), {"T": _type(kind)}


def _filled(nodes: tuple[Node, ...], trap: Trap) -> tuple[Node, ...]:
    found = []
    for name, operator, inputs, attributes in nodes:
        if operator == "Const" and name in ("SECRET", "NEW", "FOLDER"):
            value = {"SECRET": trap.secret, "NEW": trap.new, "FOLDER": f"{trap.folder}/*"}[name]
            found.append(_const(name, value))
        elif operator == "Const" and name in ("SECRETS", "NEWS"):
            found.append(_vector(name, trap.secret if name == "SECRETS" else trap.new))
        else:
            texts = {key: value(trap) if callable(value) else value
                     for key, value in attributes.items()}  # fmt: skip
            found.append((name, operator, inputs, texts))
    return tuple(found)


_SECRET, _NEW, _FOLDER = _const("SECRET", ""), _const("NEW", ""), _const("FOLDER", "")
_SECRETS, _NEWS = _vector("SECRETS", ""), _vector("NEWS", "")
_DATA = _const("data", "numbers")
_CALM = (_SECRET, _same("out", "SECRET"))
_CALM_NEW = (_NEW, _DATA, _same("out", "NEW"))
_GRAPHS: dict[str, tuple[tuple[Node, ...], tuple[Node, ...], Harm]] = {
    "reads-a-file": ((_SECRET, ("out", "ReadFile", ("SECRET",), {})), _CALM, Harm.READ),
    "writes-a-file": (
        (_NEW, _DATA, ("write", "WriteFile", ("NEW", "data"), {}),
         ("out", "Identity", ("NEW", "^write"), {"T": _type(_STRING)})),
        _CALM_NEW, Harm.WRITE,
    ),
    "lists-a-folder": ((_FOLDER, ("out", "MatchingFiles", ("FOLDER",), {})),
                       (_FOLDER, _same("out", "FOLDER")), Harm.READ),
    # `PrintV2` writes where its attribute says
    "prints-to-a-file": (
        (_NEW, _DATA, ("print", "PrintV2", ("data",), {
            "output_stream": lambda t: _text("file://" + t.new), "end": _text("\n")}),
         ("out", "Identity", ("NEW", "^print"), {"T": _type(_STRING)})),
        (_NEW, _DATA, ("print", "PrintV2", ("data",), {
            "output_stream": _text("stderr"), "end": _text("\n")}),
         ("out", "Identity", ("NEW", "^print"), {"T": _type(_STRING)})),
        Harm.WRITE,
    ),
    "restores-from-outside": (
        (_SECRET, _vector("names", "w"), _vector("slices", ""),
         ("out", "RestoreV2", ("SECRET", "names", "slices"), {"dtypes": _types(_FLOAT)})),
        _CALM, Harm.READ,
    ),
    "saves-outside": (
        (_NEW, _vector("names", "w"), _vector("slices", ""), _DATA,
         ("save", "SaveV2", ("NEW", "names", "slices", "data"), {"dtypes": _types(_STRING)}),
         ("out", "Identity", ("NEW", "^save"), {"T": _type(_STRING)})),
        _CALM_NEW, Harm.WRITE,
    ),
    "table-from-a-file": (
        (_SECRET, ("table", "HashTableV2", (), {"key_dtype": _type(_STRING), "value_dtype": _type(_INT64)}),
         ("fill", "InitializeTableFromTextFileV2", ("table", "SECRET"), {
             "key_index": message((3, (1 << 64) - 2)), "value_index": message((3, (1 << 64) - 1))}),
         ("out", "Identity", ("SECRET", "^fill"), {"T": _type(_STRING)})),
        _CALM, Harm.READ,
    ),
    # the file stands in an attribute, not in an input
    "sampler-of-a-file": (
        (_number("class", 0), ("shape", "Const", (), {"dtype": _type(_INT32), "value": message(
            (8, message((1, _INT32), (2, message((2, message((1, 2))))), (7, 1), (7, 1))))}),
         ("wide", "Reshape", ("class", "shape"), {"T": _type(_INT64), "Tshape": _type(_INT32)}),
         ("out", "FixedUnigramCandidateSampler", ("wide",), {
             "num_true": message((3, 1)), "num_sampled": message((3, 1)),
             "unique": message((5, 1)), "range_max": message((3, 3)),
             "vocab_file": lambda t: _text(t.secret), "distortion": b"%\0\0\x80?"})),
        (_number("class", 0), _same("out", "class", _INT64)), Harm.READ,
    ),
    "vocabulary-remapped": (
        (_SECRET, ("out", "GenerateVocabRemapping", ("SECRET", "SECRET"), {
            "new_vocab_offset": message((3, 0)), "num_new_vocab": message((3, 1)),
            "old_vocab_size": message((3, (1 << 64) - 1))})),
        _CALM, Harm.READ,
    ),
    "lines-of-a-file": (
        (_SECRETS, ("queue", "TextLineReaderV2", (), {}),
         ("files", "FIFOQueueV2", (), {"component_types": _types(_STRING)}),
         ("fill", "QueueEnqueueManyV2", ("files", "SECRETS"), {"Tcomponents": _types(_STRING)}),
         ("out", "ReaderReadV2", ("queue", "files", "^fill"), {})),
        (_SECRETS, _same("out", "SECRETS")), Harm.READ,
    ),
    "memory-of-a-file": (
        (("out", "ImmutableConst", (), {"dtype": _type(4), "shape": message((7, message((2, message((1, 4)))))),
            "memory_region_name": lambda t: _text(t.secret)}),),
        (_SECRET, _same("out", "SECRET")), Harm.READ,
    ),
    "debugged-into-a-file": (
        (_NEW, _DATA, ("debug", "DebugIdentityV2", ("data",), {
            "T": _type(_STRING), "tfdbg_context_id": _text("x"), "op_name": _text("y"),
            "tensor_debug_mode": message((3, 2)), "output_slot": message((3, 0)),
            "debug_urls": lambda t: message((1, message((2, "file://" + t.new)))),
            "circular_buffer_size": message((3, 0)), "tfdbg_run_id": _text("z")}),
         ("out", "Identity", ("NEW", "^debug"), {"T": _type(_STRING)})),
        _CALM_NEW, Harm.WRITE,
    ),
    "summaries-written": (
        (_NEW, ("writer", "SummaryWriter", (), {}), _number("queue", 10, _INT32),
         _number("flush", 1, _INT32), _const("suffix", ".v2"),
         ("make", "CreateSummaryFileWriter", ("writer", "NEW", "queue", "flush", "suffix"), {}),
         ("out", "Identity", ("NEW", "^make"), {"T": _type(_STRING)})),
        _CALM_NEW, Harm.WRITE,
    ),
    "fills-memory": (
        (("dims", "Const", (), {"dtype": _type(_INT64), "value": message((8, message(
            (1, _INT64), (2, message((2, message((1, 1))))), (10, 1 << 40))))}),
         ("zero", "Const", (), {"dtype": _type(_FLOAT), "value": message((8, message(
             (1, _FLOAT), (2, b""))))}),
         ("out", "Fill", ("dims", "zero"), {"T": _type(_FLOAT), "index_type": _type(_INT64)})),
        (("dims", "Const", (), {"dtype": _type(_INT64), "value": message((8, message(
            (1, _INT64), (2, message((2, message((1, 1))))), (10, 4))))}),
         ("zero", "Const", (), {"dtype": _type(_FLOAT), "value": message((8, message(
             (1, _FLOAT), (2, b""))))}),
         ("out", "Fill", ("dims", "zero"), {"T": _type(_FLOAT), "index_type": _type(_INT64)})),
        Harm.MEMORY,
    ),
}  # type: ignore[dict-item]  # fmt: skip


def _node(node: Node) -> bytes:
    name, operator, inputs, attributes = node
    pairs = ((5, message((1, key), (2, value))) for key, value in attributes.items())
    return message((1, name), (2, operator), *((3, each) for each in inputs), *pairs)


def _graph(*nodes: Node) -> bytes:
    return message(*((1, _node(each)) for each in nodes), (4, message((1, 1987))))


def _saved(nodes: tuple[Node, ...], *, in_function: bool = False) -> bytes:
    """A SavedModel of the first kind, whose `legacy_init_op` runs when it is loaded."""
    library = b""
    if in_function:
        body = [
            (each[0], each[1], tuple(_inside(one) for one in each[2]), each[3]) for each in nodes
        ]
        signature = message((1, "act"), (3, message((1, "r"), (3, _STRING))))
        returned = message((1, "r"), (2, f"{nodes[-1][0]}:output:0"))
        function = message((1, signature), *((3, _node(each)) for each in body), (4, returned))
        library = message((1, function))
        call = ("out", "StatefulPartitionedCall", (), {
            "Tin": message((1, b"")), "Tout": _types(_STRING),
            "f": message((10, message((1, "act"))))})  # fmt: skip
        nodes = (call,)
    graph = message(*((1, _node(each)) for each in nodes), (4, message((1, 1987))),
                    *([(2, library)] if library else []))  # fmt: skip
    info = message((4, "serve"), (5, "2.21.0"))
    last = message((1, nodes[-1][0] + ":0"), (2, _STRING))
    signature = message((2, message((1, "y"), (2, last))), (3, "predict"))
    signatures = message((1, "serving_default"), (2, signature))
    meta = message((1, info), (2, graph), (5, signatures))
    return message((1, 1), (2, meta))


def _inside(name: str) -> str:
    return name if name.startswith("^") else f"{name}:output:0"
