"""Unit tests of TensorFlow's graphs: who reads and writes files, and where the names come from."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_files import message, node

from modelkeep.core.errors import IntegrityError
from modelkeep.core.verdict import Decision, judged
from modelkeep.kernels import protobuf
from modelkeep.scan import tensorflow_ops
from modelkeep.scan.rules import findings_of
from modelkeep.scan.settings import ScanSettings
from modelkeep.scan.tensorflow_nodes import node_fields

SETTINGS = ScanSettings()
STRING = 7
OUTPUT = node("y", "MatMul", "x", "w")


def decision(raw, name="saved_model.pb"):
    return judged(findings_of(name, raw, SETTINGS)).decision


def const(name, *texts):
    """A constant of these texts; unlike `node`, also of an empty one."""
    tensor = message((1, STRING), *((8, each) for each in texts))
    return raw_node(name, "Const", value=message((8, tensor)))


def raw_node(name, operator, *inputs, **attributes):
    entries = (message((1, key), (2, value)) for key, value in attributes.items())
    return message((1, name), (2, operator), *((3, each) for each in inputs),
                   *((5, entry) for entry in entries))  # fmt: skip


def call(name, function, *inputs, operator="StatefulPartitionedCall"):
    return raw_node(name, operator, *inputs, f=message((10, message((1, function)))))


def function(name, arguments, *nodes, returns=()):
    head = message((1, name), *((2, message((1, each), (3, STRING))) for each in arguments))
    return message((1, head), *((3, each) for each in nodes),
                   *((4, message((1, "out"), (2, each))) for each in returns))  # fmt: skip


def named(tensor):
    return message((1, f"{tensor}:0"))


def mapped(key, value):
    return message((1, key), (2, value))


def model(*nodes, functions=(), saver=None, outputs=("y",), inputs=(), assets=(), exported=None,
          things=(), collection=None):  # fmt: skip
    """A SavedModel: its graph, and what stands around it."""
    library = message(*((1, each) for each in functions))
    graph = message(*((1, each) for each in nodes), (2, library))
    signature = message(*((1, mapped(each, named(each))) for each in inputs),
                        *((2, mapped(each, named(each))) for each in outputs))  # fmt: skip
    concrete = ((2, mapped(name, message(*((2, each) for each in bound))))
                for name, bound in (exported or {}).items())  # fmt: skip
    objects = message(*((1, each) for each in things), *concrete)
    meta = [(1, message((5, "2.21"))), (2, graph), (5, mapped("serving_default", signature))]
    meta += [(6, message((1, named(tensor)), (2, file))) for tensor, file in assets]
    if saver:
        meta.append((3, message((1, f"{saver[0]}:0"), (2, f"{saver[1]}:0"), (3, saver[2]))))
    if collection:
        meta.append((4, collection))
    return message((1, 1), (2, message(*meta, (7, objects))))


def saver_of_two():
    """What TensorFlow 2 writes: a function for saving, called with the saver's file."""
    save = function(
        "__inference__traced_save_9", ["file_prefix", "value"],
        raw_node("is_s3", "StaticRegexFullMatch", "file_prefix",
                 pattern=message((2, "^s3://.*"))),
        const("Const", ".part"), const("Const_1", "_temp/part"),
        node("Select", "Select", "is_s3:output:0", "Const:output:0", "Const_1:output:0"),
        node("StringJoin", "StringJoin", "file_prefix", "Select:output:0"),
        node("ShardedFilename", "ShardedFilename", "StringJoin:output:0", "shard", "shards"),
        node("SaveV2", "SaveV2", "ShardedFilename:filename:0", "names", "slices", "value"),
        node("prefixes", "Pack", "ShardedFilename:filename:0", "^SaveV2"),
        node("Merge", "MergeV2Checkpoints", "prefixes:output:0", "file_prefix"),
        node("Identity", "Identity", "file_prefix", "^Merge"), returns=["Identity:output:0"],
    )  # fmt: skip
    reader = node("RestoreV2", "RestoreV2", "file_prefix", "names", "slices")
    restore = function("__inference__traced_restore_9", ["file_prefix"], reader)
    nodes = [
        node("saver_filename", "Placeholder"),
        call("save", "__inference__traced_save_9", "saver_filename", "w"),
        call("restore", "__inference__traced_restore_9", "saver_filename"),
    ]
    return nodes, [save, restore], ("saver_filename", "save", "restore")


