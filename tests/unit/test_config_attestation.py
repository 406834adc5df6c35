"""The table `[attestation]`: what trusts nobody is refused, and a recovery takes it out."""

import pytest

from modelkeep.adapters.attestation_settings import AttestationSettings
from modelkeep.config import parsed_config, without_attestation
from modelkeep.core.errors import ConfigError
from modelkeep.core.reference import (
    ExecReference,
    SoftwareReference,
    parsed_attester,
)

BASE = 'keep_id = "0123456789abcdef"\n[[stores]]\nlabel = "main"\npath = "stores/main"\n'
TABLE = """[attestation]  # of this host
attester = "exec:/usr/bin/tpm-evidence --fresh"
anchors = [
    "/etc/modelkeep/host.pub",
    "fleet:/etc/modelkeep/vendor.pub",
]
measurements = ["modelkeep=sha-256:ab python=3.11.7"]
"""
LINES = {
    "attester": 'attester = "software:/k"',
    "anchors": 'anchors = ["/a.pub"]',
    "measurements": 'measurements = ["a=1"]',
}


def config(text):
    return parsed_config((BASE + text).encode(), what="the configuration")


def table(**changes):
    return "[attestation]\n" + "\n".join((LINES | changes).values()) + "\n"


def test_without_a_table_nothing_attests():
    assert config("").attestation == AttestationSettings()


def test_a_table_says_who_attests_and_who_is_believed():
    found = config(TABLE).attestation
    assert parsed_attester(found.attester) == ExecReference(
        words=("/usr/bin/tpm-evidence", "--fresh")
    )
    assert parsed_attester("software:/a b") == SoftwareReference(path="/a b")
    assert config(table()).attestation.age_s_max == 120.0


@pytest.mark.parametrize(
    "changes",
    [
        {"anchors": ""},
        {"anchors": 'anchors = ["host.pub"]'},
        {"anchors": 'anchors = ["fleet:host.pub"]'},
        {"measurements": ""},
        {"measurements": 'measurements = ["", " "]'},
        {"attester": 'attester = "software:key"'},
        {"attester": 'attester = "file:/key"'},
        {"attester": 'attester = "kms:tpm:0"'},
        {"attester": 'attester = "exec:tpm"'},
        {"more": "age_s_max = 0.0"},
        {"more": "age_s_max = 3601.0"},
        {"more": "age_s_max = nan"},
        {"more": "trust = true"},
    ],
)
def test_what_trusts_nobody_or_cannot_be_is_refused(changes):
    with pytest.raises(ConfigError):
        config(table(**changes))


@pytest.mark.parametrize("after", ["", "[gate]\nheaders_max = 9\n"])
def test_a_recovery_takes_attestation_out_and_nothing_else(after):
    found = without_attestation(BASE + TABLE + after)
    assert found == BASE + after
    assert without_attestation(found) == found


def test_attestation_that_is_written_oddly_is_refused():
    with pytest.raises(ConfigError) as refused:
        without_attestation(BASE + "[ attestation ]\n" + table().partition("\n")[2])
    assert refused.value.code == "config.attestation"
