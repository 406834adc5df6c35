"""`modelkeep restore`: bit for bit what was admitted, or nothing at all."""

import stat

import numpy as np
import pytest
from onnx_models import two_models
from trees import picture, weights, write_tree

from modelkeep.kernels.safetensors import safetensors_layout


def flip(path):
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


def packs(store):
    return sorted(path for path in (store / "pack").rglob("*") if path.is_file())


def test_what_was_admitted_comes_back_bit_for_bit(one, tmp_path):
    said = one.run("restore", "digits:1", "--to", tmp_path / "out.onnx")
    assert "restored digits:1" in said.out
    assert (tmp_path / "out.onnx").read_bytes() == two_models()[0].read_bytes()
    assert stat.S_IMODE((tmp_path / "out.onnx").stat().st_mode) == 0o600
    assert one.kinds()[-1] == "model.restored"


def test_programs_get_its_size(one, tmp_path):
    facts = one.json("restore", "digits", "--to", tmp_path / "out.onnx")
    assert facts["size_bytes"] == len(two_models()[0].read_bytes())


def test_without_a_version_it_is_prod_else_the_latest(one, tmp_path):
    one.admit(2)
    first, second = (path.read_bytes() for path in two_models())
    one.run("restore", "digits", "--to", tmp_path / "latest")
    one.run("alias", "digits:prod", "1")
    one.run("restore", "digits", "--to", tmp_path / "prod")
    one.run("restore", "digits:2", "--to", tmp_path / "two")
    names = ("latest", "prod", "two")
    assert [(tmp_path / name).read_bytes() for name in names] == [second, first, second]


def test_a_file_that_exists_is_not_replaced_unless_told(one, tmp_path):
    out = tmp_path / "out.onnx"
    out.write_bytes(b"mine")
    assert one.refusal("restore", "digits:1", "--to", out, wanted=2) == "restore.exists"
    assert out.read_bytes() == b"mine"
    one.run("restore", "digits:1", "--to", out, "--force")
    assert out.read_bytes() == two_models()[0].read_bytes()


@pytest.mark.parametrize(
    ("reference", "status"),
    [("digits:9", 5), ("digits:prod", 5), ("nobody", 5), ("No:1", 2), ("a:b:c", 2), ("", 2)],
)
def test_what_does_not_exist_is_not_restored(one, tmp_path, reference, status):
    one.refusal("restore", reference, "--to", tmp_path / "out.onnx", wanted=status)
    assert not (tmp_path / "out.onnx").exists()


def test_a_folder_that_is_not_there_is_a_clear_error(one, tmp_path):
    code = one.refusal("restore", "digits:1", "--to", tmp_path / "no" / "out.onnx", wanted=5)
    assert code == "file.folder"


def test_damage_in_the_first_store_is_healed_from_the_second_on_the_way(one, tmp_path):
    one.run("backup")
    (pack,) = packs(one.main)
    flip(pack)
    one.run("restore", "digits:1", "--to", tmp_path / "out.onnx")
    assert (tmp_path / "out.onnx").read_bytes() == two_models()[0].read_bytes()
    assert one.json("check", "--read-data")["findings"] == []
    assert one.entries("vault.healed")[0]["facts"]["store"] == "main"


def test_damage_in_every_store_names_the_model_and_writes_nothing(one, tmp_path):
    one.run("backup")
    for pack in (*packs(one.main), *packs(one.offsite)):
        flip(pack)
    out = tmp_path / "out.onnx"
    assert one.refusal("restore", "digits:1", "--to", out, wanted=4) == "model.damaged"
    assert "digits:1: tensor " in one.run("restore", "digits:1", "--to", out, wanted=4).err
    assert not out.exists()
    assert "vault.damaged" in one.kinds()


def test_restore_needs_to_know_where(one):
    one.run("restore", "digits:1", wanted=2)


@pytest.fixture
def run(desk, tmp_path):
    """A keep that holds run:1, and the folder that it was made from."""
    tree = write_tree(tmp_path / "tree")
    desk.run("save", tree, "--name", "run")
    return desk, tree


def test_a_subtree_comes_back_alone(run, tmp_path):
    desk, tree = run
    desk.run("restore", "run", "--to", tmp_path / "out", "--path", "deep/")
    assert picture(tmp_path / "out") == picture(tree / "deep")
    desk.run("restore", "run", "--to", tmp_path / "one", "--path", "deep/noise.bin")
    assert (tmp_path / "one").read_bytes() == (tree / "deep" / "noise.bin").read_bytes()
    desk.run("restore", "run", "--to", tmp_path / "none", "--path", "empty")
    assert not list((tmp_path / "none").iterdir())
    assert desk.entries("model.restored")[0]["facts"]["path"] in ("deep/", "empty")


