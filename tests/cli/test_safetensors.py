"""`modelkeep safetensors`: the tensors of a version in plaintext, in the form that others read."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import safetensors
from command import PASSPHRASE, Desk
from tensor_files import tensors, written

from modelkeep.core.errors import KeepError
from modelkeep.sdk.interop import Interop
from modelkeep.sdk.keep import Keep

VECTORS = Path(__file__).parents[1] / "vectors"
NUMBERS = itertools.count()
VIEWS = VECTORS / "plain_tensors" / "views.pt"


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """An open keep; opening one costs more than all else here."""
    desk = Desk.made(tmp_path_factory.mktemp("tensors"), second=False)
    with Keep(desk.keep, passphrase=PASSPHRASE) as keep:
        yield keep


@pytest.fixture
def model():
    """A name that no other test has given."""
    return f"model-{next(NUMBERS)}"


def read(path):
    return dict(safetensors.deserialize(path.read_bytes()))


def files_in(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


# ---- as they went in ---------------------------------------------------------------------------


def test_a_safetensors_file_comes_back_bit_for_bit_however_often(kept, tmp_path):
    first = written(tmp_path / "a.safetensors", tensors(1))
    for name in ("one", "two"):
        kept.admit(first, name=name)
        done = Interop(kept).safetensors(name, tmp_path / name)
        assert (done.is_same, done.tensors, done.files) == (True, 4, 1)
        assert (tmp_path / name).read_bytes() == first.read_bytes()
        first = tmp_path / name


def test_a_sharded_model_comes_back_bit_for_bit_with_its_index(kept, tmp_path):
    folder = VECTORS / "layouts" / "shards"
    kept.admit(folder, name="llm")
    done = Interop(kept).safetensors("llm", tmp_path / "llm")
    assert done.is_same
    assert files_in(tmp_path / "llm") == files_in(folder)
    shard = next(path for path in folder.iterdir() if path.suffix == ".safetensors")
    Interop(kept).safetensors("llm", tmp_path / "s", path=shard.name)
    assert (tmp_path / "s").read_bytes() == shard.read_bytes()


# ---- out of other forms ------------------------------------------------------------------------


def test_arrays_of_numpy_become_safetensors(kept, model, tmp_path):
    arrays = {**tensors(2), "steps": np.array([[1], [2]])}
    np.savez(tmp_path / "a.npz", **arrays)
    kept.admit(tmp_path / "a.npz", name=model)
    done = Interop(kept).safetensors(model, tmp_path / "o.safetensors")
    assert (done.is_same, done.tensors, done.passed) == (False, 5, ())
    found = read(tmp_path / "o.safetensors")
    assert {name: bytes(each["data"]) for name, each in found.items()} == {
        name: array.tobytes() for name, array in arrays.items()
    }
    assert done.size_bytes == (tmp_path / "o.safetensors").stat().st_size
    kept.admit(tmp_path / "o.safetensors", name=f"{model}-again")
    Interop(kept).safetensors(f"{model}-again", tmp_path / "o2.safetensors")
    assert read(tmp_path / "o2.safetensors") == found


def test_a_checkpoint_of_torch_becomes_what_the_library_would_write(kept, model, tmp_path):
    kept.save(VIEWS, name=model)
    Interop(kept).safetensors(model, tmp_path / "o")
    assert read(tmp_path / "o") == read(VIEWS.with_suffix(".safetensors"))


def test_a_graph_and_the_file_beside_it_become_one_file(kept, model, tmp_path):
    kept.admit(VECTORS / "layouts" / "external", name=model)
    done = Interop(kept).safetensors(model, tmp_path / "o")
    assert done.tensors == len(read(tmp_path / "o")) > 0
    assert set(done.passed) <= {"model.onnx"}


def test_files_without_tensors_are_named_and_left(kept, model, tmp_path):
    folder = tmp_path / "m"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    np.savez(folder / "a.npz", **tensors(2))
    kept.admit(folder, name=model)
    assert Interop(kept).safetensors(model, tmp_path / "o").passed == ("config.json",)


# ---- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "code"),
    [("plain_tensors/turned.pt", "tensors.form"), ("layouts/packed.npz", "tensors.none")],
)
def test_what_has_no_form_leaves_no_file(kept, model, tmp_path, name, code):
    kept.save(VECTORS / name, name=model)
    with pytest.raises(KeepError) as refused:
        Interop(kept).safetensors(model, tmp_path / "o")
    assert refused.value.code == code
    assert not (tmp_path / "o").exists()


def test_two_files_that_name_one_tensor_are_told_apart_by_their_path(kept, model, tmp_path):
    folder = tmp_path / "m"
    folder.mkdir()
    for at in (1, 2):
        np.savez(folder / f"{at}.npz", **tensors(at))
    kept.admit(folder, name=model)
    with pytest.raises(KeepError) as refused:
        Interop(kept).safetensors(model, tmp_path / "o")
    assert refused.value.code == "tensors.twice"
    Interop(kept).safetensors(model, tmp_path / "o", path="2.npz")
    assert bytes(read(tmp_path / "o")["layer.0"]["data"]) == tensors(2)["layer.0"].tobytes()


def test_the_policy_of_a_model_is_asked(kept, model, tmp_path):
    (tmp_path / "policy.toml").write_text('uses = ["serve"]')
    for at, name in enumerate(("m.npz", "m.safetensors")):
        path = tmp_path / name
        np.savez(path, **tensors(1)) if at == 0 else written(path, tensors(1))
        kept.admit(path, name=f"{model}-{at}", policy=tmp_path / "policy.toml")
        with pytest.raises(KeepError) as refused:
            Interop(kept).safetensors(f"{model}-{at}", tmp_path / "o")
        assert refused.value.code == "policy.use"
        assert not (tmp_path / "o").exists()


def test_a_tensor_that_is_not_the_signed_one_leaves_no_file(kept, model, tmp_path, monkeypatch):
    """As when the recipe were another one's: what is read does not hash to what was signed."""
    from modelkeep.flows import plain_export  # noqa: PLC0415 - patched below

    np.savez(tmp_path / "a.npz", **tensors(2))
    kept.admit(tmp_path / "a.npz", name=model)

    class Wrong(plain_export.Digester):
        def update(self, raw):
            super().update(bytes([raw[0] ^ 1]) + bytes(raw[1:]))

    monkeypatch.setattr(plain_export, "Digester", Wrong)
    with pytest.raises(KeepError) as refused:
        Interop(kept).safetensors(model, tmp_path / "o")
    assert refused.value.code == "tensor.digest"
    assert not (tmp_path / "o").exists()


# ---- as it is typed ----------------------------------------------------------------------------


def test_the_ledger_knows_that_plaintext_left(desk, tmp_path):
    np.savez(tmp_path / "a.npz", **tensors(2))
    desk.run("admit", tmp_path / "a.npz", "--name", "m")
    out = tmp_path / "o.safetensors"
    text = desk.run("safetensors", "m:1", "--output", out).out
    assert text.startswith(f"wrote 4 tensors of m:1 to {out}, as safetensors: 1 file(s)")
    assert desk.refusal("safetensors", "m", "-o", out, wanted=2) == "restore.exists"
    assert desk.json("safetensors", "m", "-o", out, "--force")["tensors"] == 4
    facts = [each["facts"] for each in desk.entries("model.restored")]
    assert [(each["model"], each["version"]) for each in facts] == [("m", 1)] * 2
    assert desk.refusal("safetensors", "nobody", "-o", out, wanted=5) == "model.unknown"
