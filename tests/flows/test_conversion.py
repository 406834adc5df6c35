"""Models of Keras and TensorFlow into ONNX; needs an environment of 2 GB.

`./run verify conversion` makes it and runs all of this. Estimators of scikit-learn are converted in
tests/cli/test_convert_onnx.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from text_replica import ROOT, SOURCE

pytestmark = [pytest.mark.verify("conversion"), pytest.mark.slow]


@pytest.fixture(scope="module")
def python(count):
    if not count(0, full=1):
        pytest.skip("needs an environment of 2 GB: ./run verify conversion")
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        from _vault_environments import environment  # noqa: PLC0415
    finally:
        sys.path.pop(0)
    made = environment("conversion")
    assert made is not None, "the environment cannot be made"
    return made


@pytest.fixture(scope="module")
def models(python, tmp_path_factory):
    """What the script made, and what the frameworks said of the same inputs."""
    folder = tmp_path_factory.mktemp("models")
    script = ROOT / "tests" / "support" / "framework_models.py"
    done = subprocess.run([python, script, folder], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


def convert(python, source, target, *words, wanted=0):
    done = subprocess.run(
        [python, "-m", "modelkeep", "convert", source, "-o", target, "--json", *words],
        env={"PYTHONPATH": str(SOURCE), "PATH": os.environ["PATH"]},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == wanted, done.stderr
    return json.loads(done.stdout if not wanted else done.stderr.splitlines()[-1])


@pytest.mark.parametrize(
    ("name", "outputs"),
    [
        ("image.keras", ["shares"]),
        ("two.keras", ["sum", "product"]),
        ("words.keras", ["score"]),
        ("saved", ["output_0"]),
        ("functions", ["doubled", "label"]),
        ("forest.skops", ["label", "probabilities"]),
    ],
)
def test_a_model_becomes_onnx_that_says_what_its_framework_says(
    python, models, tmp_path, name, outputs
):
    target = tmp_path / "m.onnx"
    done = convert(python, models / name, target)
    assert done["framework"] == (Path(name).suffix[1:] or "savedmodel")
    assert done["unsheltered"] == []
    session = onnxruntime.InferenceSession(target.read_bytes())
    assert [each.name for each in session.get_outputs()] == outputs
    said = np.load(models / f"{name}.npz")
    inputs = {each.name: said[f"in_{each.name}"] for each in session.get_inputs()}
    for at, found in enumerate(session.run(None, inputs)):
        assert np.allclose(found, said[f"out_{at}"], rtol=1e-4, atol=1e-5)


def test_a_lambda_is_not_loaded(python, models, tmp_path):
    error = convert(python, models / "lambda.keras", tmp_path / "m.onnx", wanted=3)
    assert error["code"] == "convert.verdict"
    assert not (tmp_path / "m.onnx").exists()


def test_what_its_framework_does_not_take_back_is_refused(python, models, tmp_path):
    raw = (models / "texts.keras").read_bytes()
    (tmp_path / "texts.keras").write_bytes(raw)
    error = convert(python, tmp_path / "texts.keras", tmp_path / "m.onnx", wanted=2)
    assert error["code"] == "conversion.inputs"
    cut = tmp_path / "cut"
    cut.mkdir()
    (cut / "saved_model.pb").write_bytes((models / "saved" / "saved_model.pb").read_bytes())
    error = convert(python, cut, tmp_path / "m.onnx", wanted=4)
    assert error["code"] == "conversion.failed"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["cut", "texts.keras"]
