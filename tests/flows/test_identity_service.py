"""Goal: tokens are given for passwords and end with them; what is taken away is gone in a second.

Method: a real gateway; State is written beside it, as verbs would; clients ask over kept TLS
connections, and the time from the entry to the first refusal is measured.
"""

import base64
import contextlib
import json
import time
import urllib.parse

import pytest
from identity_attacks import Presented
from identity_scene import HOUR_S, PASSWORD, Scene
from identity_world import HttpCaller, started
from oidc_issuer import issuing

from modelkeep.core.call_record import CallRecord, RefusalSummary, decoded_record
from modelkeep.core.record import replaced
from modelkeep.wiring import open_journal

pytestmark = pytest.mark.slow
WITHIN_S = 1.0
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.fixture(scope="module")
def oidc(tmp_path_factory):
    with issuing(tmp_path_factory.mktemp("issuer")) as running:
        yield running


@pytest.fixture(scope="module")
def world(oidc, tmp_path_factory):
    scene = Scene(tmp_path_factory.mktemp("scene"))
    usual = scene.identity()
    identity = replaced(
        usual,
        issuers=(*usual.issuers, oidc.settings(label="oidc", scopes=("infer:digits",))),
        jwks_refresh_s_min=0.2,
        failures_free=10,  # and 40 of this whole module: all come from loopback
    )
    running = started(scene, tmp_path_factory.mktemp("gateway") / "keep", identity=identity)
    yield running
    running.stop()


class Asking:
    """One caller over one kept connection."""

    def __init__(self, world, token, client=None):
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.connection = world.connected(client.pem if client else b"")

    def status(self):
        self.connection.request("GET", "/v2/models/digits", headers=self.headers)
        answer = self.connection.getresponse()
        answer.read()
        return answer.status

    def seconds_until(self, wanted):
        began_s = time.monotonic()
        while (found := self.status()) != wanted:
            assert time.monotonic() - began_s < 5 * WITHIN_S, found
            time.sleep(0.005)
        return time.monotonic() - began_s


@contextlib.contextmanager
def asking(world, token="", client=None):
    caller = Asking(world, token, client)
    with contextlib.closing(caller.connection):
        yield caller


def basic(name, password):
    quoted = ":".join(urllib.parse.quote_plus(each) for each in (name, password))
    return {"Authorization": "Basic " + base64.b64encode(quoted.encode()).decode(), **FORM}


def test_a_password_gives_a_token_that_opens(world):
    status, headers, body = world.token("robot", PASSWORD)
    assert status == 200
    assert set(body) == {"access_token", "token_type", "expires_in", "scope"}
    assert (body["token_type"], body["expires_in"], body["scope"]) == ("Bearer", 600, "infer:*")
    assert headers["cache-control"] == "no-store"
    assert headers["pragma"] == "no-cache"
    with asking(world, body["access_token"]) as caller:
        assert caller.status() == 200


@pytest.mark.parametrize("form", ["basic", "fields", "json", "json-password"])
def test_every_form_of_the_standard_is_taken(world, form):
    name, secret = "robot", PASSWORD
    fields = {"grant_type": "client_credentials", "client_id": name, "client_secret": secret}
    if form == "basic":
        status, _, body = world.posted(b"grant_type=client_credentials", basic(name, secret))
    elif form == "fields":
        status, _, body = world.posted(urllib.parse.urlencode(fields).encode(), FORM)
    else:
        if form == "json-password":
            fields = {"grant_type": "password", "username": name, "password": secret}
        headers = {"Content-Type": "application/json"}
        status, _, body = world.posted(json.dumps(fields).encode(), headers)
    assert (status, body.get("token_type")) == (200, "Bearer"), body


def test_a_token_can_be_asked_for_with_fewer_scopes(world):
    status, _, body = world.token("robot", PASSWORD, scope="infer:other")
    assert (status, body["scope"]) == (200, "infer:other")
    with asking(world, body["access_token"]) as caller:
        assert caller.status() == 403
    status, _, body = world.token("robot", PASSWORD, scope="infer:digits approve")
    assert (status, body["error"]) == (400, "invalid_scope")


@pytest.mark.parametrize(
    ("body", "headers", "status", "error"),
    [
        (b"", FORM, 400, "unsupported_grant_type"),
        (b"grant_type=implicit", FORM, 400, "unsupported_grant_type"),
        (b"grant_type=password&username=robot", FORM, 400, "invalid_request"),
        (b"grant_type=password&grant_type=password", FORM, 400, "invalid_request"),
        (b"grant_type=client_credentials", basic("robot", "wrong"), 401, "invalid_client"),
        (
            b"grant_type=client_credentials&client_id=x&client_secret=y",
            basic("robot", PASSWORD),
            400,
            "invalid_request",
        ),
        (
            b"grant_type=client_credentials",
            {"Authorization": "Bearer x", **FORM},
            400,
            "invalid_request",
        ),
        (b"%ff=1&grant_type=password", FORM, 400, "invalid_request"),
        (b"[]", {"Content-Type": "application/json"}, 400, "invalid_request"),
        (b'{"grant_type":["password"]}', {"Content-Type": "application/json"}, 400, None),
        (b"&".join([b"a=1"] * 40), FORM, 400, "invalid_request"),
        (b"x", {"Content-Type": "text/plain"}, 415, "invalid_request"),
        (b"grant_type=" + b"x" * 9000, FORM, 413, "invalid_request"),
    ],
)
def test_what_is_wrong_is_said_in_the_words_of_the_standard(world, body, headers, status, error):
    found, told, said = world.posted(body, headers)
    assert found == status, said
    assert set(said) == {"error", "error_description"}
    assert error in (None, said["error"])
    assert ("www-authenticate" in told) == (status == 401)


