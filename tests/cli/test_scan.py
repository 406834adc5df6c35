"""`modelkeep scan`: every file gets its line, whatever its name, and nothing in it is executed."""

import json
import os
import pickle
from urllib.parse import quote, urlsplit

import onnx
import pytest
from command import Process, modelkeep
from onnx_models import two_models

from tests.arch.source import ROOT


class Harm:
    """A pickle that makes a file when it is loaded."""

    def __init__(self, witness):
        self.witness = witness

    def __reduce__(self):
        return (os.system, (f"touch {self.witness}",))


@pytest.fixture
def downloads(tmp_path):
    folder = tmp_path / "downloads"
    (folder / "deep").mkdir(parents=True)
    (folder / "good.onnx").write_bytes(two_models()[0].read_bytes())
    (folder / "deep" / "cut.onnx").write_bytes(two_models()[0].read_bytes()[:5000])
    (folder / "deep" / "evil.pkl").write_bytes(pickle.dumps(Harm(tmp_path / "it-ran")))
    return folder


def test_a_sound_model_is_allowed():
    said = modelkeep("scan", two_models()[0])
    assert said.out.split() == ["allow", str(two_models()[0])]
    found = modelkeep("scan", two_models()[0], "--json").json
    assert found == {"path": str(two_models()[0]), "decision": "allow", "findings": []}


def test_a_folder_is_scanned_file_by_file_and_the_worst_decides(downloads, tmp_path):
    said = modelkeep("scan", downloads, wanted=3)
    decisions = {line.split()[1]: line.split()[0] for line in said.out.splitlines() if "/" in line}
    assert decisions[str(downloads / "good.onnx")] == "allow"
    assert decisions[str(downloads / "deep" / "evil.pkl")] == "deny"
    assert decisions[str(downloads / "deep" / "cut.onnx")] in ("deny", "hold")
    assert "scan.pickle" in said.out
    assert not (tmp_path / "it-ran").exists()


def test_programs_get_one_document_a_file_with_every_finding(downloads):
    found = modelkeep("scan", downloads, "--json", wanted=3).lines
    assert len(found) == 3
    (evil,) = (each for each in found if each["path"].endswith("evil.pkl"))
    assert evil["decision"] == "deny"
    assert all(
        {"rule", "severity", "subject", "evidence", "reference"} == set(each)
        for each in evil["findings"]
    )


def test_a_missing_file_is_missing():
    assert modelkeep("scan", "/nowhere", "--json", wanted=5).error["code"] == "file.missing"


def test_an_empty_file_is_not_allowed(tmp_path):
    (tmp_path / "empty.onnx").write_bytes(b"")
    assert modelkeep("scan", tmp_path / "empty.onnx", wanted=3).out.split()[0] in ("hold", "deny")


def test_a_file_that_cannot_be_read_is_a_usage_error_or_judged(tmp_path):
    path = tmp_path / "loop.onnx"
    path.symlink_to(path)
    assert modelkeep("scan", path, "--json", wanted=None).status in (2, 3, 5)


@pytest.mark.slow
def test_a_pipe_in_a_folder_does_not_hang_the_scan(tmp_path, running):
    os.mkfifo(tmp_path / "model.onnx")
    ended = running(Process("scan", tmp_path, "--json")).ended(5)
    assert ended.status in (2, 3)


@pytest.mark.parametrize("json", [[], ["--json"]], ids=["people", "programs"])
def test_a_name_that_is_not_text_is_scanned_like_any_other(downloads, json):
    with open(os.fsencode(downloads) + b"/\xff\xfe.pkl", "wb") as stream:  # noqa: PTH123 - bytes
        stream.write((downloads / "deep" / "evil.pkl").read_bytes())
    said = modelkeep("scan", downloads, *json, wanted=3)
    assert said.out.count("deny") >= 2


def test_a_name_cannot_forge_a_line_of_the_answer(tmp_path):
    (tmp_path / "x\nallow  evil.pkl\x1b[2J").write_bytes(b"\x80\x04cos\nsystem\n.")
    said = modelkeep("scan", tmp_path, wanted=3)
    assert "allow  evil.pkl" not in said.out.splitlines()
    assert "\x1b" not in said.out


def test_scan_needs_a_path():
    modelkeep("scan", wanted=2)


def test_programs_get_four_facts_of_a_finding_first(downloads):
    found = modelkeep("scan", downloads / "deep" / "evil.pkl", "--json", wanted=3).json
    assert list(found) == ["path", "decision", "findings"]
    assert list(found["findings"][0])[:4] == ["rule", "severity", "evidence", "reference"]


