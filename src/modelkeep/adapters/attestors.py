"""Picks the attester that a reference names, and reads what its evidence is verified by."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

from modelkeep.adapters.attestation_settings import FLEET, AttestationSettings
from modelkeep.adapters.evidence_eat import (
    ANCHORS_MAX,
    Anchor,
    Trust,
    anchor_of,
    measurements_of,
    proven,
)
from modelkeep.core.errors import UnavailableError, UsageError
from modelkeep.core.reference import SoftwareReference, parsed_attester
from modelkeep.ports.attestor import Attested, Attestor
from modelkeep.ports.clock import Clock
from modelkeep.ports.entropy import Entropy

_ANCHOR_BYTES_MAX = 16 * 1024
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
# A pipe in its place keeps nobody waiting.
_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC


def opened_attester(reference: str, *, clock: Clock) -> Attestor:
    """The attester of a reference; nothing is read yet.

    Raises:
        ConfigError: `reference.*`.
    """
    parsed = parsed_attester(reference)
    if isinstance(parsed, SoftwareReference):
        from modelkeep.adapters.attestor_software import SoftwareAttester  # noqa: PLC0415

        return SoftwareAttester(parsed.path, clock=clock)
    from modelkeep.adapters.attestor_exec import ExecAttester  # noqa: PLC0415

    return ExecAttester(parsed.words)


def prover(
    settings: AttestationSettings, *, clock: Clock, entropy: Entropy
) -> Callable[[], Attested]:
    """What asks the configured attester and verifies what it says; each call is a fresh nonce."""

    def prove() -> Attested:
        trust = trust_of(settings)
        return proven(
            opened_attester(settings.attester, clock=clock), trust, entropy=entropy, clock=clock
        )

    return prove


def trust_of(settings: AttestationSettings) -> Trust:
    """Read the anchors.

    Raises:
        UsageError: `attest.anchor` or `attest.line`.
        UnavailableError: `attest.unavailable`, when an anchor cannot be read.
    """
    for line in settings.measurements:
        measurements_of(line)
    anchors = tuple(read_anchor(each) for each in settings.anchors[:ANCHORS_MAX])
    return Trust(anchors, settings.measurements, settings.age_s_max)


def read_anchor(text: str) -> Anchor:
    """Read the public key of a file; `fleet:` before its path lets it speak for any host.

    Everybody may read it, but whoever may change it decides who is believed: that is us, or root.

    Raises:
        UsageError: `attest.anchor`.
        UnavailableError: `attest.unavailable`.
    """
    path = Path(text.removeprefix(FLEET))
    try:
        with os.fdopen(os.open(path, _FLAGS), "rb") as stream:
            _demand_ours(os.fstat(stream.fileno()), path)
            raw = stream.read(_ANCHOR_BYTES_MAX)
    except OSError as error:
        raise UnavailableError(
            "attest.unavailable", f"the anchor {path} cannot be read: {error.strerror}"
        ) from error
    return anchor_of(raw, is_fleet=text.startswith(FLEET))


def _demand_ours(facts: os.stat_result, path: Path) -> None:
    """Check that nobody else can put another key into a file.

    Raises:
        UsageError: `attest.anchor`.
    """
    problem = ""
    if not stat.S_ISREG(facts.st_mode):
        problem = "is not a plain file"
    elif facts.st_uid not in (0, os.geteuid()):
        problem = "belongs to another user"
    elif facts.st_mode & _OTHERS_WRITE:
        problem = "can be changed by others"
    if problem:
        raise UsageError(
            "attest.anchor",
            f"the anchor {path} {problem}",
            hint="an anchor is a plain file of root or of the service's user: chmod go-w",
        )
