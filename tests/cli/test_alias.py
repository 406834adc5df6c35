"""`modelkeep alias`: a name for a version, recorded once."""

import pytest


def test_an_alias_points_at_a_version_and_can_be_moved(one):
    one.admit(2)
    assert one.json("alias", "digits:prod", "1") == {"alias": "digits:prod", "version": 1}
    assert one.json("alias", "digits:prod", "2")["version"] == 2
    assert [each["aliases"] for each in one.json("models")] == [[], ["prod"]]
    assert "digits:prod is version 2" in one.run("alias", "digits:prod", "2").out


def test_the_same_alias_again_is_no_second_entry(one):
    for _ in range(3):
        one.run("alias", "digits:prod", "1")
    assert one.kinds().count("alias.set") == 1


def test_an_alias_may_be_set_from_another(one):
    one.admit(2)
    one.run("alias", "digits:prod", "1")
    assert one.json("alias", "digits:old", "prod")["version"] == 1


@pytest.mark.parametrize(
    ("alias", "version", "status", "code"),
    [
        ("digits", "1", 2, "model.alias"),
        ("digits:7", "1", 2, "model.alias"),
        ("digits:a:b", "1", 2, "model.reference"),
        ("digits:PROD", "1", 2, "model.name"),
        ("digits:prod", "9", 5, "model.unknown"),
        ("digits:prod", "nope", 5, "model.unknown"),
        ("digits:prod", "", 2, "model.reference"),
        ("nobody:prod", "1", 5, "model.unknown"),
    ],
)
def test_an_alias_that_makes_no_sense_is_refused_and_recorded_nowhere(
    one, alias, version, status, code
):
    assert one.refusal("alias", alias, version, wanted=status) == code
    assert "alias.set" not in one.kinds()
