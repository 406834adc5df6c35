"""What modelkeep.toml says of trust: no secret in it, no rule that protects nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.config import parsed_config, without_state
from modelkeep.core.errors import ConfigError
from modelkeep.crypto.secret import Secret
from modelkeep.crypto.signatures import Signer
from modelkeep.flows.settings import APPROVABLE_VERBS, ApprovalSettings, StateSettings
from modelkeep.ledger.cosignature import Witness

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
        "postgresql://me@[::1]:5432,localhost:5433/keeps?target_session_attrs=read-write",
        "postgresql://me@db1,db2:5433/keeps?sslmode=verify-ca&target_session_attrs=read-write",
        "postgresql://me@127.0.0.1/keeps?hostaddr=::1",
        "postgresql://a%40b@%2Frun%2Fpostgresql",
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


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://db/keeps",
        "postgresql://localhost,db/keeps",
        "postgresql://localhost%2Cdb/keeps",
        "postgresql://127.0.0.1.db.example/keeps",
        "postgresql://10.0.0.1:5432/keeps?sslmode=require",
        "postgresql://[2001:db8::1]:5432/keeps?sslmode=disable",
        "postgresql:///keeps?host=db",
        "postgresql:///keeps?h%6fst=db",
        "postgresql:///keeps?hostaddr=10.0.0.1",
        "postgresql://localhost/keeps?host=/run,db",
        "postgresql:///keeps?service=db",
        "postgresql://db/keeps?sslmode=verify-full&sslmode=prefer",
        "postgresql://db/keeps?sslmode=verify-full&ssl=true",
    ],
)
def test_another_host_is_spoken_to_only_when_it_is_known_to_be_the_right_one(url):
    """Rows of State are believed: whoever is on the way could make API keys."""
    error = refusal(f'[state]\nurl = "{url}"\n')
    assert error.code == "config.value"
    assert "verify-full" in error.message
    if "sslmode" not in url:
        mark = "&" if "?" in url else "?"
        config(f'[state]\nurl = "{url}{mark}sslmode=verify-full"\n')


def test_a_witness_that_is_named_twice_is_refused():
    """One key under two names would count as two of a quorum."""
    publics = [Signer(Secret(bytes([n]) * 32)).public for n in (1, 2)]
    keys = [Witness(name, publics[n]).verifier_key for name, n in (("a", 0), ("b", 1), ("c", 0))]
    assert config(f"[ledger.witness]\nkeys = {keys[:2]}\n").ledger.witness.keys == tuple(keys[:2])
    for named in (keys[:1] * 2, keys):
        assert refusal(f"[ledger.witness]\nkeys = {named}\n").code == "config.value"


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
    "text", ['state = { url = "postgresql:///d" }\n' + BASE, BASE + '[ state ]\nurl = "postgres://"\n']
)  # fmt: skip
def test_state_that_is_written_oddly_is_refused(text):
    with pytest.raises(ConfigError) as refused:
        without_state(text)
    assert refused.value.code == "config.state"
