"""`modelkeep rollback`: an alias goes back to what it named before."""


def test_an_alias_goes_back_and_what_is_gone_is_passed_over(three):
    for version in (1, 2, 3):
        three.run("promote", f"lm:{version}", "--to", "prod")
    three.run("remove", "lm:2")
    done = three.run("rollback", "lm:prod", "--note", "false alarms")
    assert "lm:prod is version 1, before it was 3" in done.out
    assert "passed over: lm has no version or alias 2" in done.err
    (entry,) = three.entries("model.rolled_back")
    assert entry["facts"]["note"] == "false alarms"
    assert (entry["facts"]["previous"], entry["facts"]["version"]) == (3, 1)
    assert three.refusal("rollback", "lm:prod", wanted=3) == "rollback.nowhere"


def test_a_rollback_goes_where_the_alias_has_been_and_nowhere_else(three):
    for version in (1, 2):
        three.run("alias", "lm:prod", version)
    assert three.refusal("rollback", "lm:prod", "--to", "3", wanted=3) == "rollback.history"
    assert three.json("rollback", "lm:prod", "--to", "1")["version"] == 1
    assert three.refusal("rollback", "lm:next", wanted=5) == "rollback.alias"
    assert three.refusal("rollback", "lm", wanted=2) == "model.alias"
