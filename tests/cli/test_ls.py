"""`modelkeep ls`: what a version is made of."""

from trees import write_tree


def test_everything_in_a_version_is_listed(desk, tmp_path):
    desk.run("save", write_tree(tmp_path / "tree"), "--name", "run")
    said = desk.run("ls", "run").out
    for text in ("run.sh", "0755", "2020-09-13", "deep/er/", "latest -> deep/er", "größe.txt"):
        assert text in said
    found = {each["path"]: each for each in desk.json("ls", "run:1")}
    assert found["model.safetensors"]["tensors"] == 2
    assert found["deep/noise.bin"]["size_bytes"] == 1_500_000
    assert found["empty"]["kind"] == "folder"
    assert found["outside"]["leads_to"] == "/etc/passwd"
    assert list(found) == sorted(found)


def test_tensors_are_listed_with_their_shapes(desk, tmp_path):
    desk.run("save", write_tree(tmp_path / "tree"), "--name", "run")
    said = desk.run("ls", "run", "--tensors").out
    assert "wte.weight" in said
    assert "64x256" in said
    found = {each["path"]: each for each in desk.json("ls", "run", "--tensors")}
    tensors = found["model.safetensors"]["tensors"]
    assert [each["name"] for each in tensors] == ["wte.weight", "head.weight"]


def test_a_model_is_listed_too(one):
    assert "digits" in one.run("ls", "digits").out


def test_what_does_not_exist_is_not_listed(one):
    assert one.refusal("ls", "nobody", wanted=5) == "model.unknown"
    assert one.refusal("ls", "No", wanted=2) == "model.name"
