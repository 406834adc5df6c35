"""`modelkeep cat`: one file to stdout, every block proven before it is written."""

import subprocess
import sys

from onnx_models import two_models
from trees import write_tree


def cat(desk, *words, wanted=0):
    command = [sys.executable, "-P", "-m", "modelkeep", *desk.words("cat", *words)]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == wanted, done
    return done.stdout


def test_a_file_comes_out_bit_for_bit(desk, tmp_path):
    tree = write_tree(tmp_path / "tree")
    desk.run("save", tree, "--name", "run")
    assert cat(desk, "run", "deep/noise.bin") == (tree / "deep" / "noise.bin").read_bytes()
    assert cat(desk, "run:1", "deep/er/nothing") == b""
    assert desk.entries("model.restored")[0]["facts"]["path"] == "deep/noise.bin"


def test_of_a_model_of_one_file_the_path_may_be_left_out(one):
    assert cat(one, "digits") == two_models()[0].read_bytes()


def test_a_path_that_is_none_is_missing(desk, tmp_path):
    desk.run("save", write_tree(tmp_path / "tree"), "--name", "run")
    for words in (("run",), ("run", "no"), ("run", "deep"), ("run", "latest")):
        assert desk.refusal("cat", *words, wanted=5) == "restore.path"


def test_damage_ends_it_with_exit_code_4_before_a_bad_byte_is_out(desk, tmp_path):
    tree = write_tree(tmp_path / "tree")
    desk.run("save", tree, "--name", "run")
    for pack in (desk.main / "pack").rglob("*"):
        if pack.is_file():
            raw = bytearray(pack.read_bytes())
            raw[len(raw) // 2] ^= 1
            pack.write_bytes(raw)
    got = cat(desk, "run", "deep/noise.bin", wanted=4)
    assert (tree / "deep" / "noise.bin").read_bytes().startswith(got)


def test_help_says_that_a_pipe_may_have_seen_bytes(desk):
    assert "pipe" in desk.run("cat", "--help").out
