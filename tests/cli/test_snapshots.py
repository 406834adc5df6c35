"""`modelkeep snapshots`: what is kept, newest first, and what each one changed."""

import pytest
from command import PASSPHRASE
from onnx_models import two_models

from modelkeep.core.errors import MissingError, UsageError
from modelkeep.flows.snapshots import snapshot_at
from modelkeep.sdk.keep import Keep


@pytest.fixture
def two(one):
    one.admit(2)
    return one


def test_every_commit_is_a_snapshot_that_says_what_it_added(two):
    newest, first = two.json("snapshots")
    assert (newest["number"], first["number"]) == (2, 1)
    assert (newest["added"], first["added"]) == (["digits:2"], ["digits:1"])
    assert (newest["versions"], first["versions"]) == (2, 1)
    assert newest["removed"] == newest["moved"] == []
    assert newest["taken_ns"] > first["taken_ns"]
    said = two.run("snapshots").out
    assert "+digits:2" in said
    assert newest["name"] in said


def test_a_keep_without_a_commit_has_none(desk):
    assert desk.json("snapshots") == []


def test_the_newest_few_can_be_asked_for(two):
    assert [each["number"] for each in two.json("snapshots", "--last", 1)] == [2]


def test_what_left_with_a_destroyed_domain_is_said_and_what_has_a_new_key_was_not_added(two):
    two.run("keys", "new", "acme")
    two.run("admit", two_models()[0], "--name", "gone", "--domain", "acme")
    two.run("keys", "destroy", "acme", "--yes")
    newest = two.json("snapshots")[0]
    assert newest["removed"] == ["gone:1"]
    assert "-gone:1" in two.run("snapshots").out
    two.run("keys", "rekey", "default")
    newest = two.json("snapshots")[0]
    assert newest["added"] == newest["removed"] == []
    assert newest["moved"] == ["digits:2"]
    assert "1 under a new key" in two.run("snapshots").out


def test_a_snapshot_is_named_by_head_number_digits_or_time(two):
    newest, first = two.json("snapshots")
    with Keep(two.keep, passphrase=PASSPHRASE) as keep:

        def number(text):
            return snapshot_at(keep.opened, text).number

        assert [number(text) for text in ("head", "2", "1")] == [2, 2, 1]
        assert [number(each["name"]) for each in (newest, first)] == [2, 1]
        assert number(newest["name"][:8]) == 2
        assert number("2999-01-01") == 2
        for unknown in ("3", "ffffffffff", "1999-12-31T23:59:59Z"):
            with pytest.raises(MissingError, match="no snapshot that is kept"):
                number(unknown)
        for nonsense in ("", "yesterday", "-1", "abc", "digits:1"):
            with pytest.raises(UsageError, match="names no snapshot"):
                number(nonsense)


def test_the_empty_keep_has_an_empty_head(desk):
    with Keep(desk.keep, passphrase=PASSPHRASE) as keep:
        found = snapshot_at(keep.opened, "head")
    assert (found.number, found.snapshot.artifacts) == (0, ())
