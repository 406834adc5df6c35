"""What comes out of an open keep as bytes: proven, and what the head names now."""

import pytest
from command import CHEAP, PASSPHRASE
from trees import safetensors, weights, write_tree

from modelkeep.core.errors import IntegrityError, MissingError, UnavailableError, UsageError
from modelkeep.sdk.contents import room
from modelkeep.sdk.keep import Keep


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp("contents") / "tree")


@pytest.fixture
def keep(tmp_path):
    with Keep.create(tmp_path / "keep", passphrase=PASSPHRASE, port=0, argon2=CHEAP) as keep:
        yield keep


def test_a_tensor_is_what_stands_in_its_file(keep, root):
    keep.save(root, name="run")
    for name, array in weights().items():
        assert keep.tensor("run:1", "model.safetensors", name) == array.tobytes()
        assert keep.tensor("run", "", name) == array.tobytes()


def test_a_range_is_what_stands_in_its_file(keep, root):
    keep.save(root, name="run")
    raw = (root / "deep" / "noise.bin").read_bytes()
    for start, length in ((0, len(raw)), (len(raw), 0), (1000, 1), (250_000, 1_200_000)):
        found = keep.read("run", "deep/noise.bin", start, length)
        assert found == raw[start : start + length]
    for start, length in ((-1, 2), (0, len(raw) + 1), (5, -1)):
        with pytest.raises(UsageError):
            keep.read("run", "deep/noise.bin", start, length)


def test_what_is_remembered_is_forgotten_when_the_head_moves(keep, tmp_path):
    path = tmp_path / "m.safetensors"
    for seed in range(3):
        path.write_bytes(safetensors(weights(seed)))
        keep.save(path, name="run")
        wanted = weights(seed)["wte.weight"].tobytes()
        assert keep.tensor("run", "", "wte.weight") == wanted, "the newest version"
    assert keep.tensor("run:1", "", "wte.weight") == weights(0)["wte.weight"].tobytes()
    keep.set_alias("run:prod", 2)
    assert keep.tensor("run", "", "wte.weight") == weights(1)["wte.weight"].tobytes()


def test_what_was_met_damaged_is_an_error_each_time(keep, root):
    keep.save(root, name="run")
    keep.tensor("run", "", "wte.weight")
    for pack in (keep.folder.path / "stores" / "main" / "pack").rglob("*"):
        if pack.is_file():
            raw = bytearray(pack.read_bytes())
            raw[:] = bytes(len(raw))
            pack.write_bytes(raw)
    for _ in range(2):
        with pytest.raises(IntegrityError) as failure:
            keep.tensor("run", "", "wte.weight")
        assert failure.value.code == "model.damaged"
    assert "vault.damaged" in [entry.kind for _, entry in keep.ledger.entries()]


def test_what_is_not_there_is_missing(keep, root):
    keep.save(root, name="run")
    for words in (("run", "", "no"), ("run", "no", "wte.weight"), ("run:7", "", "x")):
        with pytest.raises(MissingError):
            keep.tensor(*words)
    with pytest.raises(MissingError):
        keep.read("run", "", 0, 1)


def test_files_are_listed_with_all_that_is_kept_of_them(keep, root):
    keep.save(root, name="run")
    found = {each.path: each for each in keep.files("run")}
    assert found["run.sh"].modified_ns == 1_600_000_000_123_456_789
    assert found["model.safetensors"].tensors[0].shape == (64, 256)
    assert found["."].kind == "folder"


def test_fresh_memory_is_zero_and_as_long_as_asked():
    for size_bytes in (0, 5, 5_000_000):
        assert bytes(room(size_bytes)) == bytes(size_bytes)


def test_memory_that_no_machine_has_is_said_to_be_missing():
    with pytest.raises(UnavailableError) as failed:
        room(2**62)
    assert failed.value.code == "memory.full"
