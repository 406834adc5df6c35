"""`modelkeep convert`: what a scan allows becomes safetensors, everything else is refused."""

import os
import stat

import attack_pickles
import numpy as np
import pytest
from command import modelkeep
from safetensors.numpy import load_file
from torch_files import Kept, View, legacy_file, zip_file

from modelkeep.core.errors import UsageError
from modelkeep.sdk.conversion import convert

NUMBERS = np.arange(24, dtype="<f4")
FLOATS = Kept("0", "FloatStorage", NUMBERS.tobytes())
VIEWS = [View("w", "0", (4, 6), (6, 1)), View("turned", "0", (6, 4), (1, 6))]


@pytest.mark.parametrize("make", [zip_file, legacy_file])
def test_a_file_of_torch_becomes_safetensors(make, tmp_path):
    source, target = tmp_path / "m.pt", tmp_path / "m.safetensors"
    source.write_bytes(make(VIEWS, [FLOATS]))
    done = modelkeep("convert", source, "--output", target, "--json").json
    assert (done["tensors"], done["shared"]) == (2, ["turned", "w"])
    assert done["size_bytes"] == target.stat().st_size
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    found = load_file(target)
    assert np.array_equal(found["w"], NUMBERS.reshape(4, 6))
    assert np.array_equal(found["turned"], NUMBERS.reshape(4, 6).T)


def test_a_file_that_exists_is_replaced_on_demand_only(tmp_path):
    np.save(tmp_path / "a.npy", NUMBERS)
    words = ("convert", tmp_path / "a.npy", "-o", tmp_path / "a.safetensors")
    assert "1 tensor(s)" in modelkeep(*words).out
    assert modelkeep(*words, "--json", wanted=2).error["code"] == "file.exists"
    modelkeep(*words, "--force")
    assert np.array_equal(load_file(tmp_path / "a.safetensors")["a"], NUMBERS)


def test_what_a_scan_denies_or_holds_is_not_converted(tmp_path):
    source, target = tmp_path / "m.pkl", tmp_path / "m.safetensors"
    for raw in (
        attack_pickles.line_call("os", "system"),
        attack_pickles.line_call("somewhere", "Thing"),
        legacy_file(VIEWS, [FLOATS]) + b"more",
    ):
        source.write_bytes(raw)
        error = modelkeep("convert", source, "-o", target, "--json", wanted=3).error
        assert error["code"] == "convert.verdict"
        assert not target.exists()


def test_what_is_no_file_of_tensors_is_refused_and_nothing_is_written(tmp_path):
    for name, raw, code in (
        ("m.txt", b"some text", "convert.format"),
        ("m.pt", zip_file([View("c", "0", (1,), (1,))],
                          [Kept("0", "ComplexFloatStorage", bytes(8))]), "convert.form"),
    ):  # fmt: skip
        (tmp_path / name).write_bytes(raw)
        words = ("convert", tmp_path / name, "-o", tmp_path / "o", "--json")
        assert modelkeep(*words, wanted=2).error["code"] == code
    assert not (tmp_path / "o").exists()


def test_of_a_file_that_changes_meanwhile_nothing_is_written(tmp_path):
    source, target = tmp_path / "a.npy", tmp_path / "a.safetensors"
    np.save(source, np.zeros(1_000_000, "<f4"))

    def write(_):
        with pytest.raises(BlockingIOError):  # which breaks the lease
            os.open(source, os.O_WRONLY | os.O_NONBLOCK)

    with pytest.raises(UsageError) as refused:
        convert(source, target, progress=write)
    assert refused.value.code == "file.changed"
    assert [each.name for each in tmp_path.iterdir()] == ["a.npy"]
