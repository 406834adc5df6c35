"""`modelkeep traffic`: a canary or a shadow is set, listed and ended, each on record."""

import pytest


@pytest.fixture
def both(desk):
    desk.admit(1)
    desk.admit(2)
    desk.run("promote", "digits:1", "--to", "prod")
    return desk


def test_a_canary_is_set_listed_and_ended(both):
    done = both.run("traffic", "set", "digits", "--canary", "2=0.5%", "--sticky")
    assert "version 2 answers 0.5 % of the calls" in done.out
    assert "digits  2 (0.5 %)" in both.run("traffic", "list").out
    (row,) = both.json("traffic", "list")
    assert (row["canary"], row["canary_lots"], row["sticky"]) == (2, 50, True)
    (entry,) = both.entries("traffic.set")
    assert entry["facts"]["canary_lots"] == 50
    both.run("traffic", "set", "digits", "--canary", "2=0.5%", "--sticky")
    assert len(both.entries("traffic.set")) == 1  # it was so already
    assert "its default version answers all calls" in both.run("traffic", "end", "digits").out
    assert both.json("traffic", "list") == []
    assert both.json("traffic", "end", "digits") == {"model": "digits", "ended": False}


def test_a_shadow_without_a_share_is_asked_every_call(both):
    row = both.json("traffic", "set", "digits", "--shadow", "2")
    assert (row["shadow"], row["shadow_lots"], row["canary"]) == (2, 10_000, 0)


def test_a_rollback_and_the_canarys_promotion_end_it(both):
    both.run("traffic", "set", "digits", "--canary", "2=50%")
    both.run("promote", "digits:2", "--to", "prod")
    both.run("traffic", "set", "digits", "--canary", "1=50%")
    both.run("rollback", "digits:prod")
    reasons = [each["facts"]["reason"] for each in both.entries("traffic.ended")]
    assert reasons == ["promoted", "rolled back"]
    assert both.json("traffic", "list") == []


def test_a_canary_goes_with_its_version(both):
    both.run("traffic", "set", "digits", "--canary", "2=50%")
    both.run("remove", "digits:2")
    assert both.json("traffic", "list") == []


@pytest.mark.parametrize(
    "share", ["2", "2=5", "2=0%", "2=0.001%", "2=101%", "=5%", "2=-1%", "2=x%"]
)
def test_a_share_is_a_percentage_of_something(both, share):
    assert both.refusal("traffic", "set", "digits", "--canary", share, wanted=2) == "traffic.share"


def test_what_cannot_answer_is_refused(both):
    assert both.refusal("traffic", "set", "digits", wanted=2) == "traffic.nothing"
    assert both.refusal("traffic", "set", "digits", "--canary", "9=5%", wanted=5) == "model.unknown"
    words = ("traffic", "set", "digits", "--canary", "2=5%", "--shadow", "2")
    assert both.refusal(*words, wanted=2) == "traffic.same"
    both.configure("[objectives]", "[approvals]\nneeded = 1\n\n[objectives]")
    words = ("traffic", "set", "digits", "--canary", "2=5%")
    assert both.refusal(*words, wanted=3) == "approval.needed"
    both.run("traffic", "set", "digits", "--shadow", "2=5%")  # it answers nobody