def saver_of_one():
    """What TensorFlow 1 writes: the saver stands in the graph."""
    nodes = [
        const("save/filename/input", "model"),
        node("save/filename", "PlaceholderWithDefault", "save/filename/input"),
        node("save/Const", "PlaceholderWithDefault", "save/filename"),
        const("save/part", "_temp_a/part"),
        node("save/StringJoin", "StringJoin", "save/Const", "save/part"),
        node("save/ShardedFilename", "ShardedFilename", "save/StringJoin"),
        node("save/SaveV2", "SaveV2", "save/ShardedFilename", "names", "slices", "w"),
        node("save/done", "Identity", "save/ShardedFilename", "^save/SaveV2"),
        node("save/prefixes", "Pack", "save/ShardedFilename", "^save/done"),
        node("save/Merge", "MergeV2Checkpoints", "save/prefixes", "save/Const"),
        node("save/Identity", "Identity", "save/Const", "^save/Merge"),
        node("save/RestoreV2", "RestoreV2", "save/Const", "names", "slices"),
        node("save/restore_all", "NoOp", "^save/RestoreV2"),
    ]
    return nodes, ("save/Const", "save/Identity", "save/restore_all")


ONE, ONE_SAVER = saver_of_one()
TWO, TWO_FUNCTIONS, TWO_SAVER = saver_of_two()
TABLE = "InitializeTableFromTextFileV2"
INITIALIZER = function("init", ["file", "table"], node("t", TABLE, "table", "file"))
OUT = "../../x"


def saves(name, *nodes, operator="SaveV2"):
    """A model that saves when its output is asked for."""
    writer = node("evil", operator, name, "names", "slices", "w")
    return model(*nodes, writer, node("y", "Identity", "x", "^evil"))


def restores(name, *nodes, functions=()):
    return model(*nodes, node("r", "RestoreV2", name, "names"), functions=functions)


