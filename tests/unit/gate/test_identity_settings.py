"""`[identity]`: what is unsafe or makes no sense is refused when the configuration is read."""

import pytest

from modelkeep.config import parsed_config
from modelkeep.core.errors import ConfigError
from modelkeep.gate.identity_settings import IssuerSettings, is_fetchable

BASE = 'keep_id = "0123456789abcdef"\n[[stores]]\nlabel = "main"\npath = "stores/main"\n'
GOOD = {
    "label": '"corp"',
    "issuer": '"https://login.corp.example"',
    "audience": '"modelkeep"',
    "scopes": '["infer:*"]',
    "hosts": '["login.corp.example"]',
}


def parsed(identity="", **issuer):
    lines = [f"{name} = {value}" for name, value in {**GOOD, **issuer}.items() if value]
    text = f"{BASE}[identity]\n{identity}\n[[identity.issuers]]\n" + "\n".join(lines)
    return parsed_config(text.encode(), what="the test").identity


def test_what_is_good_is_taken():
    found = parsed("token_s = 300.0", roles_claim='"groups"', roles='{ ml = ["caller"] }')
    assert found.token_s == 300.0
    assert found.issuers[0].roles == {"ml": ("caller",)}
    assert isinstance(found.issuers[0], IssuerSettings)


@pytest.mark.parametrize(
    "change",
    [
        {"label": '"Corp"'},
        {"label": '"a:b"'},
        {"issuer": '""'},
        {"audience": '""'},
        {"scopes": "[]"},
        {"scopes": '["everything"]'},
        {"scopes": '["approve"]'},
        {"hosts": "[]"},
        {"issuer": '"http://login.corp.example"'},
        {"jwks": '"https://elsewhere.example/keys"'},
        {"jwks": '"https://a:b@login.corp.example/keys"'},
        {"jwks": '"http://login.corp.example/keys"'},
        {"algorithms": "[]"},
        {"algorithms": '["none"]'},
        {"algorithms": '["HS256"]'},
        {"leeway_s": "-1.0"},
        {"leeway_s": "nan"},
        {"lifetime_s_max": "inf"},
        {"roles_claim": '"groups"'},
        {"roles": '{ ml = ["caller"] }'},
        {"tenants": "[]"},
        {"tenants": '["*"]'},
        {"principal_claim": '"two words"'},
        {"colour": '"blue"'},
    ],
    ids=str,
)
def test_what_is_unsafe_is_refused(change):
    with pytest.raises(ConfigError):
        parsed(**change)


@pytest.mark.parametrize(
    "line",
    [
        "jwks_refresh_s_min = 0.0",
        "jwks_stale_s_max = inf",
        "token_s = 0.0",
        "password_checks_max = 0",
        "failures_free = 0",
        "passwords = { memory_kib = 4, passes = 1, lanes = 1 }",
        "passwords = { memory_kib = 9000000, passes = 1, lanes = 1 }",
    ],
)
def test_bounds_are_kept(line):
    with pytest.raises(ConfigError):
        parsed(line)


def test_two_issuers_are_told_apart():
    table = "[[identity.issuers]]\n" + "\n".join(f"{name} = {each}" for name, each in GOOD.items())
    with pytest.raises(ConfigError):
        parsed_config(f"{BASE}{table}\n{table}".encode(), what="the test")


@pytest.mark.parametrize(
    ("address", "is_good"),
    [
        ("https://login.example/keys?x=1", True),
        ("https://LOGIN.example:8443/keys", True),
        ("https://login.example.attacker.example/", False),
        ("https://login.example@attacker.example/", False),
        ("https://login.example/#x", False),
        ("https://login.example:99999/", False),
        ("https://[::1", False),
        ("file:///etc/passwd", False),
        ("https://login.example/a b", False),
        ("https://login.example/" + "x" * 3000, False),
    ],
)
def test_only_listed_hosts_over_tls_can_be_asked(address, is_good):
    assert is_fetchable(address, ("login.example",)) is is_good
