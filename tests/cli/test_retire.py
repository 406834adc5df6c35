"""`modelkeep retire`: what is past retention goes, and the rest says why it stays."""


def test_a_dry_run_says_what_would_go_and_the_verb_takes_just_that(three):
    three.configure("[serve]", "[retention]\nkeep_last = 1\n\n[serve]")
    three.run("promote", "lm:1", "--to", "old")
    planned = three.json("retire", "--dry-run")
    assert planned["versions"] == ["lm:2"]
    assert planned["spared"] == [{"version": "lm:1", "reason": "named by old"}]
    assert "would be retired: lm:2; 1 kept" in three.run("retire", "--dry-run").out
    assert len(three.json("models")) == 3
    assert "retired: lm:2; 1 kept\n  lm:1 stays: named by old" in three.run("retire").out
    assert [each["version"] for each in three.json("models")] == [1, 3]
    done = three.run("retire", "nobody", "--json", wanted=5)
    assert done.error["code"] == "model.unknown"


def test_without_a_wish_nothing_goes_and_one_below_zero_is_none(three):
    assert "retired: nothing; 3 kept" in three.run("retire").out
    assert "model.removed" not in three.kinds()
    three.configure("[serve]", "[retention]\nkeep_last = -1\n\n[serve]")
    assert three.refusal("retire", wanted=2) == "config.value"
