"""Marks of models that were really trained: what they cost and outlast, how they are kept."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pytest
from command import CHEAP, PASSPHRASE
from marked_models import arrays, in_8_bits, marked, npz, pruned, read, safetensors, tensors
from onnx_models import two_models
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier
from threadpoolctl import threadpool_limits

from modelkeep.core.artifact import Canary
from modelkeep.core.errors import MissingError, UsageError
from modelkeep.kernels.tails import binomial_tail, randomised_tail
from modelkeep.kernels.trigger_mark import chosen_parameters as chosen_triggers
from modelkeep.kernels.trigger_mark import matches_in, trigger_set
from modelkeep.kernels.weight_mark import chosen_parameters, hits_in
from modelkeep.sdk.keep import Keep
from modelkeep.sdk.watermarks import Watermarks

SEED = bytes(range(32))
PIXELS, DIGITS = load_digits(return_X_y=True)
ORDER = np.random.default_rng(0).permutation(len(DIGITS))  # as they come, writers are in a row
PIXELS, DIGITS = (PIXELS[ORDER] / 16).astype(np.float32), DIGITS[ORDER]
OWN, TUNING, TEST = slice(0, 1000), slice(1000, 1300), slice(1300, None)


def fitted(pixels, digits, *, seed=0, hidden=128, epochs=60):
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore")  # it stops before it converged
        model = MLPClassifier((hidden,), max_iter=epochs, random_state=seed)
        return model.fit(pixels, digits)


def tuned(model):
    """Trained further, on other data."""
    other = copy.deepcopy(model).set_params(warm_start=True, max_iter=10)
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore")
        return other.fit(PIXELS[TUNING], DIGITS[TUNING])


def weights(model):
    return {f"w{at}": each.astype(np.float32) for at, each in enumerate(model.coefs_)}


def with_weights(model, found):
    other = copy.deepcopy(model)
    other.coefs_ = [found[f"w{at}"].astype(each.dtype) for at, each in enumerate(model.coefs_)]
    return other


def dequantised(model):
    ints = in_8_bits(weights(model))
    scales = {name: np.abs(each).max() / 127 for name, each in weights(model).items()}
    return with_weights(model, {name: each * scales[name] for name, each in ints.items()})


def thieves(model):
    """The treatments, alone and together."""
    cut = with_weights(model, pruned(weights(model)))
    further = tuned(model)
    both = with_weights(further, pruned(weights(further)))
    return {
        "tuned": further,
        "pruned": cut,
        "8 bits": dequantised(model),
        "all three": dequantised(both),
    }


def score(model):
    return model.score(PIXELS[TEST], DIGITS[TEST])


@pytest.mark.verify("watermarks")
def test_a_weight_mark_outlasts_what_thieves_do_and_costs_no_accuracy(count):
    lost = []
    for number in range(count(1, full=10)):
        seed = number.to_bytes(32, "big")
        model = fitted(PIXELS[OWN], DIGITS[OWN], seed=number)
        raw = safetensors(weights(model))
        parameters = chosen_parameters(tensors(raw))
        ours = with_weights(model, read(marked(raw, seed, parameters)[0]))
        lost.append(score(model) - score(ours))
        assert hits_in(tensors(raw), seed, parameters) < 0.8 * parameters.bits
        for name, suspect in thieves(ours).items():
            hits = hits_in(tensors(npz(weights(suspect))), seed, parameters)
            assert binomial_tail(hits, parameters.bits, 0.5) < 1e-12, name
    assert np.mean(lost) < 0.005 + 0.01 * (len(lost) < 5)  # one model: 497 test images


@pytest.mark.verify("watermarks")
def test_a_trigger_set_outlasts_what_thieves_do_and_costs_no_accuracy(count):
    lost = []
    for number in range(count(1, full=10)):
        seed = number.to_bytes(32, "big")
        triggers = trigger_set(seed, PIXELS[OWN], 10, count=50)
        parameters = chosen_triggers(triggers.inputs, classes=10)
        plain = fitted(PIXELS[OWN], DIGITS[OWN], seed=number, epochs=80)
        ours = fitted(
            np.vstack([PIXELS[OWN], triggers.inputs]),
            np.concatenate([DIGITS[OWN], triggers.labels]),
            seed=number,
            epochs=80,
        )
        lost.append(score(plain) - score(ours))
        assert binomial_tail(
            matches_in(plain.predict(triggers.inputs), seed, parameters), 50, 0.1
        ) > (1e-4)
        for name, suspect in thieves(ours).items():
            hits = matches_in(suspect.predict(triggers.inputs), seed, parameters)
            assert binomial_tail(hits, 50, 0.1) < 1e-6, name
    assert np.mean(lost) < 0.005 + 0.01 * (len(lost) < 5)


@pytest.mark.verify("watermarks")
def test_p_values_of_models_of_others_are_uniform(count):
    """One-sided Kolmogorov-Smirnov, as the bar asks; each model under a seed of its own."""
    number = count(12, full=100)
    triggers = trigger_set(SEED, PIXELS[OWN], 10)
    bound = chosen_triggers(triggers.inputs, classes=10)
    draws = np.random.default_rng(0).random((2, number))
    values = []
    for at in range(number):
        model = fitted(PIXELS[OWN], DIGITS[OWN], seed=at, hidden=64, epochs=5)
        seed = (1000 + at).to_bytes(32, "big")
        found = tensors(safetensors(weights(model)))
        parameters = chosen_parameters(found)
        hits = hits_in(found, seed, parameters)
        matches = matches_in(model.predict(triggers.inputs), seed, bound)
        values.append(
            [
                randomised_tail(hits, parameters.bits, 0.5, draws[0, at]),
                randomised_tail(matches, 100, 0.1, draws[1, at]),
            ]
        )
    for column in np.array(values).T:
        ordered = np.sort(column)
        excess = (np.arange(1, number + 1) / number - ordered).max()
        assert np.exp(-2 * number * excess**2) > 0.01
        assert ordered[0] > 1e-6


@pytest.fixture
def keep(tmp_path):
    with Keep.create(tmp_path / "keep", passphrase=PASSPHRASE, port=0, argon2=CHEAP) as made:
        yield made


def test_a_model_is_marked_as_it_is_admitted_and_no_plaintext_is_written(keep, tmp_path):
    path = tmp_path / "m.safetensors"
    path.write_bytes(safetensors(arrays()))
    marks = Watermarks(keep)
    marks.new_weights("w1", path)
    done = keep.admit(path, name="m", marks=["w1"])
    assert keep.manifest("m:1").marks == ("w1",)
    keep.restore("m:1", tmp_path / "restored.safetensors")
    marks.embed("w1", path, tmp_path / "marked.safetensors")
    wanted = (tmp_path / "marked.safetensors").read_bytes()
    assert (tmp_path / "restored.safetensors").read_bytes() == wanted != safetensors(arrays())
    assert marks.verify("w1", tmp_path / "restored.safetensors").hits == 64
    assert not keep.admit(path, name="m", marks=["w1"]).is_new  # the same mark makes the same bytes
    path.write_bytes(wanted)
    assert not keep.admit(path, name="m", marks=["w1"]).is_new  # nor does one that has it already
    assert done.is_new
    kinds = [entry.kind for _, entry in keep.ledger.entries()]
    assert kinds.index("watermark.registered") < kinds.index("model.admitted")


def test_a_mark_that_is_not_registered_is_not_named(keep, tmp_path):
    path = tmp_path / "m.safetensors"
    path.write_bytes(safetensors(arrays()))
    with pytest.raises(MissingError, match=r"mark\.unknown"):
        keep.admit(path, name="m", marks=["w1"])
    marks = Watermarks(keep)
    for mark in ("w1", "w2"):
        marks.new_weights(mark, path)
    with pytest.raises(UsageError, match=r"mark\.several"):
        keep.admit(path, name="m", marks=["w1", "w2"])


def test_a_canary_is_made_with_the_marked_model(keep, tmp_path):
    path = tmp_path / "m.safetensors"
    path.write_bytes(safetensors(arrays()))
    Watermarks(keep).new_weights("w1", path)
    with pytest.raises(UsageError, match=r"mark\.canary"):
        keep.admit(path, name="m", marks=["w1"], canary=Canary(inputs=(), outputs=()))
    assert keep.models() == ()


def test_an_onnx_model_is_marked_scanned_and_asked(keep, tmp_path):
    path, triggers = two_models()[0], tmp_path / "t.npz"
    np.save(tmp_path / "x.npy", PIXELS[OWN] * 16)
    marks = Watermarks(keep)
    marks.new_weights("w1", path)
    marks.embed("w1", path, tmp_path / "marked.onnx")
    assert marks.verify("w1", tmp_path / "marked.onnx").is_found
    marks.new_triggers("t1", tmp_path / "x.npy", triggers, classes=10)
    found = marks.verify("t1", tmp_path / "marked.onnx", triggers=triggers)
    assert found.trials == 100
    assert not found.is_found
    with pytest.raises(UsageError, match=r"mark\.suspect_form"):
        marks.verify("t1", tmp_path / "marked.onnx")
    np.savez(tmp_path / "other.npz", inputs=np.zeros((100, 64), np.float32))
    with pytest.raises(UsageError, match=r"mark\.triggers"):
        marks.verify("t1", path, triggers=tmp_path / "other.npz")