def test_nobody_learns_whether_there_is_an_account(world):
    names = ("robot", "alice", "carol", "no-such-principal", "oscar")
    said = {str(world.token(name, "wrong password")[::2]) for name in names}
    assert said == {
        "(400, {'error': 'invalid_grant', 'error_description': 'the credentials are not valid'})"
    }


def test_a_disabled_account_gets_no_token(world):
    assert world.token("carol", PASSWORD)[0] == 400


def test_who_guesses_waits(world):
    for _ in range(10):
        assert world.token("mallory", "wrong password")[0] == 400
    status, headers, body = world.token("mallory", "wrong password")
    assert (status, body["error"]) == (429, "temporarily_unavailable")
    assert 1 <= int(headers["retry-after"]) <= 2
    assert world.token("robot", PASSWORD)[0] == 200


def test_another_password_ends_the_tokens_of_the_one_before(world):
    _, _, body = world.token("oscar", PASSWORD)
    with asking(world, body["access_token"]) as caller:
        assert caller.status() == 403  # known, and permitted another model only
        world.scene.set_password("oscar", "another password", password_id="a" * 16)
        entry = world.scene.entries[-1]
        world.state.apply(world.state.applied().entries, [entry])
        assert caller.seconds_until(401) < WITHIN_S
    assert world.token("oscar", PASSWORD)[0] == 400
    assert world.token("oscar", "another password")[0] == 200


def test_all_credentials_of_a_disabled_principal_end_within_a_second(world):
    scene = world.scene
    _, _, body = world.token("robot", PASSWORD)
    with (
        asking(world, body["access_token"]) as token,
        asking(world, client=scene.clients["robot"]) as certificate,
    ):
        assert token.status() == certificate.status() == 200
        world.apply("principal.disabled", principal="robot")
        assert token.seconds_until(401) < WITHIN_S
        assert certificate.status() == 401
        assert world.token("robot", PASSWORD)[0] == 400
        world.apply("principal.enabled", principal="robot")
        assert token.seconds_until(200) < WITHIN_S


def test_a_revoked_certificate_is_refused_within_a_second(world):
    client = world.scene.clients["alice"]
    issued = [each for each in world.scene.entries if each.kind == "certificate.issued"]
    fingerprint = issued[0].facts["fingerprint"]
    with asking(world, client=client) as caller:
        assert caller.status() == 200
        world.apply("certificate.revoked", fingerprint=fingerprint)
        assert caller.seconds_until(401) < WITHIN_S


def test_an_issuer_that_is_disabled_is_refused_within_a_second(world):
    with asking(world, world.scene.corp().decode()) as caller:
        assert caller.status() == 200
        world.apply("issuer.disabled", issuer="corp")
        assert caller.seconds_until(401) < WITHIN_S
        world.apply("issuer.enabled", issuer="corp")
        assert caller.seconds_until(200) < WITHIN_S


def test_a_subject_of_an_issuer_can_be_shut_out(world):
    token = world.scene.corp(sub="u-9")
    with asking(world, token.decode()) as caller:
        assert caller.status() == 200
        world.apply("principal.created", principal="jwt:corp:u-9", tenant="default", roles=())
        assert caller.seconds_until(403) < WITHIN_S
        world.apply("principal.disabled", principal="jwt:corp:u-9")
        assert caller.seconds_until(401) < WITHIN_S


def test_the_keys_of_an_issuer_rotate_while_it_is_used(world, oidc):
    before = oidc.token(aud="modelkeep-gate")
    with asking(world, before.decode()) as old:
        assert old.seconds_until(200) < 5
        oidc.rotate("next")
        with asking(world, oidc.token().decode()) as new:
            assert new.seconds_until(200) < 5
        assert old.status() == 401


def test_what_was_given_is_recorded_and_what_was_not_is_counted(world):
    assert world.token("robot", "wrong password")[0] == 400
    assert world.posted(b"grant_type=implicit", FORM)[0] == 400
    status, headers, _ = world.token("robot", PASSWORD)
    assert status == 200
    position = int(headers["modelkeep-receipt"].rpartition(":")[2])
    time.sleep(1.2)
    journal = open_journal(world.folder / "calls", writable=False)
    records = [decoded_record(frame) for _, frame in journal.read(0)]
    call = records[position]
    assert isinstance(call, CallRecord)
    assert (call.principal, call.model, call.status) == ("robot", "", 200)
    assert not call.input_commitment
    counted = {each.reason for each in records if isinstance(each, RefusalSummary)}
    assert {"auth.invalid", "token.grant"} <= counted


def test_a_token_ends_by_itself(world):
    past = world.scene.own_token("robot", now_ns=(world.scene.now_s - HOUR_S) * 10**9)
    assert HttpCaller(world)(Presented(b"Bearer " + past)) == 401
