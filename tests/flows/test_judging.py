"""What is forgiven, what is added and what an approval covers when a model is judged as a whole."""

import onnx

from modelkeep.core.verdict import Decision, Finding, Severity, judged
from modelkeep.flows.admissions import content_digest, hold_of
from modelkeep.flows.scanning import judged_file
from modelkeep.scan.settings import ScanSettings
from modelkeep.vault.streams import Plain

SIZES = {"m.onnx": 1, "w.bin": 48}


def graph(*nodes, domain=""):
    tensor = onnx.TensorProto(name="w", data_type=onnx.TensorProto.FLOAT, dims=[3, 4])
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", "w.bin"), ("length", "48")):
        tensor.external_data.add(key=key, value=value)
    port = onnx.helper.make_tensor_value_info
    made = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "w"], ["y"]), *nodes],
        "g",
        [port("x", onnx.TensorProto.FLOAT, [1, 3])],
        [port("y", onnx.TensorProto.FLOAT, [1, 4])],
        [tensor],
    )
    opsets = [onnx.helper.make_opsetid("", 20)]
    if domain:
        opsets.append(onnx.helper.make_opsetid(domain, 1))
    return onnx.helper.make_model(made, opset_imports=opsets).SerializeToString()


def decision(raw):
    return judged(judged_file("m.onnx", memoryview(raw), SIZES, ScanSettings()).findings).decision


def test_a_file_beside_a_graph_excuses_its_tensors_and_nothing_else():
    assert decision(graph()) is Decision.ALLOW
    domain = "ai.onnx.contrib"
    for place, wanted in (("/etc/passwd", Decision.DENY), ("words.txt", Decision.ALLOW)):
        reads = onnx.helper.make_node(
            "SentencepieceTokenizer", ["x"], ["z"], domain=domain, model_file=place
        )
        assert decision(graph(reads, domain=domain)) is wanted


def plain_of(path, raw):
    return Plain(path, len(raw), lambda _at, _into: None, memoryview(raw))


def held(*findings):
    return judged([
        Finding(rule=rule, severity=Severity.MEDIUM, subject="m", evidence=evidence, reference="")
        for rule, evidence in findings
    ])  # fmt: skip


def test_an_approval_is_of_what_its_giver_saw():
    digest = content_digest([plain_of("m", b"model")], (), {})
    one = hold_of("k", "m", digest, held(("dependencies.vulnerable", "CVE-1")))
    assert one == hold_of("k", "m", digest, held(("dependencies.vulnerable", "CVE-1")))
    assert one != hold_of("k", "m", digest, held(("dependencies.vulnerable", "CVE-2")))
    # A reason that ages by the day is approved by its rule.
    aged = [held(("dependencies.unassessed", f"{days} days old")) for days in (8, 9)]
    assert len({hold_of("k", "m", digest, each) for each in aged}) == 1


def test_links_and_modes_belong_to_the_content_that_is_approved():
    file = plain_of("m", b"model")
    ways = (
        content_digest([file], (), {}),
        content_digest([file], (("l", "m"),), {}),
        content_digest([file], (("l", "/etc/passwd"),), {}),
        content_digest([file], (), {"m": 0o755}),
    )
    assert len(set(ways)) == len(ways)
