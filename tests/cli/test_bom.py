"""`modelkeep bom`: what a version is, as a CycloneDX document."""

import json

import pytest
from onnx_models import two_models

CARD = """
task = "classification"
licence = "BSD-3-Clause"

[[datasets]]
name = "optical digits"
"""


@pytest.fixture
def carded(desk, tmp_path):
    """A keep with digits:1, and digits:2 that was made from it and has a card."""
    (tmp_path / "card.toml").write_text(CARD)
    first, second = two_models()
    desk.run("admit", first, "--name", "digits")
    words = ("--base", "digits:1", "--card", tmp_path / "card.toml")
    desk.run("admit", second, "--name", "digits", *words)
    return desk


def test_it_says_what_a_version_is_and_where_it_comes_from(carded, tmp_path):
    text = carded.run("bom", "digits:2").out
    model = json.loads(text)["metadata"]["component"]
    assert (model["name"], model["version"]) == ("digits", "2")
    assert model["licenses"] == [{"expression": "BSD-3-Clause"}]
    assert model["modelCard"]["modelParameters"]["task"] == "classification"
    assert model["modelCard"]["modelParameters"]["inputs"][0]["format"].startswith("pixels: FP32[")
    (ancestor,) = model["pedigree"]["ancestors"]
    assert (ancestor["name"], ancestor["version"]) == ("digits", "1")
    out = tmp_path / "bom.json"
    assert carded.json("bom", "digits", "-o", out)["size_bytes"] == len(text.encode()) - 1
    assert out.read_text() + "\n" == text
    assert carded.refusal("bom", "digits", "--output", out, wanted=2) == "file.exists"
    carded.run("bom", "digits", "--output", out, "--force", "--spec", "1.7")
    assert json.loads(out.read_text())["specVersion"] == "1.7"


def test_an_ancestor_that_is_gone_is_told_by_its_name(carded):
    carded.run("remove", "digits:1")
    model = carded.json("bom", "digits:2")["metadata"]["component"]
    (ancestor,) = model["pedigree"]["ancestors"]
    assert ancestor["version"] == "1"


def test_a_model_that_is_not_there_is_said_so(desk):
    assert desk.refusal("bom", "nobody", wanted=5) == "model.unknown"
