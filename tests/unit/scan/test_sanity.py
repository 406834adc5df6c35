"""Whether a model's numbers make sense."""

import mmap

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tensor_files import written

from modelkeep.core.record import replaced
from modelkeep.core.verdict import Severity
from modelkeep.flows.scanning import judged_file
from modelkeep.kernels.formats import identify
from modelkeep.scan.sanity import sanity_findings
from modelkeep.scan.sanity_settings import SanitySettings, for_admission, sanity_problems
from modelkeep.scan.settings import ScanSettings

ALWAYS = for_admission(SanitySettings())


def weights(seed=1, *, count=6):
    random = np.random.default_rng(seed)
    return {f"h.{at}.w": random.standard_normal((32, 32)).astype(np.float32) for at in range(count)}


@pytest.fixture
def looked(tmp_path):
    """What is found in a file of these tensors: rule and severity, by name."""

    def look(tensors, settings=ALWAYS):
        raw = memoryview(written(tmp_path / "x.safetensors", tensors).read_bytes())
        found = sanity_findings("x.safetensors", raw, identify(raw), settings)
        return {each.rule.removeprefix("sanity."): each for each in found}

    return look


def test_of_sound_weights_nothing_is_said(looked):
    biases = {f"h.{at}.bias": np.zeros(32, np.float32) for at in range(6)}
    scales = {"norm.weight": np.ones(4096, np.float32)}
    assert looked(weights() | biases | scales) == {}


@pytest.mark.parametrize(("value", "rule"), [(np.nan, "nan"), (np.inf, "infinite")])
def test_one_number_that_is_none_holds_the_model_and_its_tensor_is_named(looked, value, rule):
    tensors = weights()
    tensors["h.3.w"][4, 5] = value
    found = looked(tensors)
    assert list(found) == [rule]
    assert found[rule].severity is Severity.MEDIUM
    assert "'h.3.w' 1 NaN" in found[rule].evidence or "1 infinite of 1024" in found[rule].evidence


def test_masks_and_constants_are_meant(looked):
    mask = np.triu(np.full((32, 32), -np.inf, np.float32), 1)
    assert looked(weights() | {"mask": mask, "nothing": np.array([np.nan], np.float32)}) == {}


def test_what_is_infinite_throughout_is_no_mask(looked):
    assert "infinite" in looked({"w": np.full((32, 32), np.inf, np.float32)})


def test_what_is_dead_alike_oddly_scaled_or_there_twice_is_noted(looked):
    tensors = weights()
    tensors["h.2.w"] *= 1e5
    tensors["dead"] = np.zeros((32, 32), np.float32)
    tensors["alike"] = np.full((32, 32), 0.5, np.float32)
    tensors["again"] = tensors["h.1.w"]
    found = looked(tensors)
    assert set(found) == {"dead", "constant", "scale", "duplicate"}
    assert {each.severity for each in found.values()} == {Severity.NOTE}
    assert "'h.2.w'" in found["scale"].evidence
    assert "'again' is 'h.1.w'" in found["duplicate"].evidence


def test_the_operator_decides_what_it_comes_to(looked):
    tensors = weights()
    tensors["h.0.w"][0, 0] = np.nan
    tensors["dead"] = np.zeros((32, 32), np.float32)
    note = looked(tensors, replaced(ALWAYS, not_finite="note", oddities=False))
    assert {name: each.severity for name, each in note.items()} == {"nan": Severity.NOTE}
    assert looked(tensors, replaced(ALWAYS, not_finite="off", oddities=False)) == {}
    assert looked(tensors, SanitySettings()) == {}  # nothing is admitted, so nobody looks
    assert looked(tensors, for_admission(SanitySettings(when="never"))) == {}


def test_what_was_not_looked_at_is_said(looked):
    found = looked(weights(count=6), replaced(ALWAYS, tensors_max=4))
    assert {name: each.severity for name, each in found.items()} == {"unseen": Severity.NOTE}
    assert found["unseen"].evidence.startswith("4 tensors of 6 were looked at")
    for kind, rules in (("safetensors", ["sanity.unseen"]), ("zip", []), ("text", [])):
        broken = sanity_findings("x", memoryview(b"\xff" * 100), kind, ALWAYS)
        assert [each.rule for each in broken] == rules
        assert all(each.severity is Severity.NOTE for each in broken)


@pytest.mark.parametrize(
    "wrong",
    [
        {"when": "sometimes"},
        {"not_finite": "deny"},
        {"scale_ratio_max": 1.0},
        {"scale_ratio_max": float("nan")},
        {"tensors_max": 0},
    ],
)
def test_a_knob_that_means_nothing_is_refused(wrong):
    assert any(is_bad for is_bad, _ in sanity_problems(SanitySettings(**wrong)))
    assert not any(is_bad for is_bad, _ in sanity_problems(SanitySettings()))


def test_a_scan_alone_does_not_look_and_an_admission_does(tmp_path):
    tensors = {"w": np.full((32, 32), np.nan, np.float32)}
    raw = memoryview(written(tmp_path / "x.safetensors", tensors).read_bytes())
    assert judged_file("x.safetensors", raw, {}, ScanSettings()).findings == ()
    found = judged_file("x.safetensors", raw, {}, ScanSettings(sanity=ALWAYS)).findings
    assert [each.rule for each in found] == ["sanity.nan"]


def test_pages_of_a_mapped_file_are_given_back_and_of_other_memory_kept(tmp_path):
    path = written(tmp_path / "x.safetensors", weights(count=40))
    raw = path.read_bytes()
    with path.open("rb") as stream:
        mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    assert sanity_findings("x", memoryview(mapped), "safetensors", ALWAYS) == ()
    assert bytes(mapped) == raw
    own = mmap.mmap(-1, len(raw))
    own[:] = raw
    sanity_findings("x", memoryview(own).toreadonly(), "safetensors", ALWAYS)
    assert bytes(own) == raw


@given(st.binary(max_size=600), st.integers(0, 500))
def test_no_bytes_break_it(raw, at):
    header = b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}'
    whole = bytearray(len(header).to_bytes(8, "little") + header + bytes(16))
    whole[at % len(whole) : at % len(whole) + len(raw) % 8] = raw[: len(raw) % 8]
    for each in (raw, bytes(whole)):
        for kind in ("safetensors", "onnx", "npy", "gguf", "zip", "torch-zip"):
            sanity_findings("x", memoryview(each), kind, ALWAYS)
