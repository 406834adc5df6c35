"""`modelkeep restore`: bit for bit what was admitted, or nothing at all."""

import stat

import pytest
from onnx_models import two_models


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
    code = one.refusal("restore", "digits:1", "--to", tmp_path / "no" / "out.onnx", wanted=6)
    assert code == "file.write"


def test_damage_in_the_first_store_is_healed_from_the_second_on_the_way(one, tmp_path):
    one.run("backup")
    (pack,) = packs(one.main)
    good = pack.read_bytes()
    flip(pack)
    one.run("restore", "digits:1", "--to", tmp_path / "out.onnx")
    assert (tmp_path / "out.onnx").read_bytes() == two_models()[0].read_bytes()
    assert pack.read_bytes() == good
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
