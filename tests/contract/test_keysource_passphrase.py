"""A passphrase as a KeySource: the contract of its port, and hostile costs."""

import json
import tracemalloc

import pytest

from modelkeep.adapters.keysource_passphrase import PassphraseSource
from modelkeep.core.errors import IntegrityError, RefusedError
from modelkeep.crypto.kdf import LANES_MAX, MEMORY_KIB_MAX, PASSES_MAX, Argon2Settings
from modelkeep.crypto.secret import Secret
from modelkeep.testing.keysource_contract import KEY, KeySourceContract
from modelkeep.testing.memory import SeededEntropy

CHEAP = Argon2Settings(memory_kib=8, passes=1, lanes=1)


class TestPassphraseSource(KeySourceContract):
    @pytest.fixture
    def sources(self):
        entropy = SeededEntropy()

        def source(*, other=False):
            passphrase = Secret(b"wrong" if other else b"right")
            return PassphraseSource(passphrase, entropy=entropy, settings=CHEAP)

        return source


def source(passphrase=b"right", settings=CHEAP):
    return PassphraseSource(Secret(passphrase), entropy=SeededEntropy(), settings=settings)


@pytest.mark.parametrize("wrong", [b"", b"Right", b"right ", b"right\n", b"right\0", b"righ"])
def test_a_passphrase_that_is_nearly_right_is_wrong(wrong):
    with pytest.raises(RefusedError) as refused:
        source(wrong).unwrap(source().wrap(KEY))
    assert refused.value.code == "keys.passphrase"


def test_the_cost_that_was_wrapped_with_is_the_one_that_unwraps():
    """A keep opens although its configuration has changed since."""
    dearer = Argon2Settings(memory_kib=16, passes=2, lanes=2)
    assert source(settings=dearer).unwrap(source().wrap(KEY)) == KEY


def test_another_derivation_is_named():
    wrapped = json.loads(source().wrap(KEY))
    wrapped["kdf"] = "md5"
    with pytest.raises(IntegrityError) as refused:
        source().unwrap(json.dumps(wrapped).encode())
    assert refused.value.code == "keysource.kdf"


@pytest.mark.parametrize(
    "cost",
    [
        {"memory_kib": MEMORY_KIB_MAX + 1},
        {"memory_kib": 2**63},
        {"memory_kib": 7},
        {"memory_kib": 0},
        {"memory_kib": -1},
        {"passes": PASSES_MAX + 1},
        {"passes": 2**40},
        {"passes": 0},
        {"lanes": LANES_MAX + 1, "memory_kib": 8 * (LANES_MAX + 1)},
        {"lanes": 0},
        {"lanes": 2},
    ],
    ids=str,
)
def test_a_hostile_cost_is_refused_before_anything_is_allocated(cost):
    wrapped = json.loads(source().wrap(KEY))
    wrapped["settings"] |= cost
    raw = json.dumps(wrapped).encode()
    tracemalloc.start()
    try:
        with pytest.raises(IntegrityError) as refused:
            source().unwrap(raw)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert refused.value.code in ("kdf.cost", "record.json")
    assert peak_bytes < 1024 * 1024


def test_a_short_salt_is_refused():
    wrapped = json.loads(source().wrap(KEY))
    wrapped["salt"] = "AAAA"
    with pytest.raises(IntegrityError) as refused:
        source().unwrap(json.dumps(wrapped).encode())
    assert refused.value.code == "kdf.cost"
