"""Evidence is believed only if everything about it is right; each way to be wrong is refused."""

import base64
import hmac
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jws
from joserfc.jwk import ECKey, OKPKey

from modelkeep.adapters.attestor_software import (
    SoftwareAttester,
    is_traced,
    measured_host,
    new_key_file,
    package_digest,
)
from modelkeep.adapters.evidence_eat import (
    EVIDENCE_BYTES_MAX,
    PROFILE,
    Trust,
    anchor_of,
    line_of,
    measurements_of,
    new_key,
    proven,
    signed_evidence,
    told,
    verified,
)
from modelkeep.core.errors import RefusedError, UnavailableError, UsageError
from modelkeep.testing.memory import SeededEntropy, SteppingClock

AT_S = 1_700_000_000
NONCE = bytes(range(32))
MEASURED = {"modelkeep": "sha-256:ab", "python": "3.11.7"}
PRIVATE, PUBLIC = new_key("ES256")
_, STRANGER = new_key("ES256")
KEY = ECKey.import_key(PRIVATE.reveal())
TRUST = Trust((anchor_of(STRANGER), anchor_of(PUBLIC)), ("modelkeep=sha-256:ab",), 120.0)


def evidence(**changes):
    facts = {"nonce": NONCE, "issued_s": AT_S, "debug": "disabled", "measured": MEASURED}
    return signed_evidence(PRIVATE, **(facts | changes))


def resigned(*, key=KEY, header=None, drop=(), **claims):
    """Evidence with other claims, under a signature that verifies."""
    payload = json.loads(base64.urlsafe_b64decode(evidence().split(b".")[1] + b"=="))
    payload = {name: each for name, each in (payload | claims).items() if name not in drop}
    head = {"alg": "ES256", "typ": "eat+jwt"} | (header or {})
    raw = jws.serialize_compact(head, json.dumps(payload).encode(), key, algorithms=[head["alg"]])
    return raw.encode()


def refusal(raw, *, nonce=NONCE, trust=TRUST, at_s=AT_S):
    with pytest.raises(RefusedError) as refused:
        verified(raw, nonce=nonce, trust=trust, now_ns=at_s * 10**9)
    return refused.value.code


def written(raw):
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


@pytest.mark.parametrize("algorithm", ["ES256", "Ed25519"])
def test_evidence_of_a_known_host_is_believed(algorithm):
    private, public = new_key(algorithm)
    raw = signed_evidence(
        private, nonce=NONCE, issued_s=AT_S, debug="disabled", measured=MEASURED, boot=b"boot"
    )
    trust = Trust((anchor_of(PUBLIC), anchor_of(public)), TRUST.measurements, 120.0)
    found = verified(raw, nonce=NONCE, trust=trust, now_ns=AT_S * 10**9)
    assert found.ueid == anchor_of(public).ueid
    assert base64.urlsafe_b64decode(found.ueid)[0] == 1, "a RAND UEID (RFC 9711, 4.2.1)"
    assert found.measurements == "modelkeep=sha-256:ab python=3.11.7"
    assert (found.debug, found.boot) == ("disabled", written(b"boot"))


def test_the_token_is_one_that_others_can_read():
    header, payload, _ = (base64.urlsafe_b64decode(part + b"==") for part in evidence().split(b"."))
    assert json.loads(header) == {"alg": "ES256", "typ": "eat+jwt", "kid": KEY.thumbprint()}
    claims = json.loads(payload)
    assert (claims["eat_profile"], claims["dbgstat"], claims["iat"]) == (PROFILE, "disabled", AT_S)
    assert claims["eat_nonce"] == written(NONCE)
    ((content, body),) = claims["measurements"]
    assert (content, json.loads(base64.urlsafe_b64decode(body + "=="))) == (50, MEASURED)


def test_another_nonce_is_refused_and_so_is_what_was_shown_before():
    assert refusal(evidence(), nonce=bytes(32)) == "attest.nonce"
    assert refusal(evidence(nonce=NONCE[:16])) == "attest.nonce"
    for nonce in ([written(NONCE)], None, "", written(NONCE) + "="):
        assert refusal(resigned(eat_nonce=nonce)) == "attest.nonce"

    class Recorded:
        seen = b""

        def evidence(self, nonce):
            self.seen = self.seen or evidence(nonce=nonce)
            return self.seen

    attester, clock = Recorded(), SteppingClock(AT_S * 10**9)
    entropy = SeededEntropy()
    assert proven(attester, TRUST, entropy=entropy, clock=clock)
    with pytest.raises(RefusedError) as refused:
        proven(attester, TRUST, entropy=entropy, clock=clock)
    assert refused.value.code == "attest.nonce"


