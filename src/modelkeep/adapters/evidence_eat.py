"""Evidence as an Entity Attestation Token (RFC 9711): a JWT in which a host says what it is.

Header: `alg`, ES256 or Ed25519; `typ`, `eat+jwt` (RFC 9782); nothing else but `kid`, which is not
read. Claims: `eat_profile` names this profile, a UUID; `eat_nonce` is the verifier's, base64url;
`iat`; `ueid`; `dbgstat`; `measurements` is `[[50, base64url of a JSON object name -> value]]`, 50
being application/json; `swname`, `swversion` and `bootseed` may be there. Other claims are skipped.

Verification, in this order; whatever fails, the answer is a RefusedError and nothing was believed.
1. The size is bounded. 2. The header is of the form above, so the token cannot bring its own key.
3. One of the trust anchors signed it, with the algorithm of that key. 4. The profile is ours.
5. The nonce is the one that was given out, compared in constant time. 6. It was made just now.
7. The anchor may speak for this UEID. 8. Debugging is off. 9. The measurements are allowed ones.

That a nonce counts once is up to who gives it out: `proven` keeps it for one exchange only.
"""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey

from modelkeep.core.errors import IntegrityError, RefusedError, UsageError
from modelkeep.core.instant import NS_PER_S
from modelkeep.core.record import Record, parsed_json, to_json
from modelkeep.crypto.secret import Secret
from modelkeep.ports.attestor import NONCE_BYTES, Attested, Attestor
from modelkeep.ports.clock import Clock
from modelkeep.ports.entropy import Entropy

# Ours is under 1 KiB; one with a chain of certificates in a claim stays under this.
EVIDENCE_BYTES_MAX = 16 * 1024
ANCHORS_MAX = 64
PROFILE = "urn:uuid:5c2c2c26-6f0e-4d3c-9a3f-0d3f5d1f8e57"
TYPE = "eat+jwt"
ALGORITHMS = ("ES256", "Ed25519")
DEBUG_OFF = (
    "disabled",
    "disabled-since-boot",
    "disabled-permanently",
    "disabled-fully-and-permanently",
)
# A host's clock may be that much ahead of ours.
SKEW_NS = 60 * NS_PER_S
_RAND = b"\x01"  # the type of UEID that is a random or hashed number
_JSON_FORMAT = 50  # CoAP content format of application/json
_UEID_BYTES = range(7, 34)
_MEASURED_MAX = 64
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_VALUE = re.compile(r"[!-<>-~]{1,200}")  # no space, no `=`: a line of them stays readable
_BASE64URL = re.compile(r"[A-Za-z0-9_-]{1,4096}")
_TEXT_CHARS_MAX = 100

Key = ECKey | OKPKey


@dataclass(frozen=True, slots=True)
class Anchor:
    """A public key whose evidence is believed.

    Attributes:
        ueid: the one host that it may speak for; empty for whichever it names.
    """

    key: Key
    ueid: str


@dataclass(frozen=True, slots=True)
class Trust:
    """What a verifier believes.

    Attributes:
        anchors: none trusts nobody.
        measurements: lines of `name=value` with spaces between; evidence must hold all of one line.
            None allows no less than everything: for people who look themselves.
        age_s_max: how old evidence may be.
    """

    anchors: tuple[Anchor, ...]
    measurements: tuple[str, ...] | None
    age_s_max: float


class Told(Record, frozen=True):
    """What evidence says; nothing of it is proven.

    Attributes:
        nonce: hexadecimal, as the verifier gave it out.
    """

    profile: str
    nonce: str
    ueid: str
    debug: str
    measurements: str
    software: str
    boot: str


def anchor_of(raw: bytes, *, is_fleet: bool = False) -> Anchor:
    """Read a public key in PEM form, P-256 or Ed25519.

    Args:
        is_fleet: it may speak for any host; otherwise only for the one that its own thumbprint
            names, which is how `modelkeep attest new` identifies a host.

    Raises:
        UsageError: `attest.anchor`.
    """
    key = _key(raw, what="an anchor is a public key in PEM form, P-256 or Ed25519")
    if key.is_private:
        raise UsageError("attest.anchor", "an anchor is a public key, and this is a private one")
    return Anchor(key, "" if is_fleet else ueid_of(key))


def new_key(algorithm: str) -> tuple[Secret, bytes]:
    """Make an attestation key: private and public half, PEM."""
    key: Key = (
        OKPKey.generate_key("Ed25519") if algorithm == "Ed25519" else ECKey.generate_key("P-256")
    )
    return Secret(key.as_pem(private=True)), key.as_pem(private=False)


def ueid_of(key: Key) -> str:
    """The identifier of a host that is known by its key: a RAND UEID of the key's thumbprint."""
    return _written(_RAND + _read(key.thumbprint()))


