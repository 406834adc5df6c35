"""[state] and [approvals] of modelkeep.toml: no secret in it, no rule that protects nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.config import parsed_config, without_state
from modelkeep.core.errors import ConfigError
from modelkeep.flows.settings import APPROVABLE_VERBS, ApprovalSettings, StateSettings

BASE = 'keep_id = "0123456789abcdef"\n[[stores]]\nlabel = "main"\npath = "m"\n'


def config(text):
    return parsed_config((BASE + text).encode(), what="it")


def refusal(text):
    with pytest.raises(ConfigError) as refused:
        config(text)
    return refused.value


@pytest.mark.parametrize(
    "url",
    [
        "",
        "postgresql://",
        "postgresql://me@/db?host=/run/postgresql",
        "postgres://me@db.example:5432/keeps?sslmode=verify-full&sslrootcert=/etc/ca.pem",
        "postgresql://me@[::1]:5432,db2:5433/keeps?target_session_attrs=read-write",
        "postgresql://a%40b@host",
    ],
)
def test_addresses_without_a_secret_are_taken(url):
    assert config(f'[state]\nurl = "{url}"\n').state == StateSettings(url=url)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:canary@host/db",
        "postgresql://me:can/ary@host/db",
        "postgresql://me:can?ary@host/db",
        "postgresql://me:canary",
        "postgresql://:canary@host/db",
        "postgresql://host/db?password=canary",
        "postgresql://host/db?PassWord=canary",
        "postgresql://host/db?%70assword=canary",
        "postgresql://host/db?sslpassword=canary",
        "host=canary password=canary",
        "mysql://canary",
        "canary",
    ],
)
def test_an_address_that_may_hold_a_secret_is_refused_and_not_repeated(url):
    error = refusal(f'[state]\nurl = "{url}"\n')
    assert "canary" not in str(error) + error.hint


@given(st.text(alphabet="postgresql:/@?&=%#[],.ab1 ", max_size=40))
def test_whatever_stands_there_is_taken_or_refused(url):
    try:
        config(f"[state]\nurl = '{url}'\n")
    except ConfigError:
        return
    assert "@" not in url.partition("@")[2]


@pytest.mark.parametrize("password", ["hunter2", "env:PGPASSWORD", "file:relative"])
def test_a_password_is_a_reference(password):
    error = refusal(f'[state]\nurl = "postgresql://h/d"\npassword = "{password}"\n')
    assert error.code.startswith("reference.")
    assert password not in str(error) + error.hint


def test_a_password_without_an_address_is_a_mistake():
    assert refusal('[state]\npassword = "file:/x"\n').code == "config.value"


def test_approvals_are_off_until_somebody_says_otherwise():
    assert config("").approvals == ApprovalSettings(needed=0)
    assert set(ApprovalSettings().verbs) <= set(APPROVABLE_VERBS)


@pytest.mark.parametrize(
    "line",
    [
        "needed = 3",
        "needed = -1",
        "needed = true",
        'verbs = ["keys.destory"]',
        "expires_s = 0.0",
        "expires_s = nan",
        "expires_s = inf",
        "expires_s = 2592001.0",
    ],
)
def test_a_rule_that_would_not_hold_is_refused(line):
    assert refusal(f"[approvals]\n{line}\n").code in ("config.value", "config.key")


STATE = '[state]  # where\nurl = "postgresql://me@[::1]:5432/keeps"\n\npassword = "exec:/bin/x"\n'


@pytest.mark.parametrize(
    ("before", "after"), [("", ""), ("[serve]\nport = 1\n", "[gate]\nheaders_max = 9\n")]
)
def test_a_recovery_takes_state_out_and_nothing_else(before, after):
    found = without_state(BASE + before + STATE + after)
    assert found == BASE + before + after
    assert without_state(found) == found


@pytest.mark.parametrize(
    "text", ['state = { url = "postgresql://h/d" }\n' + BASE, BASE + '[ state ]\nurl = "postgres://"\n']
)  # fmt: skip
def test_state_that_is_written_oddly_is_refused(text):
    with pytest.raises(ConfigError) as refused:
        without_state(text)
    assert refused.value.code == "config.state"