def test_only_an_anchor_is_believed_and_never_a_key_that_the_token_brings():
    assert refusal(evidence(), trust=Trust((), None, 120.0)) == "attest.signature"
    assert refusal(evidence(), trust=Trust(TRUST.anchors[:1], None, 120.0)) == "attest.signature"
    other = ECKey.generate_key("P-256")
    assert refusal(resigned(key=other)) == "attest.signature"
    brought = {"jwk": other.as_dict(private=False)}
    assert refusal(resigned(key=other, header=brought)) == "attest.form"
    for header in ({"typ": "JWT"}, {"x5u": "https://a/b"}, {"jku": "https://a/b"}):
        assert refusal(resigned(header=header)) == "attest.form"


def test_no_other_algorithm_is_taken():
    _, payload, _ = evidence().split(b".")
    none = written(b'{"alg":"none","typ":"eat+jwt"}').encode()
    assert refusal(b".".join((none, payload, b""))) == "attest.signature"
    signed = written(b'{"alg":"HS256","typ":"eat+jwt"}').encode() + b"." + payload
    tag = hmac.digest(PUBLIC, signed, "sha256")  # the public key, taken for a shared secret
    assert refusal(signed + b"." + written(tag).encode()) == "attest.signature"
    p384 = ECKey.generate_key("P-384")
    assert refusal(resigned(key=p384, header={"alg": "ES384"})) == "attest.signature"
    with pytest.raises(UsageError):
        anchor_of(p384.as_pem(private=False))


def test_evidence_is_fresh_or_refused():
    for at_s in (AT_S - 61, AT_S + 121, 0, AT_S * 2):
        assert refusal(evidence(), at_s=at_s) == "attest.stale"
    assert verified(evidence(), nonce=NONCE, trust=TRUST, now_ns=(AT_S + 120) * 10**9)
    for iat in (None, "1700000000", True, 1.7e9, [], 10**30, -(10**30), 10**400, -(10**400)):
        assert refusal(resigned(iat=iat)) == "attest.stale"


def test_a_key_speaks_for_its_own_host_only_unless_it_is_of_a_fleet():
    someone = written(b"\x01" + bytes(32))
    assert refusal(resigned(ueid=someone)) == "attest.host"
    fleet = Trust((anchor_of(PUBLIC, is_fleet=True),), None, 120.0)
    found = verified(resigned(ueid=someone), nonce=NONCE, trust=fleet, now_ns=AT_S * 10**9)
    assert found.ueid == someone
    for ueid in ("", written(bytes(6)), written(bytes(34)), someone + "=", 7, None):
        assert refusal(resigned(ueid=ueid), trust=fleet) == "attest.host"


def test_debugging_must_be_said_to_be_off():
    for status in ("enabled", "", None, 1, ["disabled"], "Disabled"):
        assert refusal(resigned(dbgstat=status)) == "attest.debug"
    assert refusal(resigned(drop=("dbgstat",))) == "attest.debug"
    assert verified(
        resigned(dbgstat="disabled-permanently"), nonce=NONCE, trust=TRUST, now_ns=AT_S * 10**9
    )


def test_all_of_one_allowed_line_must_have_been_measured():
    def under(*lines):
        return Trust(TRUST.anchors, lines, 120.0)

    good = under("modelkeep=other", "python=3.11.7 modelkeep=sha-256:ab")
    assert verified(evidence(), nonce=NONCE, trust=good, now_ns=AT_S * 10**9)
    for trust in (under(), under("modelkeep=sha-256:ac"), under("modelkeep=sha-256:ab secure=on")):
        assert refusal(evidence(), trust=trust) == "attest.measurement"
    body = written(json.dumps({"a": 1}).encode())
    for claim in (None, [], [[50, "%"]], [[258, body]], [[50, body]], [[50, body], [50, body]]):
        code = refusal(resigned(measurements=claim))
        assert code in ("attest.measurement", "attest.form")


