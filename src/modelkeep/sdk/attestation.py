"""Attestation by hand: a key for a host, what it can prove, whether evidence of another holds."""

from __future__ import annotations

from pathlib import Path

from modelkeep.config import Config
from modelkeep.core.errors import PATH_HINT, ConfigError, MissingError, RefusedError, UsageError
from modelkeep.core.record import Record
from modelkeep.ports.attestor import NONCE_BYTES, Attested
from modelkeep.wiring import attesting, system_clock, system_entropy

with attesting():
    from modelkeep.adapters.attestor_software import new_key_file
    from modelkeep.adapters.attestors import opened_attester, read_anchor, trust_of
    from modelkeep.adapters.evidence_eat import EVIDENCE_BYTES_MAX, Told, Trust, told, verified

# RFC 9711, 4.1.
_NONCE_BYTES = range(8, 65)
# By hand a file is carried from one machine to the other.
BY_HAND_AGE_S_MAX = 3600.0


class HostKey(Record, frozen=True):
    """A new attestation key.

    Attributes:
        ueid: identifies the host that has it.
        public: PEM, which verifiers have among their anchors.
    """

    ueid: str
    public: str


class Shown(Record, frozen=True):
    """What a host says of itself.

    Attributes:
        evidence: as a verifier takes it.
        told: what it says.
        refusal: why this keep's `[attestation]` does not believe it; empty where it does, or where
            it names no anchors.
        is_believed: whether it was verified and holds.
    """

    evidence: str
    told: Told
    refusal: str = ""
    is_believed: bool = False


def make_host_key(path: Path, *, algorithm: str = "ES256") -> HostKey:
    """Write a new attestation key to a file of its own, mode 0600.

    Args:
        algorithm: ES256 or Ed25519.

    Raises:
        UsageError: `keysource.exists`: a key is never replaced.
        UnavailableError: `keysource.unavailable`.
    """
    ueid, public = new_key_file(path, algorithm=algorithm)
    return HostKey(ueid=ueid, public=public.decode())


def evidence_of(attester: str, nonce: bytes = b"") -> bytes:
    """Ask an attester for evidence.

    Args:
        attester: `software:/path/key` or `exec:/program`.
        nonce: of who will verify it; a fresh one otherwise, which proves nothing to anybody.

    Raises:
        ConfigError: `reference.*`, or `attest.none`, when there is no attester.
        RefusedError: `attest.key`.
        UnavailableError: `attest.unavailable`.
    """
    if not attester:
        raise ConfigError(
            "attest.none",
            "nothing is configured that attests for this host",
            hint="set `attester` in [attestation] of modelkeep.toml, or give --attester",
        )
    return opened_attester(attester, clock=system_clock()).evidence(
        nonce or system_entropy().random_bytes(NONCE_BYTES)
    )


def shown(attester: str, nonce: bytes = b"", config: Config | None = None) -> Shown:
    """What a host says of itself, and whether a keep believes it.

    Args:
        config: of the keep whose `[attestation]` verifies it.

    Raises:
        KeepError: as `evidence_of`; UsageError `attest.anchor` or `attest.line`.
    """
    nonce = nonce or system_entropy().random_bytes(NONCE_BYTES)
    evidence = evidence_of(attester, nonce)
    facts = Shown(evidence=evidence.decode("ascii", errors="replace").strip(), told=told(evidence))
    if config is None or not config.attestation.anchors:
        return facts
    trust, now_ns = trust_of(config.attestation), system_clock().now_ns()
    try:
        verified(evidence, nonce=nonce, trust=trust, now_ns=now_ns)
    except RefusedError as error:
        return Shown(evidence=facts.evidence, told=facts.told, refusal=str(error))
    return Shown(evidence=facts.evidence, told=facts.told, is_believed=True)


def verify_evidence(
    path: Path, *, anchors: list[Path], nonce: bytes, measurements: list[str]
) -> Attested:
    """Verify evidence in a file; who has the nonce used again is not noticed here.

    Args:
        anchors: public keys, each of which may speak for any host.
        measurements: lines of which one must hold; without one nothing is compared.

    Raises:
        MissingError: `file.missing`.
        UsageError: `attest.anchor`, `attest.line` or `attest.nonce_form`.
        RefusedError: `attest.*`.
    """
    if len(nonce) not in _NONCE_BYTES:
        raise UsageError("attest.nonce_form", "a nonce has 8 to 64 bytes")
    if not path.is_file():
        raise MissingError("file.missing", f"there is no file {path}", hint=PATH_HINT)
    with path.open("rb") as stream:
        evidence = stream.read(EVIDENCE_BYTES_MAX + 2)
    trust = Trust(
        anchors=tuple(read_anchor(f"fleet:{each}") for each in anchors),
        measurements=tuple(measurements) or None,
        age_s_max=BY_HAND_AGE_S_MAX,
    )
    return verified(evidence, nonce=nonce, trust=trust, now_ns=system_clock().now_ns())