def signed_evidence(
    private: Secret,
    *,
    nonce: bytes,
    issued_s: int,
    debug: str,
    measured: dict[str, str],
    boot: bytes = b"",
    claims: dict[str, Any] | None = None,
) -> bytes:
    """Make evidence of a host that is known by its key.

    Args:
        measured: names and values, as `_NAME` and `_VALUE` allow.
        boot: another one after each start of the host.
        claims: further ones of RFC 9711.

    Raises:
        UsageError: `attest.anchor`, when it is no key of the right kind.
    """
    key = _key(private.reveal(), what="an attestation key is a private key in PEM form")
    if not key.is_private:
        raise UsageError("attest.anchor", "an attestation key is private, and this one is public")
    said = {
        "eat_profile": PROFILE,
        "eat_nonce": _written(nonce),
        "iat": issued_s,
        "ueid": ueid_of(key),
        "dbgstat": debug,
        "measurements": [[_JSON_FORMAT, _written(to_json(measured))]],
        **({"bootseed": _written(boot)} if boot else {}),
        **(claims or {}),
    }
    header = {"alg": _algorithm_of(key), "typ": TYPE, "kid": key.thumbprint()}
    return jws.serialize_compact(header, to_json(said), key, algorithms=ALGORITHMS).encode()


def proven(attestor: Attestor, trust: Trust, *, entropy: Entropy, clock: Clock) -> Attested:
    """Ask a host for evidence over a nonce that is used this once, and verify it.

    Raises:
        RefusedError: `attest.*`.
        UnavailableError: `attest.unavailable`.
    """
    nonce = entropy.random_bytes(NONCE_BYTES)
    return verified(attestor.evidence(nonce), nonce=nonce, trust=trust, now_ns=clock.now_ns())


def verified(evidence: bytes, *, nonce: bytes, trust: Trust, now_ns: int) -> Attested:
    """Verify evidence; the numbers are those of the module.

    Raises:
        RefusedError: `attest.form`, `attest.signature`, `attest.profile`, `attest.nonce`,
            `attest.stale`, `attest.host`, `attest.debug` or `attest.measurement`.
    """
    claims, anchor = _signed_claims(evidence, trust.anchors)  # 1, 2, 3
    if claims.get("eat_profile") != PROFILE:  # 4
        raise RefusedError("attest.profile", f"the evidence is not of the profile {PROFILE}")
    said = _bytes_of(claims, "eat_nonce")
    if not hmac.compare_digest(said, nonce):  # 5
        raise RefusedError(
            "attest.nonce", "the evidence answers another question: it is old, or of somebody else"
        )
    issued_s = claims.get("iat")  # of any size: it is compared in whole numbers
    age_ns_max = trust.age_s_max * NS_PER_S
    if type(issued_s) is not int or not -SKEW_NS <= now_ns - issued_s * NS_PER_S <= age_ns_max:
        raise RefusedError(  # 6
            "attest.stale",
            "the evidence was not made just now",
            hint="compare the clocks of both machines",
        )
    raw_ueid = _bytes_of(claims, "ueid")
    ueid = _written(raw_ueid)
    if len(raw_ueid) not in _UEID_BYTES or (anchor.ueid and ueid != anchor.ueid):  # 7
        raise RefusedError("attest.host", "the key that signed may not speak for this host")
    debug = claims.get("dbgstat")
    if debug not in DEBUG_OFF:  # 8
        raise RefusedError("attest.debug", "debugging is not known to be off on that host")
    measured = _measured(claims)
    if trust.measurements is not None and not _is_allowed(measured, trust.measurements):  # 9
        raise RefusedError(
            "attest.measurement",
            "what the host measured of itself is not what is allowed",
            hint="`modelkeep attest show` prints its measurements",
        )
    return Attested(
        ueid=ueid,
        anchor=anchor.key.thumbprint(),
        measurements=line_of(measured),
        debug=debug,
        issued_s=issued_s,
        software=_software(claims),
        boot=_text(claims.get("bootseed")),
    )


def told(evidence: bytes) -> Told:
    """What evidence says, whether that is true or not: for people.

    Raises:
        RefusedError: `attest.form` or `attest.measurement`.
    """
    payload = _parsed(evidence).payload or b""
    claims = _claims(payload)
    return Told(
        profile=_text(claims.get("eat_profile")),
        nonce=_bytes_of(claims, "eat_nonce").hex(),
        ueid=_text(claims.get("ueid")),
        debug=_text(claims.get("dbgstat")),
        measurements=line_of(_measured(claims)),
        software=_software(claims),
        boot=_text(claims.get("bootseed")),
    )


def line_of(measured: dict[str, str]) -> str:
    """Measurements as one line, for people and configurations."""
    return " ".join(f"{name}={value}" for name, value in sorted(measured.items()))


