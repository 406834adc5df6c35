"""A KeySource that asks for evidence first: its contract, and that nothing is asked without."""

import stat

import pytest

from modelkeep.adapters.attestor_software import SoftwareAttester, new_key_file
from modelkeep.adapters.evidence_eat import Trust, anchor_of, proven, signed_evidence
from modelkeep.adapters.keysource_attested import AttestedSource, key_policy
from modelkeep.adapters.keysource_exec import ExecSource
from modelkeep.adapters.keysource_file import FileSource
from modelkeep.adapters.keysource_file import new_key_file as new_source_file
from modelkeep.adapters.keysources import opened_source
from modelkeep.adapters.system import SystemClock
from modelkeep.core.errors import ConfigError, KeepError, RefusedError
from modelkeep.core.reference import executes, parsed_reference
from modelkeep.crypto.kdf import Argon2Settings
from modelkeep.crypto.secret import Secret
from modelkeep.testing.keysource_contract import KEY, KeySourceContract
from modelkeep.testing.memory import SeededEntropy, SteppingClock

ENTROPY = SeededEntropy()
MEASURED = {"modelkeep": "sha-256:ab"}
LINE = "modelkeep=sha-256:ab"
AT_NS = 1_700_000_000 * 10**9


class Host:
    """A host whose evidence can be wrong in one way at a time."""

    def __init__(self, folder):
        self.path = folder / "attest.key"
        _, public = new_key_file(self.path, algorithm="ES256")
        self.anchors = (anchor_of(public),)
        self.changes = {}
        self.replayed = b""
        self.clock = SteppingClock(AT_NS)
        self.asked = []

    def evidence(self, nonce):
        if self.replayed:
            return self.replayed
        facts = {"nonce": nonce, "issued_s": AT_NS // 10**9, "debug": "disabled"}
        private = Secret(self.path.read_bytes())
        return signed_evidence(private, **(facts | {"measured": MEASURED} | self.changes))

    def source(self, inner):
        def released():
            trust = Trust(self.anchors, (LINE,), 120.0)
            proven(self, trust, entropy=ENTROPY, clock=self.clock)
            self.asked.append(inner)
            return inner

        return AttestedSource(released)


@pytest.fixture
def host(tmp_path):
    return Host(tmp_path)


def file_source(tmp_path, name="inner.key"):
    path = tmp_path / name
    if not path.exists():
        new_source_file(str(path), entropy=ENTROPY)
    return FileSource(str(path), entropy=ENTROPY)


class TestAttestedSource(KeySourceContract):
    step = 7  # each try makes and verifies evidence

    @pytest.fixture
    def sources(self, host, tmp_path):
        def source(*, other=False):
            return host.source(file_source(tmp_path, "other.key" if other else "inner.key"))

        return source

    @pytest.fixture
    def unavailable(self, host):
        return host.source(ExecSource(("/bin/false",), entropy=ENTROPY))


WRONG = {
    "another nonce": ({"nonce": bytes(32)}, "attest.nonce"),
    "debugging on": ({"debug": "enabled"}, "attest.debug"),
    "made long ago": ({"issued_s": AT_NS // 10**9 - 3600}, "attest.stale"),
    "another measurement": ({"measured": {"modelkeep": "sha-256:ac"}}, "attest.measurement"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_evidence_releases_nothing_and_the_inner_source_is_not_asked(host, tmp_path, wrong):
    source = host.source(file_source(tmp_path))
    wrapped = source.wrap(KEY)
    host.changes, code = WRONG[wrong]
    host.asked.clear()
    for attempt in (lambda: source.unwrap(wrapped), lambda: source.wrap(KEY)):
        with pytest.raises(RefusedError) as refused:
            attempt()
        assert refused.value.code == code
    assert not host.asked


def test_evidence_that_was_used_before_releases_nothing(host, tmp_path):
    source = host.source(file_source(tmp_path))
    wrapped = source.wrap(KEY)
    host.replayed = host.evidence(ENTROPY.random_bytes(32))
    host.asked.clear()
    with pytest.raises(RefusedError) as refused:
        source.unwrap(wrapped)
    assert refused.value.code == "attest.nonce"
    assert not host.asked


def test_the_key_of_another_host_releases_nothing(host, tmp_path):
    source = host.source(file_source(tmp_path))
    wrapped = source.wrap(KEY)
    host.path.unlink()
    new_key_file(host.path, algorithm="ES256")
    host.asked.clear()
    with pytest.raises(RefusedError) as refused:
        source.unwrap(wrapped)
    assert refused.value.code == "attest.signature"
    assert not host.asked


def test_what_was_wrapped_is_not_opened_by_the_inner_source_alone(host, tmp_path):
    inner = file_source(tmp_path)
    with pytest.raises(KeepError) as refused:
        inner.unwrap(host.source(inner).wrap(KEY))
    assert refused.value.code == "keysource.kind"


# ---- the file that a reference names ------------------------------------------------------------


def write_policy(tmp_path, **changes):
    key = tmp_path / "attest.key"
    if not key.exists():
        _, public = new_key_file(key, algorithm="ES256")
        (tmp_path / "host.pub").write_bytes(public)
    file_source(tmp_path)
    measured = SoftwareAttester(str(key), clock=SystemClock())._measure()
    facts = {
        "inner": f'"file:{tmp_path}/inner.key"',
        "attester": f'"software:{key}"',
        "anchors": f'["{tmp_path}/host.pub"]',
        "measurements": f'["modelkeep={measured["modelkeep"]}"]',
    } | changes
    path = tmp_path / "release.toml"
    path.write_text("".join(f"{name} = {value}\n" for name, value in facts.items()))
    path.chmod(0o600)
    return f"attested:{path}"


def source_of(reference):
    return opened_source(reference, passphrase=None, entropy=ENTROPY, argon2=Argon2Settings())


def test_a_reference_names_a_file_that_says_how_the_key_is_released(tmp_path):
    reference = write_policy(tmp_path)
    assert executes(parsed_reference(reference))
    source = source_of(reference)
    assert source.unwrap(source.wrap(KEY)) == KEY
    write_policy(tmp_path, measurements='["modelkeep=sha-256:00"]')
    with pytest.raises(RefusedError) as refused:
        source.wrap(KEY)
    assert refused.value.code == "attest.measurement"


def test_the_file_must_be_ours_alone(tmp_path):
    reference = write_policy(tmp_path)
    path = tmp_path / "release.toml"
    path.chmod(stat.S_IMODE(path.stat().st_mode) | stat.S_IROTH)
    with pytest.raises(RefusedError) as refused:
        source_of(reference).wrap(KEY)
    assert refused.value.code == "keysource.exposed"


@pytest.mark.parametrize(
    "changes",
    [
        {"inner": '"passphrase"'},
        {"inner": '"attested:/a"'},
        {"anchors": "[]"},
        {"measurements": "[]"},
        {"measurements": '[" "]'},
        {"attester": '""'},
        {"attester": '"file:/key"'},
        {"anchors": '["fleet:/a.pub"]'},
        {"anchors": '["a.pub"]'},
        {"age_s_max": "0.0"},
        {"unknown": "1"},
        {"inner": "]"},
    ],
)
def test_a_file_that_trusts_nobody_or_everybody_is_refused(tmp_path, changes):
    write_policy(tmp_path, **changes)
    with pytest.raises(ConfigError):
        key_policy(str(tmp_path / "release.toml"))


def test_a_key_that_is_for_some_hosts_is_not_for_others(tmp_path):
    with pytest.raises(RefusedError) as refused:
        source_of(write_policy(tmp_path, hosts='["AQother"]')).wrap(KEY)
    assert refused.value.code == "attest.host"
