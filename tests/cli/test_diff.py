"""`modelkeep diff`: files and tensors that differ, by digest, and nothing that does not."""

import pytest
from tensor_files import tensors, tuned, written


@pytest.fixture
def family(desk, tmp_path):
    """lm:1, and lm:2 of which one tensor of four went a little further."""
    base = tensors(1)
    for version, arrays in enumerate((base, tuned(base, "layer.2")), start=1):
        file = written(tmp_path / "model.safetensors", arrays)
        assert desk.json("admit", file, "--name", "lm")["version"] == version
    return desk


def test_two_versions_differ_in_the_tensors_that_changed(family):
    found = family.json("diff", "lm:1", "lm:2")
    (file,) = found["changes"]
    assert (file["path"], file["change"]) == ("model.safetensors", "changed")
    assert [(each["name"], each["change"]) for each in file["changes"]] == [("layer.2", "changed")]
    tally = found["tensors"]
    assert (tally["equal"], tally["changed"], tally["added"], tally["removed"]) == (3, 1, 0, 0)
    assert (tally["equal_bytes"], tally["changed_bytes"]) == (3 * 16384, 16384)
    said = family.run("diff", "lm:1", "lm:2").out
    assert "~ model.safetensors" in said
    assert "3 equal (48.0 KiB), 1 changed (16.0 KiB)" in said
    assert "layer.2" not in said
    listed = family.run("diff", "lm:1", "lm:2", "--tensors").out
    assert "~ layer.2  FP32[4096]  16.0 KiB" in listed
    assert "layer.1" not in listed


def test_a_version_does_not_differ_from_itself(family):
    found = family.json("diff", "lm:1", "lm:1")
    assert found["changes"] == []
    assert (found["files"]["equal"], found["tensors"]["equal"]) == (1, 4)


def test_tensors_that_came_and_went_are_told_apart_whatever_the_file_is_called(family, tmp_path):
    arrays = tuned(tensors(1), "layer.2")
    arrays["new"] = arrays.pop("layer.0")[:100]
    family.run("admit", written(tmp_path / "other.safetensors", arrays), "--name", "lm")
    (file,) = family.json("diff", "lm:2", "lm:3")["changes"]
    assert (file["before_path"], file["path"]) == ("model.safetensors", "other.safetensors")
    changes = {each["name"]: each["change"] for each in file["changes"]}
    assert changes == {"new": "added", "layer.0": "removed"}
    assert "model.safetensors -> other.safetensors" in family.run("diff", "lm:2", "lm:3").out


def test_two_snapshots_differ_in_their_versions_and_in_the_latest_of_each_name(family):
    family.admit(1)
    found = family.json("diff", "1", "head")
    assert (found["before"], found["after"]) == (1, 3)
    assert (found["added"], found["removed"]) == (["digits:1", "lm:2"], [])
    digits, lm = found["models"]
    assert (digits["before"], digits["after"]) == ("", "digits:1")
    assert digits["files"]["added"] == 1
    assert (lm["before"], lm["after"]) == ("lm:1", "lm:2")
    said = family.run("diff", "1", "head").out
    assert "head 1 -> head 3: +digits:1, +lm:2" in said
    assert "nothing -> digits:1" in said
    back = family.json("diff", "head", "1")
    assert (back["added"], back["removed"]) == ([], ["digits:1", "lm:2"])
    assert family.json("diff", "head", "head")["models"] == []


@pytest.mark.parametrize(
    ("before", "after", "status", "code"),
    [
        ("lm:1", "head", 2, "diff.mixed"),
        ("lm:1", "lm:9", 5, "model.unknown"),
        ("7", "head", 5, "snapshot.unknown"),
        ("lm", "head", 2, "snapshot.name"),
        ("2026-01-01T00:00:00Z", "head", 5, "snapshot.unknown"),
    ],
)
def test_what_is_not_there_is_not_compared(family, before, after, status, code):
    assert family.refusal("diff", before, after, wanted=status) == code