def test_several_files_are_counted_for_people(downloads):
    assert "3 files: 1 allowed" in modelkeep("scan", downloads, wanted=3).out


def test_a_file_that_is_named_twice_is_judged_twice(downloads):
    path = downloads / "good.onnx"
    assert "2 files: 2 allowed" in modelkeep("scan", path, path).out


def test_standard_input_and_nothing_are_refused():
    assert modelkeep("scan", "-", "--json", wanted=2).error["code"] == "scan.stdin"
    assert modelkeep("scan", "--json", wanted=2).error["code"] == "scan.nothing"


def test_the_sandbox_is_explained_measure_by_measure():
    found = modelkeep("scan", "--explain-sandbox", "--json").json
    assert {each["name"]: each["is_on"] for each in found}["system calls"]
    assert all(each["why"] for each in found)
    assert "seccomp" in modelkeep("scan", "--explain-sandbox").out


def test_an_external_file_beside_its_graph_is_no_finding(tmp_path):
    """As an admission of the folder would say, whether the folder is named or the graph alone."""
    tensor = onnx.TensorProto(name="w", data_type=onnx.TensorProto.FLOAT, dims=[3, 4])
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", "w.bin"), ("length", "48")):
        tensor.external_data.add(key=key, value=value)
    port = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [port("x", onnx.TensorProto.FLOAT, [1, 3])],
        [port("y", onnx.TensorProto.FLOAT, [1, 4])],
        [tensor],
    )
    opset = [onnx.helper.make_opsetid("", 20)]
    raw = onnx.helper.make_model(graph, opset_imports=opset).SerializeToString()
    (tmp_path / "m.onnx").write_bytes(raw)
    (tmp_path / "w.bin").write_bytes(bytes(48))
    assert "2 allowed" in modelkeep("scan", tmp_path).out
    assert modelkeep("scan", tmp_path / "m.onnx").status == 0
    (tmp_path / "w.bin").write_bytes(bytes(47))
    assert modelkeep("scan", tmp_path / "m.onnx", wanted=3).status == 3
    (tmp_path / "w.bin").unlink()
    assert modelkeep("scan", tmp_path / "m.onnx", wanted=3).status == 3


def test_sarif_holds_every_finding_with_its_rule_and_its_file(downloads, tmp_path, monkeypatch):
    """What the schema of SARIF 2.1.0 requires, and what GitHub reads."""
    target = tmp_path / "findings.sarif"
    monkeypatch.chdir(downloads)
    said = modelkeep("scan", ".", "--json", "--sarif", target, wanted=3)
    document = json.loads(target.read_text())
    assert document["version"] == "2.1.0"
    assert document["$schema"].endswith("sarif-2.1.0.json")
    (run,) = document["runs"]
    driver = run["tool"]["driver"]
    assert driver["name"] == "modelkeep"
    rules = [each["id"] for each in driver["rules"]]
    assert len(set(rules)) == len(rules)
    for rule in driver["rules"]:
        assert rule["shortDescription"]["text"]
        assert urlsplit(rule["helpUri"]).scheme == "https"
        assert rule["defaultConfiguration"]["level"] in ("note", "warning", "error")
    listed = [(each["path"], f["rule"]) for each in said.lines for f in each["findings"]]
    assert len(run["results"]) == len(listed)
    for result, (path, rule) in zip(run["results"], listed, strict=True):
        assert result["ruleId"] == rule == rules[result["ruleIndex"]]
        assert result["message"]["text"]
        assert result["level"] in ("note", "warning", "error")
        place = result["locations"][0]["physicalLocation"]
        assert place["artifactLocation"]["uri"] == quote(path)
        assert place.get("region", {"byteOffset": 0})["byteOffset"] >= 0


def test_sarif_that_cannot_be_written_is_an_error(downloads):
    words = ("scan", downloads, "--sarif", "/nowhere/x", "--json")
    assert modelkeep(*words, wanted=6).error["code"] == "file.write"


def test_the_hook_and_the_action_run_verbs_and_options_that_exist():
    hooks = (ROOT / ".pre-commit-hooks.yaml").read_text()
    action = (ROOT / "action.yml").read_text()
    assert "id: modelkeep-scan" in hooks
    assert "entry: modelkeep scan" in hooks
    assert "modelkeep scan --sarif" in action
    assert "using: composite" in action
