"""Who makes evidence about the host that it runs on, and what evidence came to prove.

The words are those of RFC 9334 (RATS): the *attester* is the host, *evidence* its signed claims
about itself; the *verifier* appraises them by its *trust anchors* and *reference values* (here:
the measurements that are allowed), and the *relying party* acts on what that came to.
"""

from __future__ import annotations

from typing import Protocol

from modelkeep.core.record import Record

NONCE_BYTES = 32


class Attested(Record, frozen=True):
    """What evidence proved of a host; only `adapters.evidence_eat` makes it.

    Attributes:
        ueid: which host it is (RFC 9711, 4.2.1), base64url without padding.
        anchor: whose word that is: the SHA-256 thumbprint of the key (RFC 7638), base64url.
        measurements: what was measured, as `name=value` with spaces between, sorted.
        debug: status of debugging, in the words of RFC 9711.
        issued_s: when the evidence was made, seconds since the Unix epoch, by the host's clock.
        software: its name and version.
        boot: different for every start of the host; empty where it was not said.
    """

    ueid: str
    anchor: str
    measurements: str
    debug: str
    issued_s: int
    software: str = ""
    boot: str = ""


class Attestor(Protocol):
    """Makes evidence about the host it runs on."""

    def evidence(self, nonce: bytes) -> bytes:
        """Fresh evidence over a nonce of `NONCE_BYTES`, in the form of `adapters.evidence_eat`.

        Whoever gets it has to verify it: nothing here says that it is true.

        Raises:
            UnavailableError: `attest.unavailable`, when there is no key, no device, no answer.
            RefusedError: `attest.key`, when its key lies open to others.
        """
        ...
