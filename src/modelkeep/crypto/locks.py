"""What a file key is put under: a recipient, an RSA key or a passphrase; one stanza for each.

A stanza does not say whose it is, so a key tries every stanza of its kind. The first that opens
decides: whether it is the right file key is for the file's commitment to say, and no other stanza
is tried after it, so that nobody can build a file that means two things.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from modelkeep.core.errors import IntegrityError, RefusedError
from modelkeep.core.record import Record
from modelkeep.crypto.aead import BLOB_OVERHEAD_BYTES, opened_blob, sealed_blob
from modelkeep.crypto.kdf import KEY_BYTES, SALT_BYTES, Argon2Settings, key_from_passphrase
from modelkeep.crypto.recipients import SEALED_KEY_BYTES, Identity, Recipient, sealed_to
from modelkeep.crypto.rsa_keys import BITS_MAX, BITS_MIN, RsaIdentity, RsaRecipient
from modelkeep.crypto.secret import Secret

# A stranger's file must not cost more than this to try: a sixteenth of a small machine's memory
# would be too little for those who harden theirs, and 1 GiB x 8 passes ends within seconds.
FILE_MEMORY_KIB_MAX = 1024 * 1024
FILE_PASSES_MAX = 8

_INFO = b"sealed-file"
_LABEL = b"modelkeep/v0/sealed-file"
_PURPOSE = "sealed-file/passphrase"


class RecipientStanza(Record, frozen=True, tag="recipient"):
    """The file key, sealed to a recipient."""

    sealed: bytes


class RsaStanza(Record, frozen=True, tag="rsa"):
    """The file key, encrypted for an RSA key."""

    sealed: bytes


class PassphraseStanza(Record, frozen=True, tag="passphrase"):
    """The file key, encrypted under a stretched passphrase."""

    settings: Argon2Settings
    salt: bytes
    box: bytes


Stanza = RecipientStanza | RsaStanza | PassphraseStanza


@dataclass(frozen=True, slots=True)
class Passphrase:
    """A passphrase, and what stretching it costs when something is sealed under it."""

    secret: Secret
    settings: Argon2Settings = Argon2Settings()  # noqa: RUF009 - it is frozen


Lock = Recipient | RsaRecipient | Passphrase
Key = Identity | RsaIdentity | Passphrase


def stanza_of(lock: Lock, file_key: Secret, *, random_bytes: Callable[[int], bytes]) -> Stanza:
    """Put a file key under one lock."""
    match lock:
        case Recipient():
            return RecipientStanza(sealed=sealed_to(lock, file_key, info=_INFO))
        case RsaRecipient():
            return RsaStanza(sealed=lock.sealed(file_key, label=_LABEL))
        case Passphrase():
            salt = random_bytes(SALT_BYTES)
            stretched = key_from_passphrase(lock.secret, salt=salt, settings=lock.settings)
            box = sealed_blob(
                stretched, file_key.reveal(), purpose=_PURPOSE, salt=random_bytes(SALT_BYTES)
            )
            return PassphraseStanza(settings=lock.settings, salt=salt, box=box)


def is_well_formed(stanza: Stanza) -> bool:
    """Whether every field has its size and no setting is over its bound."""
    match stanza:
        case RecipientStanza(sealed=sealed):
            return len(sealed) == SEALED_KEY_BYTES
        case RsaStanza(sealed=sealed):
            return BITS_MIN // 8 <= len(sealed) <= BITS_MAX // 8
        case PassphraseStanza(settings=settings, salt=salt, box=box):
            return (
                len(salt) == SALT_BYTES
                and len(box) == KEY_BYTES + BLOB_OVERHEAD_BYTES
                and settings.memory_kib <= FILE_MEMORY_KIB_MAX
                and settings.passes <= FILE_PASSES_MAX
            )


def opened_file_key(stanzas: Sequence[Stanza], keys: Iterable[Key]) -> Secret:
    """The file key that the first fitting stanza gives.

    Raises:
        RefusedError: `sealed.key`, when none opens.
        IntegrityError: `kdf.cost`, when the passphrase's settings are nonsense.
    """
    for key in keys:
        for stanza in stanzas:
            try:
                found = _opened(key, stanza)
            except IntegrityError as error:
                if error.code == "kdf.cost":
                    raise
                continue
            if found is not None:
                return found
    raise RefusedError(
        "sealed.key",
        "none of the given keys opens this file",
        hint=f"it is sealed {_kinds(stanzas)}; an altered header looks the same",
    )


def _opened(key: Key, stanza: Stanza) -> Secret | None:
    """The file key in one stanza, or None when the stanza is of another kind."""
    match key, stanza:
        case Identity(), RecipientStanza():
            return key.opened(stanza.sealed, info=_INFO)
        case RsaIdentity(), RsaStanza():
            return key.opened(stanza.sealed, label=_LABEL)
        case Passphrase(), PassphraseStanza():
            stretched = key_from_passphrase(key.secret, salt=stanza.salt, settings=stanza.settings)
            return Secret(opened_blob(stretched, stanza.box, purpose=_PURPOSE))
        case _:
            return None


def _kinds(stanzas: Sequence[Stanza]) -> str:
    """What a file is sealed to, for people."""
    words = {
        RecipientStanza: "to recipients (mkr1…)",
        RsaStanza: "to RSA keys",
        PassphraseStanza: "under a passphrase",
    }
    return " and ".join(words[kind] for kind in words if any(type(s) is kind for s in stanzas))
