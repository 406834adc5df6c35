"""Unit tests of the parsers of model formats: GGUF, HDF5, TensorFlow, TFLite, TorchScript."""

import base64
import json
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_files import (
    attribute,
    external_link,
    gguf,
    graph,
    hdf5,
    message,
    node,
    saved_model,
    script,
    tflite,
)

from modelkeep.core.verdict import Decision, judged
from modelkeep.scan.rules import findings_of
from modelkeep.scan.settings import ScanSettings
from tests.attack.scan.corpus import zipped

SETTINGS = ScanSettings()
LAMBDA = {"class_name": "Lambda", "config": {"function": ["4wEAAAAAAAAA", None, None],
                                             "function_type": "lambda"}}  # fmt: skip
DENSE = {"class_name": "Dense", "config": {"units": 3, "activation": "relu"}}
CODE = """class M(Module):
  __parameters__ = ["w", ]
  w : Tensor
  def forward(self: __torch__.M, x: Tensor) -> Tensor:
    w = self.w
    _0 = torch.add(x, w)
    _1 = ops.quantized.add(_0, w, 1., 0)
    return torch.relu(_1)
"""


def config(*layers):
    tree = {"class_name": "Sequential", "config": {"layers": list(layers)}}
    return json.dumps(tree).encode()


def tensor(name="w", sizes=(4,), kind=0, offset=0):
    return name, sizes, kind, offset


DENIED = {
    "gguf template": gguf([("tokenizer.chat_template", "{{ ''.__class__ }}")]),
    "gguf named template": gguf([("tokenizer.chat_template.tool", "{{ x.__globals__ }}")]),
    "gguf duplicate": gguf([("a", "x"), ("a", "y")]),
    "gguf count": struct.pack("<4sL2Q", b"GGUF", 3, 1 << 60, 0),
    "gguf text": gguf([("a", (8, struct.pack("<Q", 1 << 62)))]),
    "gguf array": gguf([("a", (9, struct.pack("<LQ", 8, 1 << 61)))]),
    "gguf nested": gguf([("a", (9, struct.pack("<LQ", 9, 1) * 9))]),
    "gguf outside": gguf([], tensors=[tensor(offset=1 << 40)], data=bytes(16)),
    "gguf overflow": gguf([], tensors=[tensor(sizes=(1 << 62, 8))], data=bytes(64)),
    "gguf overlap": gguf([], tensors=[tensor(), tensor("v")], data=bytes(32)),
    "gguf alignment": gguf([("general.alignment", (4, struct.pack("<L", 0)))]),
    "hdf5 lambda": hdf5(attribute("model_config", config(DENSE, LAMBDA))),
    "hdf5 link": hdf5(external_link("w", "/etc/passwd", "/")),
    "hdf5 pickle": hdf5(attribute("state", b"cposix\nsystem\n(S'id'\ntR.")),
    "hdf5 cut": hdf5(attribute("model_config", config(DENSE)))[:-8],
    "savedmodel": saved_model(node("a", "Const"), node("w", "WriteFile", "a")),
    "savedmodel function": saved_model(node("a", "Const"), functions=[node("r", "ReadFile")]),
    "savedmodel path": saved_model(
        node("p", "Const", text="/etc/passwd"), node("r", "RestoreV2", "p")
    ),
    "savedmodel remote": saved_model(
        node("p", "Const", text="http://evil/x"), node("i", "Identity", "p"),
        node("s", "SaveV2", "i"),
    ),
    "graphdef": graph(node("a", "Placeholder"), node("p", "PyFunc")),
    "metagraph": message((1, message((5, "2"))), (2, graph(node("a", "MatchingFiles")))),
    "keras metadata": message(
        (1, message((2, 1), (3, "root"), (4, "_tf_keras_layer"), (5, json.dumps(LAMBDA))))
    ),
    "paddle": message((1, message((1, 0), (2, 0), (4, message((3, "py_func")))))),
    "tflite": tflite("FlexWriteFile"),
    "tflite cut": tflite("FlexRelu")[:-9],
    "arrow": b"ARROW1\0\0arrow.py_extension_type",
    **{f"parquet {n}": b"PAR1" + base64.b64encode(bytes(n) + b"arrow.py_extension_type..PAR1")
       for n in range(3)},
    "script save": script(CODE + "    torch.save(x, '/tmp/x')\n"),
    "script file": script(CODE.replace("torch.relu(_1)", 'ops.aten.from_file("/tmp/x")')),
    "script import": script("import os\n" + CODE),
    "script dunder": script(CODE + "    return x.__class__.__globals__\n"),
    "script broken": script(CODE + "    (((\n"),
}  # fmt: skip
HELD = {
    "tflite custom": tflite("MyOwnOperator"),
    "script custom": script(CODE.replace("ops.quantized", "ops.mycompany")),
    "hdf5 filter": hdf5((0x0B, struct.pack("<BB6xHHHH", 1, 1, 40_000, 0, 0, 0))),
    "java": b"\xac\xed\x00\x05" + bytes(20),
    "hdf5 objects": hdf5(attribute("PSEUDOATOM", b"object")),
    "rdata": b"RDX3\nX\n" + bytes(20),
    "gguf trailing": gguf([], tensors=[tensor()], data=bytes(16)) + b"trailing",
}
ALLOWED = {
    "gguf": gguf(
        [("general.name", "m"), ("tokenizer.chat_template", "{{ messages[0]['content'] }}"),
         ("tokenizer.ggml.tokens", (9, struct.pack("<LQ", 8, 1) + struct.pack("<Q", 2) + b"ab"))],
        tensors=[tensor(), tensor("v", offset=32)], data=bytes(48),
    ),
    "hdf5": hdf5(attribute("model_config", config(DENSE)), attribute("backend", b"tensorflow")),
    "savedmodel": saved_model(
        node("p", "Placeholder"), node("a", "Const", text="_temp/part"),
        node("j", "StringJoin", "p", "a"), node("s", "SaveV2", "j"), node("m", "MatMul", "p"),
    ),
    "graphdef": graph(node("a", "Placeholder"), node("r", "Relu", "a")),
    "tflite": tflite("FlexAddV2"),
    "tflite known": tflite("TFLite_Detection_PostProcess"),
    "script": script(CODE),
    "sentencepiece": message((1, b"\n\x01a\x15\0\0\0\0"), (2, b"")),
    "parquet": b"PAR1" + bytes(30) + b"PAR1",
    "matlab": b"MATLAB 5.0 MAT-file, Platform: GLNXA64" + bytes(100),
}  # fmt: skip


