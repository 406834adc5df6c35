"""`modelkeep admit` looks at a model's numbers, its declared form and its first answer."""

import json

import numpy as np
import pytest
from small_onnx import small_canary, small_onnx
from tensor_files import written

from modelkeep.core.record import to_json


@pytest.fixture
def model(tmp_path):
    return small_onnx(tmp_path / "small.onnx")


def refused(desk):
    return [each["facts"]["rules"] for each in desk.entries("model.refused")]


def test_weights_that_are_no_numbers_are_held_and_can_be_approved(desk, tmp_path):
    weights = {"w": np.full((32, 32), np.nan, np.float32)}
    weights["w"][0, 0] = 1
    file = written(tmp_path / "w.safetensors", weights)
    assert desk.refusal("admit", file, "--name", "w", wanted=3) == "verdict.hold"
    assert refused(desk)[0] == ["sanity.nan"]
    desk.run("approve", "w", "--why", "sparse by design", "--until", "2999-01-31")
    assert desk.json("admit", file, "--name", "w")["version"] == 1


def test_the_operator_may_decide_otherwise(desk, tmp_path):
    desk.config.write_text(desk.config.read_text() + '\n[scan.sanity]\nnot_finite = "note"\n')
    file = written(tmp_path / "w.safetensors", {"w": np.full((32, 32), np.nan, np.float32)})
    assert desk.json("admit", file, "--name", "w")["verdict"]["decision"] == "allow"


@pytest.mark.slow
def test_a_model_that_answers_otherwise_than_its_owner_expects_is_denied(desk, model, tmp_path):
    canary = tmp_path / "canary.json"
    canary.write_bytes(to_json(small_canary(added=2.0)))
    words = ("admit", model, "--name", "small", "--canary", canary)
    assert desk.refusal(*words, wanted=3) == "verdict.deny"
    assert refused(desk)[0] == ["sanity.canary.answer"]
    canary.write_bytes(to_json(small_canary()))
    assert desk.json(*words)["version"] == 1


def test_a_model_of_another_form_than_is_declared_is_denied(desk, model, tmp_path):
    declared = tmp_path / "schema.json"
    words = ("admit", model, "--name", "small", "--schema", declared)
    for wrong in (
        {"inputs": [{"name": "x", "dtype": "FP32", "shape": [-1, 5]}]},
        {"tensors": [{"name": "w", "dtype": "FP16", "shape": [4]}]},
        {"parameters": 5},
    ):
        declared.write_text(json.dumps(wrong))
        assert desk.refusal(*words, wanted=3) == "verdict.deny"
    declared.write_text('{"words": 1}')
    assert desk.refusal(*words, wanted=2) == "schema.declared"
    declared.write_text('{"parameters": 4}')
    assert desk.json(*words)["version"] == 1