def measurements_of(line: str) -> dict[str, str]:
    """Read what `line_of` wrote.

    Raises:
        UsageError: `attest.line`, for none, or what cannot be measured.
    """
    found: dict[str, str] = {}
    for word in line.split():
        name, _, value = word.partition("=")
        if not _is_measurement(name, value) or name in found:
            found = {}
            break
        found[name] = value
    if not found:
        raise UsageError(
            "attest.line",
            f"{line[:200]!r} is no line of measurements",
            hint="name=value with spaces between, as `modelkeep attest show` prints them",
        )
    return found


def _signed_claims(evidence: bytes, anchors: tuple[Anchor, ...]) -> tuple[dict[str, Any], Anchor]:
    """What one of the anchors signed, and which.

    Raises:
        RefusedError: `attest.form` or `attest.signature`.
    """
    evidence = evidence.strip()
    header = _parsed(evidence).headers()  # 1
    algorithm = header.get("alg")
    if not header.keys() <= {"alg", "typ", "kid"} or header.get("typ") != TYPE:  # 2
        raise RefusedError("attest.form", f"this is no JWT of type {TYPE} with a plain header")
    for anchor in anchors:  # 3
        if algorithm != _algorithm_of(anchor.key):
            continue
        try:
            signed = jws.deserialize_compact(evidence, anchor.key, algorithms=[algorithm])
        except (JoseError, ValueError):
            continue
        return _claims(signed.payload or b""), anchor
    raise RefusedError(
        "attest.signature",
        "no trust anchor signed this evidence",
        hint="the host's public key has to be among the anchors",
    )


def _parsed(evidence: bytes) -> jws.CompactSignature:
    """A JWT in its parts, unverified.

    Raises:
        RefusedError: `attest.form`.
    """
    if len(evidence.strip()) > EVIDENCE_BYTES_MAX:
        raise RefusedError("attest.form", f"evidence has at most {EVIDENCE_BYTES_MAX} bytes")
    try:
        return jws.extract_compact(evidence.strip())
    except (JoseError, ValueError, RecursionError) as error:
        raise RefusedError("attest.form", "this is no signed JWT") from error


def _claims(payload: bytes) -> dict[str, Any]:
    try:
        claims = parsed_json(payload, what="the evidence")
    except IntegrityError as error:
        raise RefusedError("attest.form", "the claims of the evidence are no JSON") from error
    if not isinstance(claims, dict):
        raise RefusedError("attest.form", "the claims of the evidence are no JSON object")
    return claims


def _measured(claims: dict[str, Any]) -> dict[str, str]:
    """The measurements: exactly one block, in the form of this profile."""
    match claims.get("measurements"):
        case [[format_number, str(text)]] if format_number == _JSON_FORMAT:
            measured = _claims(_read(text))
        case _:
            measured = {}
    is_good = len(measured) <= _MEASURED_MAX and all(
        _is_measurement(name, value) for name, value in measured.items()
    )
    if not measured or not is_good:
        raise RefusedError("attest.measurement", "the evidence holds no measurements in our form")
    return measured


def _is_measurement(name: object, value: object) -> bool:
    return (
        isinstance(name, str)
        and isinstance(value, str)
        and bool(_NAME.fullmatch(name) and _VALUE.fullmatch(value))
    )


def _is_allowed(measured: dict[str, str], lines: Iterable[str]) -> bool:
    """Whether all that one of the lines says was measured so."""
    return any(measurements_of(line).items() <= measured.items() for line in lines)


def _software(claims: dict[str, Any]) -> str:
    version = claims.get("swversion")
    number = version[0] if isinstance(version, list) and version else ""
    return f"{_text(claims.get('swname'))} {_text(number)}".strip()


def _text(value: object) -> str:
    """A claim that is only told, as text that may be shown."""
    is_text = isinstance(value, str) and len(value) <= _TEXT_CHARS_MAX and value.isprintable()
    return str(value) if is_text else ""


def _bytes_of(claims: dict[str, Any], name: str) -> bytes:
    value = claims.get(name)
    return _read(value) if isinstance(value, str) else b""


def _read(text: str) -> bytes:
    """Decode base64url; nothing for what is not in the one form that we write."""
    if not _BASE64URL.fullmatch(text) or len(text) % 4 == 1:
        return b""
    raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    return raw if _written(raw) == text else b""


def _written(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _key(raw: bytes, *, what: str) -> Key:
    kinds: tuple[type[ECKey | OKPKey], ...] = (ECKey, OKPKey)
    if raw.lstrip().startswith(b"-----BEGIN "):
        for kind in kinds:
            try:
                key = kind.import_key(raw)
            except (JoseError, ValueError, TypeError):
                continue
            if key.curve_name in ("P-256", "Ed25519"):
                return key
    raise UsageError("attest.anchor", what, hint="`modelkeep attest new` makes one")


def _algorithm_of(key: Key) -> str:
    return "ES256" if isinstance(key, ECKey) else "Ed25519"
