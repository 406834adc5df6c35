"""`modelkeep tokens`: a key is shown once, kept as a hash, and refused once it is revoked."""

import re
import time

import pytest

KEY = re.compile(r"mk_[0-9a-f]{16}_[A-Za-z0-9_-]{43}\n")
NS_PER_DAY = 86_400 * 10**9


def test_a_new_key_is_all_that_is_said(desk):
    desk.run("principals", "new", "alice", "--role", "caller")
    said = desk.run("tokens", "new", "alice")
    assert KEY.fullmatch(said.out)
    assert not said.err


def test_a_key_for_every_model_of_nobody_in_particular_is_noted(desk):
    said = desk.run("tokens", "new", "alice")
    assert KEY.fullmatch(said.out)
    assert "note: alice is not registered: this key may call every model" in said.err
    assert "`modelkeep principals new alice --role caller`" in said.err


def test_a_key_for_a_model_that_is_not_there_is_noted_and_made(one):
    assert not one.run("tokens", "new", "alice", "--scope", "infer:digits").err
    said = one.run("tokens", "new", "alice", "--scope", "infer:digit", "--scope", "metrics")
    assert KEY.fullmatch(said.out)
    assert said.err == (
        "modelkeep: note: there is no model digit yet: infer:digit permits nothing until there is\n"
    )


def test_two_keys_of_one_holder_differ(desk):
    first, second = (desk.json("tokens", "new", "alice") for _ in range(2))
    assert first["token_id"] != second["token_id"]
    assert first["api_key"] != second["api_key"]
    assert first["scopes"] == ["infer:*"]


def test_the_list_shows_ids_holders_and_scopes_and_never_a_key(desk):
    made = desk.json("tokens", "new", "alice", "--scope", "infer:digits", "--scope", "metrics")
    secret = made["api_key"].split("_", 2)[2]
    (listed,) = desk.json("tokens", "list")
    assert listed["token_id"] == made["token_id"]
    assert listed["scopes"] == ["infer:digits", "metrics"]
    assert listed["revoked"] is False
    human = desk.run("tokens", "list").out
    assert made["token_id"] in human
    assert "active" in human
    assert secret not in human + str(listed)
    assert secret not in str(desk.entries())


def test_an_id_in_the_table_is_whole_however_much_stands_beside_it(desk):
    """It has to be typed into `tokens revoke`."""
    scopes = [word for n in range(6) for word in ("--scope", f"infer:some-model-{n}")]
    made = desk.json("tokens", "new", "the nightly batch job of the fraud team " * 2, *scopes)
    assert made["token_id"] in desk.run("tokens", "list").out


def test_a_key_expires_when_it_was_said_to(desk):
    before_ns = time.time_ns()
    desk.run("tokens", "new", "alice", "--days", "1.5")
    (listed,) = desk.json("tokens", "list")
    assert 0 <= listed["expires_ns"] - before_ns - 1.5 * NS_PER_DAY < 60 * 10**9
    assert "never" not in desk.run("tokens", "list").out


def test_a_key_is_revoked_for_good_and_once(desk):
    made = desk.json("tokens", "new", "alice")
    for _ in range(2):
        desk.run("tokens", "revoke", made["token_id"])
    assert desk.json("tokens", "list")[0]["revoked"] is True
    assert "revoked" in desk.run("tokens", "list").out
    assert desk.kinds().count("token.revoked") == 1
    done = desk.json("tokens", "revoke", made["token_id"])
    assert done == {"token_id": made["token_id"], "revoked": True}


def test_an_unknown_key_cannot_be_revoked(desk):
    assert desk.refusal("tokens", "revoke", "0" * 16, wanted=5) == "token.unknown"


@pytest.mark.parametrize("scope", ["", "admin", "infers:x", "Infer:*", ":", "infer", "infer:"])
def test_a_scope_that_permits_nothing_known_is_refused(desk, scope):
    assert desk.refusal("tokens", "new", "alice", f"--scope={scope}", wanted=2) == "token.scope"
    assert desk.json("tokens", "list") == []


@pytest.mark.parametrize("principal", ["", "x" * 201, "a\nb", "\x1b[2J"])
def test_a_holder_needs_a_name_that_can_be_shown(desk, principal):
    assert desk.refusal("tokens", "new", principal, wanted=2) == "token.principal"


@pytest.mark.parametrize("days", ["nan", "inf", "-inf", "-1", "1e300", "1e12"])
def test_days_that_name_no_future_moment_are_refused(desk, days):
    desk.refusal("tokens", "new", "alice", f"--days={days}", wanted=2)
    assert desk.json("tokens", "list") == []


def test_a_very_late_expiry_never_breaks_the_keep(desk):
    """300 years do not fit into 64 signed bits of nanoseconds since 1970."""
    for days in ("84000", "100000", "190000", "220000"):
        desk.run("tokens", "new", "alice", "--days", days, wanted=None)
        desk.json("tokens", "list")