@pytest.mark.parametrize(
    "path", ["no", "dee", "../deep", "deep/no", "latest", "latest/config.json"]
)
def test_a_path_that_is_not_in_it_is_missing_and_links_are_not_followed(run, tmp_path, path):
    desk, _ = run
    words = ("restore", "run", "--to", tmp_path / "out", "--path", path)
    assert desk.refusal(*words, wanted=5) == "restore.path"
    assert not (tmp_path / "out").exists()


def test_one_tensor_comes_out_raw_and_as_others_read_it(run, tmp_path):
    desk, _ = run
    array = weights()["wte.weight"]
    for suffix in ("", ".npy", ".safetensors"):
        words = ("--to", tmp_path / f"out{suffix}", "--tensor", "wte.weight")
        desk.run("restore", "run", *words)
    assert (tmp_path / "out").read_bytes() == array.tobytes()
    loaded = np.load(tmp_path / "out.npy", allow_pickle=False)
    assert loaded.dtype == np.float32
    assert np.array_equal(loaded, array)
    raw = memoryview((tmp_path / "out.safetensors").read_bytes())
    (place,) = safetensors_layout(raw).tensors
    assert (place.name, place.dtype, place.shape) == ("wte.weight", "FP32", (64, 256))
    assert raw[place.offset :].tobytes() == array.tobytes()


def test_a_tensor_that_is_not_there_is_missing_and_one_of_two_must_be_named(desk, tmp_path):
    tree = write_tree(tmp_path / "tree")
    (tree / "copy.safetensors").write_bytes((tree / "model.safetensors").read_bytes())
    desk.run("save", tree, "--name", "run")
    words = ("restore", "run", "--to", tmp_path / "out", "--tensor")
    assert desk.refusal(*words, "nothing", wanted=5) == "tensor.unknown"
    assert desk.refusal(*words, "wte.weight", wanted=2) == "tensor.ambiguous"
    desk.run(*words, "wte.weight", "--path", "copy.safetensors")
    assert (tmp_path / "out").read_bytes() == weights()["wte.weight"].tobytes()


def test_a_folder_is_restored_to_one_that_is_new_or_empty_only(run, tmp_path):
    desk, tree = run
    (tmp_path / "out").mkdir()
    desk.run("restore", "run", "--to", tmp_path / "out")
    assert picture(tmp_path / "out") == picture(tree)
    for words in ((), ("--force",)):
        code = desk.refusal("restore", "run", "--to", tmp_path / "out", *words, wanted=2)
        assert code == "restore.exists"
    (tmp_path / "link").symlink_to("out")
    assert desk.refusal("restore", "run", "--to", tmp_path / "link", wanted=2) == "restore.exists"


def test_a_file_is_not_put_in_the_place_of_a_folder(one, tmp_path):
    (tmp_path / "out").mkdir()
    words = ("restore", "digits", "--to", tmp_path / "out", "--force")
    assert one.refusal(*words, wanted=2) == "restore.exists"


def test_with_force_a_link_is_replaced_and_what_it_leads_to_is_not(one, tmp_path):
    (tmp_path / "mine").write_bytes(b"mine")
    (tmp_path / "out").symlink_to("mine")
    assert one.refusal("restore", "digits", "--to", tmp_path / "out", wanted=2) == "restore.exists"
    one.run("restore", "digits", "--to", tmp_path / "out", "--force")
    assert (tmp_path / "mine").read_bytes() == b"mine"
    assert (tmp_path / "out").read_bytes() == two_models()[0].read_bytes()


def test_damage_leaves_neither_a_folder_nor_a_temporary_one(run, tmp_path):
    desk, _ = run
    for pack in packs(desk.main):
        flip(pack)
    before = sorted(tmp_path.iterdir())
    code = desk.refusal("restore", "run", "--to", tmp_path / "out", wanted=4)
    assert code == "model.damaged"
    assert sorted(tmp_path.iterdir()) == before


def test_a_folder_that_nobody_may_write_into_comes_back_with_what_is_in_it(desk, tmp_path):
    tree = tmp_path / "tree"
    (tree / "closed").mkdir(parents=True)
    (tree / "closed" / "file").write_bytes(b"x")
    (tree / "closed" / "file").chmod(0o000)
    (tree / "closed").chmod(0o500)
    desk.run("save", tree, "--name", "run")
    desk.run("restore", "run", "--to", tmp_path / "out")
    assert picture(tmp_path / "out") == picture(tree)
    (tree / "closed").chmod(0o700)
