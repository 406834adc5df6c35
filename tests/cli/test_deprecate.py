"""`modelkeep deprecate`: a version should not be used any more, until when, and what instead."""


def test_a_deprecation_is_shown_recorded_once_and_taken_back(three):
    three.run("alias", "lm:prod", "2")
    words = ("deprecate", "lm:2", "--until", "2200-01-31", "--replaced-by", "lm:3")
    done = three.run(*words)
    assert "lm:2 is deprecated until 2200-01-31T00:00:00Z; use lm:3" in done.out
    assert "warning: the alias prod names lm:2" in done.err
    three.run(*words)
    assert three.kinds().count("model.deprecated") == 1
    assert three.json("models")[1]["status"] == "deprecated"
    assert "deprecated until 2200-01-31T00:00:00Z, use lm:3" in three.run("versions", "lm").out
    undone = {"model": "lm", "version": 2, "was_deprecated": True}
    assert three.json("deprecate", "lm:2", "--undo") == undone
    assert "was not deprecated" in three.run("deprecate", "lm:2", "--undo").out
    three.run("deprecate", "lm:2", "--until", "2000-01-01T12:00:00+02:00")
    assert [each["status"] for each in three.json("models")] == ["live", "ended", "live"]


def test_what_makes_no_sense_is_refused_and_recorded_nowhere(three):
    for words, status, code in (
        (("lm:prod",), 2, "version.alias_name"),
        (("lm:9",), 5, "model.unknown"),
        (("lm:1", "--until", "tomorrow"), 2, "time.form"),
        (("lm:1", "--replaced-by", "lm:1"), 2, "deprecate.self"),
        (("lm:1", "--undo", "--note", "x"), 2, "usage.undo"),
    ):
        done = three.run("deprecate", *words, "--json", wanted=status)
        assert done.error["code"] == code
    assert "model.deprecated" not in three.kinds()
