"""`modelkeep copy`: what matters first, on another store now; never less than it says."""

import pytest
from command import PASSPHRASE, Desk
from onnx_models import two_models
from tensor_files import tensors, tuned, written

from modelkeep.adapters.store_folder import FolderStore
from modelkeep.core.names import key_id_of
from modelkeep.sdk.keep import Keep


def names(store, kind):
    return {path.name for path in (store / kind).rglob("*") if path.is_file()}


def damaged(path):
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


@pytest.fixture
def two(one):
    one.admit(2)
    return one


def test_only_what_was_named_goes_and_it_goes_once(two):
    report = two.json("copy", "digits:2", "--to", "offsite")
    assert report["versions"] == ["digits:2"]
    assert report["is_whole"] is True
    assert report["objects"] > 0
    assert len(names(two.offsite, "recipe")) == len(names(two.offsite, "envelope")) == 1
    assert names(two.offsite, "snapshot") == set()
    assert two.json("copy", "digits:2", "--to", "offsite")["objects"] == 0
    assert "vault.copied" in two.kinds()
    assert "offsite: digits:2: whole; copied 0 objects" in (
        two.run("copy", "digits:2", "--to", "offsite").out
    )


def test_the_next_backup_goes_on_from_there(two):
    everything = two.json("copy", "--to", "offsite")
    assert everything["versions"] == ["digits:1", "digits:2"]
    packs = names(two.offsite, "pack")
    (report,) = two.json("backup")
    assert report["is_whole"] is True
    assert names(two.offsite, "pack") == packs
    assert two.json("check", "--read-data")["findings"] == []


def test_what_was_copied_is_read_from_there_when_the_first_store_has_lost_it(two, tmp_path):
    two.run("copy", "digits:2", "--to", "offsite")
    for path in sorted((two.main / "pack").rglob("*")):
        if path.is_file():
            path.unlink()
    two.run("restore", "digits:2", "--to", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == two_models()[1].read_bytes()
    two.run("restore", "digits:1", "--to", tmp_path / "lost", wanted=4)


def test_between_stores_that_encode_alike_packs_go_as_they_are(tmp_path):
    desk = Desk.made(tmp_path)
    desk.configure('label = "offsite"', 'label = "offsite"\nencoding = "fast"')
    desk.admit(1)
    desk.admit(2)
    desk.run("copy", "digits:1", "--to", "offsite")
    assert names(desk.offsite, "pack") < names(desk.main, "pack")
    assert len(names(desk.offsite, "pack")) == 1


@pytest.fixture
def tuned_twice(tmp_path):
    """Two stores that encode small; lm:2 is stored as deltas to lm:1."""
    desk = Desk.made(tmp_path)
    for label in ("main", "offsite"):
        desk.configure(f'label = "{label}"', f'label = "{label}"\nencoding = "small"')
    base = tensors(3, count=4, items=65536)
    later = tuned(base, *base)
    del later[max(later)]  # so that the pack of the first holds what the second does not need
    for arrays in (base, later):
        desk.run("admit", written(tmp_path / "m.safetensors", arrays), "--name", "lm")
    return desk


def deltas(desk, store):
    """How many chunks of a store are deltas, and the bytes of lm:2 read from it alone."""
    with Keep(desk.keep, passphrase=PASSPHRASE) as keep:
        alone = keep.opened.reader_of((FolderStore(store, "alone"),))
        snapshot = keep.opened.reader().snapshot(keep.opened.state.applied().snapshot)
        name = snapshot.artifacts[1].recipe
        index = alone.index_of(alone.stores[0], key_id_of(name))
        blocks = alone.blocks(alone.recipe(name).files[0], key_id=key_id_of(name))
        raw = b"".join(bytes(each) for each in blocks)
        return sum(bool(each.base) for _, each in index.segments()), raw


def test_a_delta_goes_along_with_its_base_or_is_encoded_alone(tuned_twice, tmp_path):
    desk, wanted = tuned_twice, (tmp_path / "m.safetensors").read_bytes()
    count, raw = deltas(desk, desk.main)
    assert (count > 0, raw) == (True, wanted)
    assert desk.json("copy", "lm:2", "--to", "offsite")["is_whole"]
    assert deltas(desk, desk.offsite) == (0, wanted)
    assert desk.json("copy", "lm:1", "--to", "offsite")["is_whole"]
    assert desk.json("backup")[0]["is_whole"]
    assert deltas(desk, desk.offsite)[1] == wanted


def test_both_together_go_as_they_are(tuned_twice, tmp_path):
    desk = tuned_twice
    assert desk.json("copy", "lm", "lm:1", "--to", "offsite")["is_whole"]
    assert names(desk.offsite, "pack") == names(desk.main, "pack")
    assert deltas(desk, desk.offsite)[1] == (tmp_path / "m.safetensors").read_bytes()


def test_damage_in_the_store_that_is_read_is_passed_by_or_said(two):
    (first,) = [p for p in (two.main / "pack").rglob("*") if p.is_file()][:1]
    damaged(first)
    report = two.json("copy", "--to", "offsite", wanted=4)
    assert report["is_whole"] is False
    assert len(report["damaged"]) == 1
    assert report["missing"]
    assert "NOT WHOLE" in two.run("copy", "--to", "offsite", wanted=4).out


@pytest.mark.parametrize(
    ("words", "status", "code"),
    [
        (("--to", "main"), 2, "copy.target"),
        (("--to", "nowhere"), 2, "copy.store"),
        (("--to", "offsite", "--from", "offsite"), 2, "copy.target"),
        (("digits:9", "--to", "offsite"), 5, "model.unknown"),
    ],
)
def test_what_makes_no_sense_is_refused(one, words, status, code):
    assert one.refusal("copy", *words, wanted=status) == code


def test_an_empty_store_counts_as_not_mounted_unless_it_is_called_new(one):
    kept = one.offsite.rename(one.folder / "unplugged")
    one.offsite.mkdir()
    refused = one.run("copy", "--to", "offsite", "--json", wanted=6)
    assert refused.error["code"] == "backup.empty"
    assert one.json("copy", "--to", "offsite", "--new")["is_whole"] is True
    assert kept.is_dir()
