"""Settings of attestation: what makes evidence about this host, and whose evidence is believed."""

from __future__ import annotations

from modelkeep.core.record import Record
from modelkeep.core.reference import parsed_attester

FLEET = "fleet:"


class AttestationSettings(Record, frozen=True):
    """Table `[attestation]` of modelkeep.toml.

    Attributes:
        attester: what makes evidence about this host: `software:/path/key` or `exec:/program`;
            empty for nothing, and then models that are bound to hosts are not used here.
        anchors: files of public keys (PEM) whose evidence is believed, each for the one host that
            it identifies; `fleet:/path` for a key that may speak for any host.
        measurements: what a host may be, a line each of `name=value` with spaces between, as
            `modelkeep attest show` prints them; it must measure all of one line.
        age_s_max: how old evidence may be.
    """

    attester: str = ""
    anchors: tuple[str, ...] = ()
    measurements: tuple[str, ...] = ()
    age_s_max: float = 120.0


def attestation_problems(settings: AttestationSettings) -> list[tuple[bool, str]]:
    """What is wrong with `[attestation]`.

    Raises:
        ConfigError: `reference.*`.
    """
    if settings.attester:
        parsed_attester(settings.attester)
    is_asked = bool(settings.attester)
    return [
        (is_asked and not settings.anchors, "attestation.anchors is empty: it trusts nobody"),
        (
            is_asked and not any(map(str.strip, settings.measurements)),
            "attestation.measurements is empty: it allows nothing",
        ),
        (
            not all(each.removeprefix(FLEET).startswith("/") for each in settings.anchors),
            "attestation.anchors: write /path or fleet:/path",
        ),
        (not 0 < settings.age_s_max <= 3600, "attestation.age_s_max is above 0, at most 3600"),
    ]
