"""`modelkeep hold`: a version must not go, whoever wants it to."""


def test_a_hold_stops_remove_and_retire_until_it_is_lifted(three):
    three.configure("[serve]", "[retention]\nkeep_last = 1\nkeep_rollbacks = 0\n\n[serve]")
    assert "is on hold" in three.run("hold", "lm:2", "--note", "case 26-114").out
    assert three.json("models")[1]["is_held"] is True
    assert "live, held" in three.run("models").out
    assert three.refusal("remove", "lm:2", "--force", wanted=3) == "remove.held"
    assert three.json("retire")["versions"] == []  # lm:2 was made from lm:1
    undone = {"model": "lm", "version": 2, "was_held": True}
    assert three.json("hold", "lm:2", "--undo") == undone
    assert "was not on hold" in three.run("hold", "lm:2", "--undo").out
    assert three.json("retire")["versions"] == ["lm:1", "lm:2"]
    assert [kind for kind in three.kinds() if "held" in kind] == ["model.held", "model.unheld"]
    assert three.refusal("hold", "lm:prod", wanted=2) == "version.alias_name"