DENIED = {
    **{operator: model(const("n", "x"), node("y", operator, "d", "n"))
       for operator in ("DatasetToTFRecord", "ExperimentalDatasetToTFRecord", "RecordInput",
                        "ExperimentalMatchingFilesDataset", "ExperimentalSqlDataset", "DumpTensor",
                        "SnapshotDatasetReader", "SnapshotNestedDatasetReader", "PyFunc",
                        "ListSnapshotChunksDataset", "CalibrationStatisticsSaver",
                        "DatasetFromGraph", "RpcServerRegister", "my>WriteFile")},
    **{f"{operator} of a constant": saves("n", const("n", "canary"), operator=operator)
       for operator in ("Save", "SaveV2", "SaveSlices", "MergeV2Checkpoints")},
    "a merge into a constant": model(
        node("p", "Placeholder"), const("n", "x"), node("y", "MergeV2Checkpoints", "p", "n")),
    "a name by replacement": saves("r", const("a", "@@/x"), const("b", ".."),
                                   node("r", "RegexReplace", "a", "b", "b")),
    "a name by decoding": saves("d", const("a", "Li4vLi4v"), node("d", "DecodeBase64", "a")),
    "a name through a function": model(
        const("n", OUT), call("y", "f", "n"),
        functions=[function("f", ["p"], node("s", "SaveV2", "p", "n"))]),
    "a name through two functions": model(
        const("n", OUT), call("y", "f", "n"),
        functions=[function("f", ["p"], call("c", "g", "p")),
                   function("g", ["q"], node("r", "RestoreV2", "q"))]),
    "a name out of a function": restores(
        "c", call("c", "f", operator="PartitionedCall"),
        functions=[function("f", [], const("n", "/etc/passwd"), returns=["n:output:0"])]),
    "a name out of a branch": restores(
        "c", call("c", "f", "x", operator="StatelessIf"),
        functions=[function("f", [], const("n", "/etc/passwd"), returns=["n:output:0"])]),
    "a name for a branch": model(
        const("n", OUT), call("y", "f", "x", "n", operator="If"),
        functions=[function("f", ["p"], node("r", "RestoreV2", "p"))]),
    "a name that a loop changes": model(
        const("n", "a"), call("y", "f", "n", operator="While"),
        functions=[function("f", ["p"], node("r", "RestoreV2", "p"), const("o", OUT),
                            returns=["o:output:0"])]),
    "a name for a data set's function": model(
        const("n", OUT), call("y", "f", "d", "n", operator="MapDataset"),
        functions=[function("f", ["p"], node("r", "RestoreV2", "p"))]),
    "a table's second input": model(const("n", "/etc/passwd"), node("y", TABLE, "table", "n")),
    "a vocabulary's second input": model(
        const("n", "a"), const("m", "/etc/group"), node("y", "GenerateVocabRemapping", "n", "m")),
    "a matrix of a checkpoint": model(const("n", "/x"), node("y", "LoadAndRemapMatrix", "n")),
    "a joined name's second part": restores("j", const("a", "x"), const("b", "../../y"),
                                            node("j", "StringJoin", "a", "b")),
    "a separator": restores("j", const("a", "x"),
                            raw_node("j", "StringJoin", "a", "a", separator=message((2, "/../")))),
    "a name of dots": restores("j", const("a", "."), const("b", "./x"),
                               node("j", "StringJoin", "a", "b")),
    "what is put into a name": restores("r", node("a", "Placeholder"), raw_node(
        "r", "StaticRegexReplace", "a", pattern=message((2, "a")), rewrite=message((2, "..")))),
    "a bound constant": model(
        const("n", "/etc/passwd"), OUTPUT, functions=[INITIALIZER], exported={"init": [0, 1]},
        things=[message((9, message((1, "n")))), message((10, b""))]),
    "an asset outside": model(OUTPUT, assets=[("a", "../../etc/passwd")]),
    "an asset of TensorFlow 1 outside": model(OUTPUT, collection=mapped(
        "saved_model_assets", message((5, message((1, message((2, message(
            (1, named("a")), (2, "/etc/passwd")))))))))),
    "an asset's constant in the system": model(
        const("a", "/etc/passwd"), node("y", TABLE, "t", "a"), assets=[("a", "passwd")]),
    "a vocabulary in an attribute": model(
        raw_node("y", "FixedUnigramCandidateSampler", vocab_file=message((2, "/etc/passwd")))),
    "a description in an attribute": model(
        raw_node("y", "DecodeProtoV2", "x", descriptor_source=message((2, "/x")))),
    "a cache in a file": model(const("n", "c"), node("y", "CacheDatasetV2", "d", "n", "m")),
    "the saver as an output": model(*TWO, OUTPUT, functions=TWO_FUNCTIONS, saver=TWO_SAVER,
                                    outputs=("y", "save")),
    "the saver before the output": model(
        *ONE, node("y", "Identity", "x", "^save/SaveV2"), saver=ONE_SAVER),
    "the saver before what restores": model(
        *ONE, OUTPUT, node("more", "NoOp", "^save/SaveV2"), saver=(*ONE_SAVER[:2], "more")),
    "the saver as what is run first": model(
        *ONE, OUTPUT, saver=ONE_SAVER, collection=mapped(
            "saved_model_main_op", message((1, message((1, "save/SaveV2")))))),
    "the saver's function in a signature": model(
        *TWO, OUTPUT, functions=[*TWO_FUNCTIONS, function(
            "f", ["x"], const("n", "a"), call("c", "__inference__traced_save_9", "n", "x"))],
        saver=TWO_SAVER, exported={"f": []}),
    "an address": model(raw_node("y", "PrintV2", "x", output_stream=message((2, "file://x")))),
    "a frozen graph": message((1, const("n", "x")), (1, node("s", "SaveV2", "n")),
                              (1, node("y", "MatMul", "x", "w"))),
}  # fmt: skip
HELD = {
    "a file that the caller names": model(
        node("x", "Placeholder"), node("y", "Save", "x", "names", "w"), inputs=("x",)),
    "a table that the caller names": model(
        node("x", "Placeholder"), node("y", TABLE, "table", "x"), inputs=("x",)),
    "a variable": restores("v", node("h", "VarHandleOp"), node("v", "ReadVariableOp", "h")),
    "parts": restores("j", const("a", "a"), const("b", "b/x"), node("j", "StringJoin", "a", "b")),
    "a computed name": restores("d", const("a", "Li4v"), node("d", "DecodeBase64", "a")),
    "packed texts": restores("n", raw_node("n", "Const", value=message(
        (8, message((1, STRING), (4, b"\x0b/etc/passwd")))))),
    "an attribute that the caller gives": restores(
        "n", raw_node("n", "Const", value=message((9, "v")))),
    "a name that is nowhere": restores("nowhere"),
    "a function that is nowhere": restores("c", call("c", "nowhere")),
    "no name": model(node("y", "RestoreV2")),
    "a pipeline": model(const("n", "x"), node("y", "ExperimentalCSVDataset", "n")),
    "a reader of lines": model(node("y", "TextLineReaderV2")),
    "a database": model(const("n", "x"), node("y", "ExperimentalLMDBDataset", "n")),
    "a vocabulary beside": model(
        raw_node("y", "FixedUnigramCandidateSampler", vocab_file=message((2, "words.txt")))),
    "another machine": model(call("y", "f", "t", operator="RemoteCall")),
    "nobody has looked": model(node("y", "XlaCustomCallV2", "x")),
    "tensorflow-io": model(node("y", "IO>FileInit", "x")),
    "a function in an operator's place": model(
        OUTPUT, functions=[function("MatMul", ["a"], node("r", "Relu", "a"))]),
    "a bound variable": model(OUTPUT, functions=[INITIALIZER], exported={"init": [0, 1]},
                              things=[message((7, b"")), message((10, b""))]),
}  # fmt: skip
ALLOWED = {
    "saved by TensorFlow 2": model(*TWO, OUTPUT, functions=TWO_FUNCTIONS, saver=TWO_SAVER),
    "saved by TensorFlow 1": model(*ONE, OUTPUT, saver=ONE_SAVER),
    "a second saver": model(
        *ONE, OUTPUT, const("save_1/Const", "model"), node("s", "SaveSlices", "save_1/Const")),
    "a meta graph": message((1, message((5, "1.15"))), (2, message(*((1, each) for each in ONE))),
                            (3, message((1, "save/Const:0")))),
    "an asset": model(
        node("a", "Placeholder"), node("h", "VarHandleOp"),
        node("set", "AssignVariableOp", "h", "a"),
        node("get", "ReadVariableOp", "h", "^set"), call("init", "init", "get", "table"), OUTPUT,
        functions=[INITIALIZER], assets=[("a", "words.txt")], exported={"init": [0, 1]},
        things=[message((5, b"")), message((10, b""))]),
    "the folder of an asset": model(
        node("a", "Placeholder"), raw_node("d", "StaticRegexReplace", "a", pattern=message(
            (2, "done"))), node("y", "SimpleMLLoadModelFromPathWithHandle", "h", "d"),
        assets=[("a", "done")]),
    "an asset of TensorFlow 1": model(
        const("a", "/home/me/build/words.txt"), node("init", TABLE, "t", "a"), OUTPUT,
        collection=mapped("saved_model_assets", message((5, message((1, message((2, message(
            (1, named("a")), (2, "words.txt"))))))))) ),
    "a cache in memory": model(const("n", ""), node("y", "CacheDatasetV2", "d", "n", "m")),
    "a list": model(const("n", "x"), node("y", "ListDataset", "n")),
    "a sampler of numbers": model(
        raw_node("y", "FixedUnigramCandidateSampler", vocab_file=message((2, "")))),
    "messages": model(
        raw_node("y", "DecodeProtoV2", "x", descriptor_source=message((2, "local://")))),
    "paths that are only texts": model(
        const("n", "/etc/passwd"), node("y", "StringJoin", "n", "x")),
    "a message": model(raw_node("y", "PrintV2", "x", output_stream=message((2, "stderr")))),
    "a custom operator": model(node("y", "SentencepieceOp", "x")),
}  # fmt: skip


