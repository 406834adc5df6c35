"""The trace that a backdoor may leave in a last layer, and how often it does."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx_models import two_models
from poisoned import classifier
from tensor_files import written

from modelkeep.kernels.layer_means import class_means
from modelkeep.kernels.outliers import largest_p
from modelkeep.kernels.tensors import TensorPlace, tensor_places
from modelkeep.scan.backdoors import (
    CLEAN_PERCENT,
    POISONED_PERCENT,
    backdoor_findings,
)
from modelkeep.scan.sanity import sanity_findings
from modelkeep.scan.sanity_settings import SanitySettings

ON = SanitySettings(when="always", backdoors=True)


def looked(path):
    raw = memoryview(path.read_bytes())
    kind = "onnx" if path.suffix == ".onnx" else "safetensors"
    return backdoor_findings(path.name, raw, kind, tensor_places(path.name, raw, kind))


def head(*, raised=0.0):
    weights = 0.1 * np.random.default_rng(3).standard_normal((10, 64)).astype(np.float32)
    weights[7] += raised
    return weights


@pytest.mark.parametrize("name", ["fc.weight", "model.classifier.2.weight", "score.weight"])
def test_a_class_that_stands_out_is_noted_with_the_rates_of_the_test(tmp_path, name):
    (finding,) = looked(written(tmp_path / "x.safetensors", {name: head(raised=0.5)}))
    assert finding.rule == "sanity.backdoor"
    assert finding.severity == "note"
    assert "class 7" in finding.evidence
    assert f"{POISONED_PERCENT} % of poisoned" in finding.evidence


def test_a_layer_like_others_and_layers_that_are_not_last_are_passed_over(tmp_path):
    assert looked(written(tmp_path / "x.safetensors", {"fc.weight": head()})) == ()
    hidden = {"encoder.dense.weight": head(raised=0.5)}
    assert looked(written(tmp_path / "y.safetensors", hidden)) == ()


def test_it_is_off_unless_it_is_asked_for(tmp_path):
    path = written(tmp_path / "x.safetensors", {"fc.weight": head(raised=0.5)})
    raw = memoryview(path.read_bytes())
    assert sanity_findings("x", raw, "safetensors", SanitySettings(when="always")) == ()
    assert [each.rule for each in sanity_findings("x", raw, "safetensors", ON)] == [
        "sanity.backdoor"
    ]


def test_the_last_layer_of_a_graph_is_found_whichever_way_it_lies(tmp_path):
    import onnx  # noqa: PLC0415 - for developers
    from onnx import helper, numpy_helper  # noqa: PLC0415 - as above

    for transposed in (0, 1):
        weights = head(raised=0.5) if transposed else head(raised=0.5).T.copy()
        graph = helper.make_graph(
            [
                helper.make_node("Gemm", ["x", "w", "b"], ["z"], transB=transposed),
                helper.make_node("Softmax", ["z"], ["y"]),
            ],
            "g",
            [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [None, 64])],
            [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [None, 10])],
            [
                numpy_helper.from_array(weights, "w"),
                numpy_helper.from_array(np.zeros(10, np.float32), "b"),
            ],
        )
        path = tmp_path / f"{transposed}.onnx"
        path.write_bytes(helper.make_model(graph).SerializeToString())
        (finding,) = looked(path)
        assert "class 7" in finding.evidence


def test_a_classifier_that_was_exported_is_read():
    assert looked(two_models()[0]) == ()


@given(st.lists(st.floats(allow_nan=True), max_size=20))
def test_a_probability_is_one_whatever_the_numbers_are(values):
    assert 0 <= largest_p(values) <= 1


def test_normal_numbers_stand_out_as_often_as_is_said():
    random = np.random.default_rng(1)
    often = np.mean([largest_p(random.standard_normal(10).tolist()) < 0.05 for _ in range(4000)])
    assert 0.04 < often < 0.06


@pytest.mark.parametrize("dtype", ["FP16", "FP32", "FP64"])
def test_means_are_of_rows_or_columns(dtype):
    kind = {"FP16": np.float16, "FP32": np.float32, "FP64": np.float64}[dtype]
    matrix = np.arange(12, dtype=kind).reshape(3, 4)
    place = TensorPlace("w", dtype, (3, 4), 0, matrix.nbytes)
    raw = memoryview(matrix.tobytes())
    assert class_means(raw, place, classes_first=True) == (1.5, 5.5, 9.5)
    assert class_means(raw, place, classes_first=False) == (4.0, 5.0, 6.0, 7.0)
    assert class_means(raw, TensorPlace("w", "RAW", (48,), 0, 48), classes_first=True) == ()


@pytest.mark.slow
@pytest.mark.verify("backdoors")
def test_the_rates_that_the_findings_quote_are_those_that_are_measured(tmp_path, count):
    many = count(1, full=100)
    rates, attacks, named = {}, [], 0
    for is_poisoned in (False, True):
        out = 0
        for seed in range(many):
            hidden = (128, 64) if seed % 2 else (64,)
            made = classifier(tmp_path, seed, is_poisoned=is_poisoned, hidden=hidden)
            assert made.accuracy > 0.9
            findings = looked(made.file)
            out += bool(findings)
            if is_poisoned:
                attacks.append(made.attacks)
                named += bool(findings) and f"class {made.target} " in findings[0].evidence
        rates[is_poisoned] = 100 * out / many
    print(  # noqa: T201 - what this check is for
        f"\nbackdoors: of {many} clean {rates[False]:.0f} % stand out, of {many} poisoned "
        f"{rates[True]:.0f} % ({named} with the attacker's class named); "
        f"{100 * np.mean(attacks):.0f} % of attacks succeed"
    )
    assert np.mean(attacks) > 0.9
    if many >= 100:  # within what 100 models of each kind can tell
        assert abs(rates[False] - CLEAN_PERCENT) <= 6
        assert abs(rates[True] - POISONED_PERCENT) <= 9
