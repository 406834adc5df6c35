"""The corpus of pickles: all dangerous ones are refused, all twins pass, and the danger is real."""

import subprocess
import sys

import pytest

from modelkeep.core.verdict import Decision, judged
from modelkeep.kernels.tensors import safetensors_layout
from modelkeep.scan.rules import findings_of
from modelkeep.scan.settings import ScanSettings
from tests.attack.scan import corpus

SETTINGS = ScanSettings()


@pytest.fixture(scope="module")
def dangerous(tmp_path_factory):
    canaries = tmp_path_factory.mktemp("canaries")
    return canaries, corpus.dangerous_pickles(lambda name: canaries / name)


def verdict(name, raw):
    return judged(findings_of(name, raw, SETTINGS))


def test_every_dangerous_pickle_is_refused_by_the_rule_that_names_its_danger(dangerous):
    _, cases = dangerous
    passed = []
    for case in cases:
        found = verdict(case.name, case.raw)
        rules = {finding.rule for finding in found.findings}
        if found.decision is Decision.ALLOW or case.rule not in rules:
            passed.append((case.name, found))
    assert not passed


def test_a_dangerous_pickle_is_refused_under_any_name(dangerous):
    _, cases = dangerous
    passed = [
        (case.name, name)
        for case in cases
        for name in ("model", "model.bin", "notes.txt", "m.onnx", "m.safetensors")
        if verdict(name, case.raw).decision is Decision.ALLOW
    ]
    assert not passed


def test_the_natural_loader_of_every_dangerous_file_really_acts(dangerous, tmp_path):
    # One process loads them all; each must have left its own canary.
    canaries, cases = dangerous
    lines = []
    for number, case in enumerate(cases):
        path = tmp_path / f"{number}-{case.name}"
        path.write_bytes(case.raw)
        lines.append(f"{case.loader} {path}")
    subprocess.run(
        [sys.executable, "-c", corpus.LOADERS],
        input="\n".join(lines),
        text=True,
        capture_output=True,
        timeout=60,
        check=True,
    )
    idle = [case.name for case in cases if not (canaries / case.name).exists()]
    assert not idle


def test_no_twin_is_held_or_denied():
    refused = {
        name: found
        for name, raw in corpus.benign_twins()
        if (found := verdict(name, raw)).decision is not Decision.ALLOW
    }
    assert not refused


def test_the_polyglot_is_a_valid_safetensors_file():
    raw = corpus.polyglot("1")
    assert [tensor.name for tensor in safetensors_layout(memoryview(raw)).tensors] == ["a"]