@pytest.mark.parametrize("what", DENIED)
def test_a_graph_that_reaches_files_is_denied(what):
    assert decision(DENIED[what]) is Decision.DENY


@pytest.mark.parametrize("what", HELD)
def test_a_file_that_cannot_be_told_is_held(what):
    assert decision(HELD[what]) is Decision.HOLD


@pytest.mark.parametrize("what", ALLOWED)
def test_an_honest_graph_is_allowed(what):
    assert decision(ALLOWED[what]) is Decision.ALLOW


def test_a_custom_operator_is_named():
    findings = findings_of("saved_model.pb", ALLOWED["a custom operator"], SETTINGS)
    assert any("SentencepieceOp" in each.evidence for each in findings)


def test_a_graph_that_stands_twice_is_one():
    """Protobuf merges what stands twice: the name may stand in the other half."""
    halves = [message((1, const("n", "/etc/passwd"))), message((1, node("r", "RestoreV2", "n")))]
    meta = message((1, message((5, "2.21"))), *((2, each) for each in halves))
    assert decision(message((1, 1), (2, meta))) is Decision.DENY


def test_text_graphs_hold_readers_and_deny_writers():
    assert decision(b'node { op: "ExperimentalDatasetToTFRecord" }', "graph.pbtxt") is Decision.DENY
    assert decision(b'node { op: "TFRecordDatasetV2" }', "graph.pbtxt") is Decision.HOLD
    assert decision(b'node { op: "XlaCustomCall" }', "graph.pbtxt") is Decision.HOLD
    assert decision(b'node { op: "SaveV2" }', "graph.pbtxt") is Decision.ALLOW