def test_another_profile_is_refused():
    assert refusal(resigned(eat_profile="urn:other")) == "attest.profile"
    assert refusal(resigned(drop=("eat_profile",))) == "attest.profile"


def test_no_changed_byte_is_believed():
    raw = evidence()
    for at in range(0, len(raw), 3):
        changed = bytearray(raw)
        changed[at] ^= 1
        refusal(bytes(changed))
    refusal(raw + b"A" * EVIDENCE_BYTES_MAX)


@given(st.one_of(st.binary(max_size=200), st.text(max_size=99).map(str.encode)))
def test_rubbish_is_refused_and_nothing_else_happens(raw):
    refusal(raw)
    refusal(b".".join((evidence().split(b".")[0], raw, b"x")))


CLAIMS = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=9)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=6,
)
NAMES = st.sampled_from(
    ["eat_profile", "eat_nonce", "iat", "ueid", "dbgstat", "measurements", "swversion", "swname"]
)


@given(st.dictionaries(NAMES, CLAIMS, min_size=1, max_size=3))
def test_whatever_an_anchor_signs_is_refused_or_well_formed(claims):
    raw = resigned(**claims)
    try:
        found = verified(raw, nonce=NONCE, trust=TRUST, now_ns=AT_S * 10**9)
    except RefusedError:
        return
    assert found.ueid == anchor_of(PUBLIC).ueid
    assert found.software.isprintable()


@given(
    st.dictionaries(
        st.from_regex(r"[a-z][a-z0-9_]{0,9}", fullmatch=True),
        st.from_regex(r"[!-<>-~]{1,20}", fullmatch=True),
        min_size=1,
        max_size=5,
    )
)
def test_a_line_of_measurements_is_read_as_it_was_written(measured):
    assert measurements_of(line_of(measured)) == measured


@pytest.mark.parametrize("line", ["", "modelkeep", "a=1 a=2", "A=1", "a=", "a=1=2"])
def test_what_is_no_line_of_measurements_is_refused(line):
    with pytest.raises(UsageError):
        measurements_of(line)


def test_a_private_key_is_no_anchor_and_a_public_one_does_not_sign():
    with pytest.raises(UsageError):
        anchor_of(PRIVATE.reveal())
    for raw in (b"", b"-----BEGIN PUBLIC KEY-----\nAA==\n-----END PUBLIC KEY-----\n", b"{}"):
        with pytest.raises(UsageError):
            anchor_of(raw)
    with pytest.raises(UsageError):
        anchor_of(OKPKey.generate_key("X25519").as_pem(private=False))


def test_a_host_with_a_key_file_proves_that_it_has_it(tmp_path):
    ueid, public = new_key_file(tmp_path / "key", algorithm="Ed25519")
    clock = SteppingClock(AT_S * 10**9)
    attester = SoftwareAttester(str(tmp_path / "key"), clock=clock, measure=lambda: MEASURED)
    trust = Trust((anchor_of(public),), TRUST.measurements, 120.0)
    assert not is_traced()
    found = proven(attester, trust, entropy=SeededEntropy(), clock=clock)
    assert found.ueid == ueid
    assert told(attester.evidence(NONCE)).nonce == NONCE.hex()


def test_a_key_that_is_gone_or_lies_open_attests_nothing(tmp_path):
    path = tmp_path / "key"
    attester = SoftwareAttester(str(path), clock=SteppingClock())
    with pytest.raises(UnavailableError) as failed:
        attester.evidence(NONCE)
    assert failed.value.code == "attest.unavailable"
    new_key_file(path, algorithm="ES256")
    path.chmod(0o644)
    with pytest.raises(RefusedError) as refused:
        attester.evidence(NONCE)
    assert refused.value.code == "attest.key"
    with pytest.raises(UsageError):
        new_key_file(path, algorithm="ES256")


def test_what_is_measured_can_be_allowed_and_changes_with_the_package(tmp_path):
    measured = measured_host()
    assert measurements_of(line_of(measured)) == measured
    (tmp_path / "a.py").write_text("1")
    before = package_digest(tmp_path)
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "a.pyc").write_text("x")
    assert package_digest(tmp_path) == before
    (tmp_path / "a.py").rename(tmp_path / "b.py")
    assert package_digest(tmp_path) != before
