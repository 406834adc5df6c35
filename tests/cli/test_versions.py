"""`modelkeep versions`: how each version of a model stands, and where its aliases have been."""

import json


def test_the_table_says_how_each_version_stands_and_where_aliases_were(three):
    three.run("promote", "lm:1", "--to", "prod")
    three.run("promote", "lm:3", "--to", "prod", "--note", "better")
    three.run("rollback", "lm:prod")
    said = three.run("versions", "lm").out
    assert [line.split()[0] for line in said.splitlines()] == [
        "version",
        "lm:1",
        "lm:2",
        "lm:3",
        "prod",
    ]
    three.run("promote", "lm:2", "--to", "prod")
    assert "prod is 2; before: 1" in three.run("versions", "lm").out
    history = three.run("versions", "lm", "--history").out
    assert "promoted  prod -> 3 (better)" in history
    assert "rolled back  prod -> 1" in history
    found = three.json("versions", "lm", "--history")
    assert [each["version"] for each in found["moves"]] == [1, 3, 1, 2]
    assert found["aliases"][0]["previous"] == [1]
    assert "moves" not in three.json("versions", "lm")


def test_data_sets_and_the_run_are_shown_and_an_unknown_name_is_said(three):
    card = three.folder / "card.toml"
    card.write_text('run = "run-7"\n[[datasets]]\nname = "claims"\ndigest = "sha256:ab"\n')
    model = three.folder / "lm.safetensors"
    three.run("admit", model, "--name", "other", "--card", card)
    said = three.run("versions", "other").out
    assert "claims" in said
    assert "run-7" in said
    (found,) = three.json("versions", "other")["versions"]
    assert found["datasets"][0]["digest"] == "sha256:ab"
    assert "sha256:ab" in three.run("lineage", "other").out
    assert "run-7" in json.dumps(three.json("lineage", "other"))
    assert three.refusal("versions", "nobody", wanted=5) == "model.unknown"