def decision(raw, name="m"):
    return judged(findings_of(name, raw, SETTINGS)).decision


@pytest.mark.parametrize("what", DENIED)
def test_a_hostile_file_is_denied_under_every_name(what):
    assert decision(DENIED[what]) is Decision.DENY
    assert decision(DENIED[what], "weights.bin") is Decision.DENY


@pytest.mark.parametrize("what", HELD)
def test_what_cannot_be_known_is_held(what):
    assert decision(HELD[what]) is Decision.HOLD


@pytest.mark.parametrize("what", ALLOWED)
def test_an_honest_file_is_allowed(what):
    assert decision(ALLOWED[what]) is Decision.ALLOW


def test_a_cut_graph_is_denied_by_the_name_that_claims_it():
    whole = saved_model(node("a", "Const"), node("b", "Relu"))
    assert decision(whole, "saved_model.pb") is Decision.ALLOW
    assert decision(whole[:-3], "saved_model.pb") is Decision.DENY


@pytest.mark.parametrize(
    "name", ['"WriteFile"', "'ReadFile'", '"Write" "File"', r'"Write\x46ile"', r'"\127riteFile"']
)
def test_a_graph_as_text_is_judged(name):
    text = f'node {{ name: "x" op: {name} }}'.encode()
    assert decision(text, "saved_model.pbtxt") is Decision.DENY
    assert decision(b'node { name: "x" op: "MatMul" }', "saved_model.pbtxt") is Decision.ALLOW


def test_a_layer_of_python_is_denied():
    raw = b'layer { type: "Python" python_param { module: "os" } }'
    assert decision(raw, "net.prototxt") is Decision.DENY


def test_configuration_of_old_savedmodels_is_found_among_their_objects():
    def model(*layers):
        user = message((1, "_tf_keras_sequential"), (3, config(*layers)))
        inner = message((1, message((5, "2"))), (2, graph(node("a", "Const"))),
                        (7, message((1, message((4, user))))))  # fmt: skip
        return message((1, 1), (2, inner))

    assert decision(model(LAMBDA)) is Decision.DENY
    assert decision(model(DENSE)) is Decision.ALLOW


def test_labels_behind_a_tflite_model_are_its_metadata():
    labels = zipped({"labels.txt": b"cat dog"})
    assert decision(tflite("FlexAddV2") + labels) is Decision.ALLOW
    hidden = zipped({"x.pkl": b"cposix\nsystem\n(S'id'\ntR."})
    assert decision(tflite("FlexAddV2") + hidden) is Decision.DENY


@pytest.mark.parametrize(
    ("descr", "wanted"),
    [
        ("[('a', '<i4'), ('b', '<f8', (2,))]", Decision.ALLOW),
        ("[('a', [('b', '<i4')]), ('c', '|S16')]", Decision.ALLOW),
        ("[('a', '<i4'), ('b', '<f8')]", Decision.DENY),
        (r"[('a', '\x7c\x4f')]", Decision.DENY),
        ("[('a', 'object')]", Decision.DENY),
        ("[('a', '<' 'O')]", Decision.DENY),
        ("[('a', 'anything')]", Decision.HOLD),
        ("__import__('os')", Decision.DENY),
    ],
)
def test_structured_arrays_are_held_against_their_length(descr, wanted):
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': (1,), }}".ljust(117) + "\n"
    raw = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode()
    assert decision(raw + b"cposix\nsystem\n)R."[:20].ljust(20, b"\0"), "a.npy") is wanted


def test_an_hdf5_file_behind_a_user_block_is_judged():
    raw = hdf5(external_link("w", "/etc/passwd", "/"))
    assert decision(bytes(512) + raw) is Decision.DENY


@given(
    st.sampled_from([*DENIED.values(), *HELD.values(), *ALLOWED.values()]),
    st.integers(0, 600),
    st.binary(max_size=8),
)
@settings(deadline=None, max_examples=500)
def test_no_change_of_a_file_makes_the_scanner_raise(raw, at, new):
    findings_of("m", raw[:at] + new + raw[at + len(new) :], SETTINGS)
    findings_of("m", raw[:at], SETTINGS)
