"""Goal: an issuer's keys follow its rotation, and nobody outside can make us do more than fetch.

Method: a real HTTPS server made on the spot; it rotates, fails, drips, floods and points elsewhere.
"""

import time

import pytest
from oidc_issuer import issuing

from modelkeep.adapters import jwks_fetch
from modelkeep.adapters.jwks_fetch import KeyFetcher, fetched_keys
from modelkeep.adapters.jwt_joserfc import Issuer, JoseBearers
from modelkeep.core.errors import IntegrityError, RefusedError, UnavailableError, UsageError
from modelkeep.core.record import replaced
from modelkeep.gate.authn import Keyring
from modelkeep.gate.identity_settings import IdentitySettings, IssuerSettings

FAST = IdentitySettings(jwks_refresh_s_min=0.1, jwks_timeout_s=0.5, jwks_refresh_s=3600)


@pytest.fixture
def oidc(tmp_path):
    with issuing(tmp_path) as running:
        yield running


class Desk:
    """A fetcher, and a keyring that uses what it fetched."""

    def __init__(self, issuer, settings=FAST, **more):
        self.said = []
        self.issuer = Issuer(issuer.settings(**more))
        self.fetcher = KeyFetcher([self.issuer], settings, complain=self.said.append)
        self.keyring = Keyring((), bearers=JoseBearers([self.issuer]))

    def reason(self, token):
        try:
            self.keyring.principal_of(b"Bearer " + token, now_ns=time.time_ns())
        except UsageError as error:
            return error.context["reason"]
        return ""


def test_keys_are_found_by_discovery_and_followed_when_they_rotate(oidc):
    desk = Desk(oidc)
    before = oidc.token()
    assert desk.reason(before) == "stale"
    desk.fetcher.look()
    assert desk.reason(before) == ""
    oidc.rotate("second")
    after = oidc.token()
    assert desk.reason(after) == "key"  # which asks for them
    assert desk.issuer.is_wanted
    time.sleep(FAST.jwks_refresh_s_min)
    desk.fetcher.look()
    assert desk.reason(after) == ""
    assert desk.reason(before) == "key"  # verified before, and its key is gone
    assert oidc.asked == ["/.well-known/openid-configuration", "/keys"] * 2


def test_unknown_kids_cannot_flood_the_issuer(oidc):
    rare = replaced(FAST, jwks_refresh_s_min=0.5)
    desk = Desk(oidc, settings=rare)
    desk.fetcher.look()
    good = oidc.token()
    began_s, count = time.monotonic(), 0
    while time.monotonic() - began_s < 1.1 or count < 30:
        oidc.keys = {f"unknown-{count}": next(iter(oidc.keys.values()))}
        assert desk.reason(oidc.token()) == "key"
        desk.fetcher.look()
        count += 1
    fetches = len(oidc.asked) // 2
    assert fetches <= 2 + (time.monotonic() - began_s) / rare.jwks_refresh_s_min
    assert desk.reason(good) == "key"


def test_the_thread_fetches_by_itself(oidc):
    desk = Desk(oidc)
    desk.fetcher.start()
    try:
        ends_s = time.monotonic() + 10
        while desk.reason(oidc.token()) and time.monotonic() < ends_s:
            time.sleep(0.02)
        assert desk.reason(oidc.token()) == ""
    finally:
        desk.fetcher.close()


def test_an_issuer_whose_answer_nobody_foresaw_does_not_end_the_fetching_for_others(
    oidc, monkeypatch
):
    desk = Desk(oidc)
    read = jwks_fetch.keys_of

    def unforeseen(_raw, *, what):
        monkeypatch.setattr(jwks_fetch, "keys_of", read)
        raise RuntimeError(what)

    monkeypatch.setattr(jwks_fetch, "keys_of", unforeseen)
    desk.fetcher.look()
    assert desk.said == ["issuer oidc: RuntimeError"]
    time.sleep(FAST.jwks_refresh_s_min)
    desk.fetcher.look()
    assert desk.reason(oidc.token()) == ""


def test_old_keys_are_believed_while_they_are_not_stale(oidc):
    desk = Desk(oidc, settings=IdentitySettings(jwks_refresh_s_min=0.01, jwks_stale_s_max=0.5))
    desk.fetcher.look()
    oidc.behaviour = "down"
    desk.issuer.is_wanted = True
    time.sleep(0.02)
    desk.fetcher.look()
    assert "503" in desk.said[0]
    token = oidc.token()
    assert desk.reason(token) == ""
    time.sleep(0.5)
    assert desk.reason(token) == "stale"
    oidc.behaviour = "good"
    desk.fetcher.look()
    assert desk.reason(token) == ""


@pytest.mark.parametrize(
    ("behaviour", "error", "code"),
    [
        ("down", UnavailableError, "jwks.unavailable"),
        ("redirect", UnavailableError, "jwks.unavailable"),
        ("drip", UnavailableError, "jwks.unavailable"),
        ("huge", IntegrityError, "jwks.form"),
        ("garbage", IntegrityError, "record.json"),
        ("other-host", RefusedError, "jwks.host"),
    ],
)
def test_an_issuer_that_misbehaves_costs_a_bounded_amount(oidc, behaviour, error, code):
    oidc.behaviour = behaviour
    began_s = time.monotonic()
    with pytest.raises(error) as raised:
        fetched_keys(oidc.settings(), FAST)
    assert raised.value.code == code
    assert time.monotonic() - began_s < FAST.jwks_timeout_s + 1


def test_a_certificate_of_nobody_known_is_not_believed(oidc):
    with pytest.raises(UnavailableError):
        fetched_keys(oidc.settings(ca=""), FAST)
    assert not oidc.asked


def test_a_host_that_is_not_listed_is_never_asked(oidc):
    for jwks, hosts in ((f"{oidc.name}/keys", ("login.example",)), (oidc.name, ())):
        with pytest.raises(RefusedError):
            fetched_keys(oidc.settings(jwks=jwks, hosts=hosts), FAST)
    address = f"http://localhost:{oidc.port}/keys"
    with pytest.raises(RefusedError):
        fetched_keys(oidc.settings(jwks=address), FAST)
    assert not oidc.asked


def test_a_place_where_clouds_answer_with_credentials_is_never_asked():
    settings = IssuerSettings(
        label="x",
        issuer="https://169.254.169.254",
        audience="a",
        scopes=("infer:*",),
        hosts=("169.254.169.254",),
    )
    with pytest.raises(RefusedError) as raised:
        fetched_keys(settings, FAST)
    assert raised.value.code == "jwks.host"


def test_a_file_of_keys_is_read_within_its_bound(tmp_path, oidc):
    path = tmp_path / "keys.json"
    path.write_bytes(oidc.answer("/keys")[2])
    desk = Desk(oidc, jwks=f"file:{path}")
    desk.fetcher.look()
    assert desk.reason(oidc.token()) == ""
    path.write_bytes(b" " * (FAST.jwks_bytes_max + 1))
    with pytest.raises(IntegrityError):
        fetched_keys(oidc.settings(jwks=f"file:{path}"), FAST)
    with pytest.raises(UnavailableError):
        fetched_keys(oidc.settings(jwks=f"file:{tmp_path}/none"), FAST)
