"""A KeySource around another one, which is asked only after the host has attested.

    inner = "exec:/usr/local/bin/ask-the-releaser"
    attester = "software:/etc/modelkeep/attest.key"
    anchors = ["/etc/modelkeep/anchors/serving-1.pub"]
    measurements = ["modelkeep=sha-256:…"]

1. The policy's file is a plain one that nobody else can read or change. 2. The form of what was
wrapped is checked. 3. The host makes evidence over a fresh nonce. 4. It is verified. 5. Only then
the inner source is asked; whatever fails before, it was not.

The same goes for `wrap`: what this host could not open again, it does not wrap. The wrapped bytes
are those of the inner source inside of ours, so that another `[keys] source` does not open them by
an oversight. That is no protection from who can ask the inner source himself: it means something
only where verifier and inner source are out of the reach of who attests (docs/guide/policy.md).
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable

from modelkeep.adapters.attestation_settings import AttestationSettings, attestation_problems
from modelkeep.adapters.attestors import prover
from modelkeep.adapters.keysource_file import protected_bytes
from modelkeep.adapters.system import SystemClock
from modelkeep.core.errors import ConfigError, IntegrityError, RefusedError
from modelkeep.core.record import Record, converted
from modelkeep.core.reference import AttestedReference, PassphraseReference, parsed_reference
from modelkeep.crypto.secret import Secret
from modelkeep.crypto.wrapped_key import box_of, wrapped_bytes
from modelkeep.ports.attestor import Attested
from modelkeep.ports.entropy import Entropy
from modelkeep.ports.keysource import KeySource

_POLICY_BYTES_MAX = 64 * 1024


class KeyPolicy(Record, frozen=True):
    """What such a file says.

    Attributes:
        inner: the source that holds the key: `file:…`, `exec:…` or `kms:…`.
        attester: as in `[attestation]` of modelkeep.toml, and so the three below `hosts`.
        hosts: identifiers (UEID) of the hosts that get the key; needed where an anchor is of a
            fleet, else empty for every host that an anchor identifies.
    """

    inner: str
    attester: str
    anchors: tuple[str, ...]
    measurements: tuple[str, ...]
    age_s_max: float = AttestationSettings().age_s_max
    hosts: tuple[str, ...] = ()


class AttestedSource:
    """Asks for evidence each time it wraps or unwraps.

    Args:
        released: gives the source that holds the key once the host has attested, or raises.
    """

    kind = "attested"

    def __init__(self, released: Callable[[], KeySource]) -> None:
        self._released = released

    def wrap(self, key: Secret) -> bytes:
        return wrapped_bytes(self.kind, self._released().wrap(key))

    def unwrap(self, wrapped: bytes) -> Secret:
        box = box_of(self.kind, wrapped)  # 2
        return self._released().unwrap(box)  # 5


def attested_source(
    path: str, opened: Callable[[str], KeySource], *, entropy: Entropy
) -> AttestedSource:
    """The source that a policy file describes; the file is read at each use.

    Args:
        opened: opens the inner source.
    """
    clock = SystemClock()

    def released() -> KeySource:
        policy = key_policy(path)
        proven = prover(_settings(policy), clock=clock, entropy=entropy)()  # 3, 4
        demand_host(proven, policy.hosts)
        return opened(policy.inner)

    return AttestedSource(released)


def demand_host(proven: Attested, hosts: tuple[str, ...]) -> None:
    """Go on only if the key is for this host.

    Args:
        hosts: that get the key; empty for all that were proven.

    Raises:
        RefusedError: `attest.host`.
    """
    if hosts and proven.ueid not in hosts:
        raise RefusedError("attest.host", "the key is not for this host")


def key_policy(path: str) -> KeyPolicy:
    """Read and check such a file.

    Raises:
        ConfigError: `attest.policy` or `reference.*`.
        KeepError: as `protected_bytes`.
    """
    raw = protected_bytes(path, bytes_max=_POLICY_BYTES_MAX)  # 1
    try:
        policy = converted(KeyPolicy, tomllib.loads(raw.decode()), what=path)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError, IntegrityError) as error:
        raise ConfigError(
            "attest.policy",
            f"{path} does not say how a key is released",
            hint="it needs inner, attester, anchors, measurements: docs/guide/policy.md",
        ) from error
    inner = parsed_reference(policy.inner)
    problems = [
        (
            isinstance(inner, AttestedReference | PassphraseReference),
            "inner is file:…, exec:… or kms:…",
        ),
        (not policy.attester, "attester is empty"),
        (
            any(each.startswith("fleet:") for each in policy.anchors) and not policy.hosts,
            "hosts is empty, and an anchor of a fleet speaks for any host",
        ),
        *attestation_problems(_settings(policy)),
    ]
    for is_bad, problem in problems:
        if is_bad:
            raise ConfigError("attest.policy", f"{path}: {problem}")
    return policy


def _settings(policy: KeyPolicy) -> AttestationSettings:
    return AttestationSettings(
        attester=policy.attester,
        anchors=policy.anchors,
        measurements=policy.measurements,
        age_s_max=policy.age_s_max,
    )