def test_a_text_that_prints_into_a_file_is_denied():
    text = 'node {{ op: "PrintV2" attr {{ key: "output_stream" value {{ s: "{}" }} }} }}'
    assert decision(text.format(r'fi" "le:\x2f/x').encode(), "g.pbtxt") is Decision.DENY
    assert decision(text.format("stderr").encode(), "g.pbtxt") is Decision.ALLOW


@pytest.mark.parametrize(
    ("sizes", "wanted"),
    [([1 << 40], Decision.DENY), ([1 << 20] * 2, Decision.DENY), ([1 << 34], Decision.HOLD),
     ([1 << 20, 1 << 10], Decision.ALLOW)],
)  # fmt: skip
def test_a_tensor_that_no_memory_holds_is_denied(sizes, wanted):
    tensor = message((1, 9), *((10, each) for each in sizes))
    shape = raw_node("shape", "Const", value=message((8, tensor)))
    raw = model(shape, node("same", "Identity", "shape"), node("y", "Fill", "same", "x"))
    assert decision(raw) is wanted


def test_every_operator_is_in_one_place():
    tables = [tensorflow_ops.DANGEROUS, tensorflow_ops.NAMED_INPUTS,
              tensorflow_ops.NAMED_ATTRIBUTES, tensorflow_ops.SENDERS]  # fmt: skip
    names = [name for table in tables for name in table]
    assert len(names) == len(set(names))
    assert not [name for name in names if tensorflow_ops.use_of(name)]
    assert tensorflow_ops.use_of("MatMul") == "plain"
    assert tensorflow_ops.use_of("PartitionedCall") == "calls"


@pytest.mark.parametrize("shape", ["joins", "calls", "aliases"])
def test_a_walk_takes_a_bounded_time(shape):
    """Each of these has more ways through it than there is time."""
    if shape == "joins":
        chain = [node(f"j{n}", "StringJoin", f"j{n - 1}", f"j{n - 1}") for n in range(1, 400)]
        raw = restores("j399", const("j0", "a"), *chain)
    elif shape == "calls":
        functions = [
            function(f"f{n}", ["a"], call("x", f"f{n + 1}", "a"), call("y", f"f{n + 1}", "x"),
                     node("j", "StringJoin", "x:o:0", "y:o:0"), returns=["j:o:0"])
            for n in range(200)
        ]  # fmt: skip
        last = function("f200", ["a"], node("r", "RestoreV2", "a"), returns=["a"])
        raw = model(const("c", "x"), call("y", "f0", "c"), functions=[*functions, last])
    else:
        many = [node(f"r{n}", "RestoreV2", f"c:{n}") for n in range(300)]
        raw = model(const("c", *["x"] * 5_000), *many)
    start = time.monotonic()
    decision(raw)
    assert time.monotonic() - start < 5


NAMES = st.sampled_from(["a", "b", "c", "f", "g"])
OPERATORS = st.sampled_from(
    ["Const", "Identity", "StringJoin", "Placeholder", "SaveV2", "RestoreV2", "CacheDataset",
     "ReadVariableOp", "VarHandleOp", "AssignVariableOp", "While", "f", "g", "DecodeBase64"]
)  # fmt: skip
NODES = st.builds(
    lambda name, operator, inputs, called: call(name, called, *inputs, operator=operator),
    NAMES, OPERATORS, st.lists(NAMES, max_size=3), NAMES,
)  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(st.lists(NODES, max_size=8), st.lists(NODES, max_size=4), st.lists(NODES, max_size=4))
def test_any_graph_is_judged(main, first, second):
    functions = [function("f", ["a"], *first, returns=["b"]),
                 function("g", ["b", "c"], *second, returns=["a"])]  # fmt: skip
    raw = model(*main, functions=functions, saver=("a", "b", "c"), exported={"f": [0, 9]})
    assert isinstance(decision(raw), Decision)


ROWS = st.sampled_from([b"\n\x01a", b"\x12\x80\x00", b"\x1a\x81\x00b", b"*\x00"])
PIECES = st.one_of(st.binary(max_size=4), ROWS)


@given(st.lists(PIECES, max_size=8).map(b"".join), st.binary(max_size=3))
def test_the_fields_of_a_node_are_those_of_any_message(raw, behind):
    def read(fields):
        try:
            return [tuple(each) for each in fields(memoryview(raw + behind), 0, len(raw))]
        except IntegrityError:
            return "broken"

    def slow(view, start, stop):
        return protobuf.fields(view, start, stop, groups_pass=True)

    assert read(node_fields) == read(slow)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_any_damaged_graph_is_judged(data):
    raw = bytearray(ALLOWED[data.draw(st.sampled_from(["saved by TensorFlow 2", "an asset"]))])
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    assert isinstance(decision(bytes(raw)), Decision)
