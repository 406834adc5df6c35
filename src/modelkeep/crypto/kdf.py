"""Key derivation: Argon2id (RFC 9106) for passphrases, HKDF-SHA-256 (RFC 5869) for subkeys."""

from __future__ import annotations

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from modelkeep.core.errors import IntegrityError
from modelkeep.core.record import Record
from modelkeep.crypto.secret import Secret

KEY_BYTES = 32
SALT_BYTES = 32
# A header from a hostile store must not make us allocate or spin: 4 GiB, 16 passes, and of both
# together no more than 8 GiB filled (about 10 s); RFC 9106 recommends 2 GiB once.
MEMORY_KIB_MAX = 4 * 1024 * 1024
PASSES_MAX = 16
FILLED_KIB_MAX = 8 * 1024 * 1024
LANES_MAX = 16


class Argon2Settings(Record, frozen=True):
    """Cost of turning a passphrase into a key.

    The default is the second recommendation of RFC 9106, section 4: 64 MiB, 3 passes, 4 lanes.

    Attributes:
        memory_kib: memory that one guess costs, in KiB; at least 8 per lane.
        passes: times that the memory is filled.
        lanes: threads that fill it.
    """

    memory_kib: int = 64 * 1024
    passes: int = 3
    lanes: int = 4


def key_from_passphrase(passphrase: Secret, *, salt: bytes, settings: Argon2Settings) -> Secret:
    """Stretch a passphrase into a 32-byte key-encryption key.

    Raises:
        IntegrityError: `kdf.cost`, when stored parameters are out of bounds.
    """
    bounded = (
        8 * settings.lanes <= settings.memory_kib <= MEMORY_KIB_MAX
        and 1 <= settings.passes <= PASSES_MAX
        and settings.memory_kib * settings.passes <= FILLED_KIB_MAX
        and 1 <= settings.lanes <= LANES_MAX
        and len(salt) >= 16
    )
    if not bounded:
        raise IntegrityError("kdf.cost", "the passphrase parameters are out of bounds")
    stretched = Argon2id(
        salt=salt,
        length=KEY_BYTES,
        iterations=settings.passes,
        lanes=settings.lanes,
        memory_cost=settings.memory_kib,
    ).derive(passphrase.reveal())
    return Secret(stretched)


def derived_key(parent: Secret, purpose: str, *, salt: bytes = b"") -> Secret:
    """Derive a 32-byte subkey bound to one purpose (and, where given, one random salt)."""
    info = b"modelkeep/v0/" + purpose.encode()
    expanded = HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=salt or None, info=info)
    return Secret(expanded.derive(parent.reveal()))
