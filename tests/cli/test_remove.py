"""`modelkeep remove`: a version leaves the keep, unless somebody still points at it."""


def test_a_version_leaves_and_its_number_is_not_used_again(one):
    one.admit(2)
    done = one.json("remove", "digits:2")
    assert done["versions"] == ["digits:2"]
    assert [each["version"] for each in one.json("models")] == [1]
    assert one.admit(2)["version"] == 3
    (entry,) = one.entries("model.removed")
    assert entry["facts"]["versions"] == ["2"]


def test_a_dry_run_removes_nothing(one):
    assert one.json("remove", "digits", "--dry-run")["versions"] == ["digits:1"]
    assert "would be removed" in one.run("remove", "digits", "--dry-run").out
    assert len(one.json("models")) == 1


def test_what_an_alias_names_is_refused_unless_it_is_forced(one):
    one.run("alias", "digits:prod", "1")
    assert one.refusal("remove", "digits:1", wanted=3) == "remove.alias"
    assert one.json("remove", "digits:1", "--force")["aliases"] == ["digits:prod"]
    assert one.json("models") == []


def test_what_is_not_there_and_what_may_move_are_refused(one):
    assert one.refusal("remove", "digits:7", wanted=5) == "model.unknown"
    assert one.refusal("remove", "digits:prod", wanted=2) == "remove.alias_name"
