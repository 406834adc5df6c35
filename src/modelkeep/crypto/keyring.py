"""The keyring: a keep's random keys, sealed under the root, which is wrapped for its holders.

    ring = wraps of the root (one per key source, recovery key or escrow recipient)
           || blob(HKDF(root, "root/keyring"), body, purpose "keyring/<keep id>/<number>")

The purpose binds a body to its keep and number: a body that is moved does not open.
"""

from __future__ import annotations

from modelkeep.core.record import Record, from_msgpack, to_msgpack
from modelkeep.crypto.aead import opened_blob, sealed_blob
from modelkeep.crypto.kdf import derived_key
from modelkeep.crypto.secret import Secret

# Kinds of wraps. A source is asked by its reference; the others are opened by a private key.
SOURCE = "source"
SHARES = "shares"
ESCROW = "escrow"


class Wrap(Record, frozen=True):
    """The root, encrypted for one holder.

    Attributes:
        kind: `source`, `shares` (a recovery key that was split into words) or `escrow`.
        holder: the key source's kind, or the recipient's public key.
        wrapped: what that holder opens.
        note: for people, such as `3 of 5 shares`.
    """

    kind: str
    holder: str
    wrapped: bytes
    note: str = ""


class LockedRing(Record, frozen=True):
    """A keyring as stores hold it."""

    keep_id: str
    number: int
    wraps: tuple[Wrap, ...]
    sealed: bytes


class DomainKey(Record, frozen=True):
    """One random key of one domain.

    Attributes:
        key: 32 bytes.
        is_retiring: whether a newer key of the domain has taken over.
    """

    name: str
    key_id: str
    key: bytes
    is_retiring: bool = False

    def __repr__(self) -> str:
        """Keys never print."""
        return f"DomainKey({self.name}, {self.key_id})"


class RingBody(Record, frozen=True):
    """Plaintext of a keyring; exists only until Secrets are made of it.

    Attributes:
        identity: 32 bytes that everything of the keep but its domains is derived from.
        ca_key: PKCS#8 DER of the keep's certificate authority.
        ca_pem: its certificate, PEM; public.
    """

    identity: bytes
    domains: tuple[DomainKey, ...]
    ca_key: bytes
    ca_pem: bytes

    def __repr__(self) -> str:
        """Names only: keys never print."""
        return f"RingBody(domains={[each.name for each in self.domains]})"


def locked_ring(
    body: RingBody, *, root: Secret, keep_id: str, number: int, wraps: tuple[Wrap, ...], salt: bytes
) -> LockedRing:
    """Seal a keyring's body under the root.

    Args:
        salt: 32 fresh random bytes.
    """
    sealed = sealed_blob(
        derived_key(root, "root/keyring"),
        to_msgpack(body),
        purpose=f"keyring/{keep_id}/{number}",
        salt=salt,
    )
    return LockedRing(keep_id=keep_id, number=number, wraps=wraps, sealed=sealed)


def opened_ring(ring: LockedRing, root: Secret) -> RingBody:
    """Open what `locked_ring` made.

    Raises:
        IntegrityError: `aead.*`, when this is not the root, or the bytes were changed.
    """
    key = derived_key(root, "root/keyring")
    purpose = f"keyring/{ring.keep_id}/{ring.number}"
    return from_msgpack(RingBody, opened_blob(key, ring.sealed, purpose=purpose), what=purpose)
