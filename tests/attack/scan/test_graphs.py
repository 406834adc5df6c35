"""ONNX files that are cut, closed wrongly or reach outside are refused; real exports pass."""

import onnx
import pytest

from modelkeep.core.verdict import Decision, Severity, judged
from modelkeep.kernels import protobuf
from modelkeep.scan.rules import findings_of
from modelkeep.scan.settings import ScanSettings
from tests.attack.scan import models

SETTINGS = ScanSettings()
# What may be missing from the end without anyone being able to tell, by number of ModelProto:
# metadata, and an import that says again what another says or that no operator uses.
OPSET_IMPORT, METADATA = 8, 14


def verdict(raw, name="model.onnx"):
    return judged(findings_of(name, raw, SETTINGS))


def invisible_cuts(raw):
    """Where a cut takes away only such fields."""
    cuts = set()
    used = {node.domain for node in onnx.load_from_string(raw).graph.node}
    found = list(protobuf.fields(memoryview(raw)))
    while found[-1].number in (OPSET_IMPORT, METADATA):
        last = found.pop()
        before = onnx.load_from_string(raw[: last.offset - 2])  # tag and length: one byte each
        if not used <= {opset.domain for opset in before.opset_import}:
            break
        cuts.add(last.offset - 2)
    return cuts


@pytest.mark.parametrize("name", ["sklearn", "metadata", "function", "two domains"])
def test_a_model_cut_at_any_byte_is_never_allowed(name):
    raw = dict(models.benign())[name].SerializeToString()
    allowed = {cut for cut in range(len(raw)) if verdict(raw[:cut]).decision is Decision.ALLOW}
    assert allowed == invisible_cuts(raw)
    assert len(allowed) == {"sklearn": 2, "metadata": 1, "function": 0, "two domains": 0}[name]


def test_a_model_cut_after_its_graph_is_refused_without_its_extension_too():
    raw = dict(models.benign())["small"].SerializeToString()
    graph = next(field for field in protobuf.fields(memoryview(raw)) if field.number == 7)
    found = verdict(raw[: graph.offset + graph.length], "model")
    assert found.decision is Decision.DENY
    assert "the file ends before its opset_import: it is cut short" in {
        finding.evidence for finding in found.findings
    }


def test_a_cut_inside_the_graph_says_so():
    raw = dict(models.benign())["small"].SerializeToString()
    (finding,) = verdict(raw[: len(raw) // 2]).findings
    assert finding.evidence == "the file ends inside its graph: it is cut short or damaged"


def test_onnxruntime_loads_a_file_cut_at_a_field_boundary_and_the_scanner_refuses_it():
    # Of two imports the second is cut off: onnxruntime takes the newest version for its domain.
    import onnxruntime  # noqa: PLC0415

    model = dict(models.benign())["two domains"]
    model.ir_version = 10
    raw = model.SerializeToString()
    last = list(protobuf.fields(memoryview(raw)))[-1]
    cut = raw[: last.offset - 2]
    onnxruntime.InferenceSession(cut, providers=["CPUExecutionProvider"])
    (finding,) = verdict(cut).findings
    assert finding.severity is Severity.HIGH
    assert finding.evidence == "uses ai.onnx.ml but has no opset_import for it: it is cut short"


@pytest.mark.parametrize(
    ("rule", "model"),
    [pytest.param(rule, model, id=name) for name, rule, model in models.wrong()],
)
def test_a_model_that_is_wrong_in_one_way_is_refused_for_it(rule, model):
    for name in ("model.onnx", "model"):
        found = verdict(model.SerializeToString(), name)
        assert found.decision is not Decision.ALLOW
        assert "scan.graph." + rule in {finding.rule for finding in found.findings}


@pytest.mark.parametrize("location", ["../../etc/passwd", "/etc/passwd", "a/../../b"])
def test_external_data_outside_the_folder_is_named(location):
    found = verdict(models.external(location).SerializeToString())
    assert found.decision is Decision.DENY
    assert location in found.findings[0].evidence
    assert "CWE-22" in found.findings[0].reference


def test_an_unknown_operator_is_held_and_a_python_operator_is_denied():
    assert verdict(models.calling("Anything").SerializeToString()).decision is Decision.HOLD
    raw = models.calling("PyOp", "ai.onnx.contrib").SerializeToString()
    assert verdict(raw).decision is Decision.DENY


def test_a_field_that_onnx_does_not_have_holds():
    raw = models.model().SerializeToString() + b"\x98\x06\x01"
    assert verdict(raw).decision is Decision.HOLD


@pytest.mark.parametrize("model", [pytest.param(model, id=name) for name, model in models.benign()])
def test_a_whole_model_is_allowed_without_a_word(model):
    for name in ("model.onnx", "model"):
        assert verdict(model.SerializeToString(), name).findings == ()
