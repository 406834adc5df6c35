"""Files of keys: private ones (an identity file) and public ones (a public file), as text.

One key a line; empty lines and those that begin with `#` are skipped. Or one RSA key in PEM form,
and then nothing else. Keys of the age form are recognised here and believed in its own adapter.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from modelkeep.core.errors import UsageError
from modelkeep.crypto.keytext import (
    secret_key_seed,
    secret_key_text,
    verifier_bytes,
    verifier_text,
)
from modelkeep.crypto.recipients import Identity, Recipient, parsed_recipient
from modelkeep.crypto.rsa_keys import RsaIdentity, RsaRecipient, rsa_identity, rsa_recipient
from modelkeep.crypto.secret import Secret

IDENTITY_FILE_BYTES_MAX = 64 * 1024
# 64 recipients of 1956 characters, with a comment each.
PUBLIC_FILE_BYTES_MAX = 256 * 1024
KEYS_MAX = 64

_PEM = b"-----BEGIN "


@dataclass(frozen=True, slots=True)
class PrivateKeys:
    """What an identity file holds; `age` are texts, `AGE-SECRET-KEY-1…`."""

    identities: tuple[Identity, ...] = ()
    rsa: tuple[RsaIdentity, ...] = ()
    age: tuple[Secret, ...] = ()

    def __add__(self, other: PrivateKeys) -> PrivateKeys:
        return PrivateKeys(
            self.identities + other.identities, self.rsa + other.rsa, self.age + other.age
        )


@dataclass(frozen=True, slots=True)
class PublicKeys:
    """What a public file holds; `age` are texts, `age1…`."""

    recipients: tuple[Recipient | RsaRecipient, ...] = ()
    verifiers: tuple[bytes, ...] = ()
    age: tuple[str, ...] = ()

    def __add__(self, other: PublicKeys) -> PublicKeys:
        return PublicKeys(
            self.recipients + other.recipients,
            self.verifiers + other.verifiers,
            self.age + other.age,
        )


def private_keys(raw: Secret) -> PrivateKeys:
    """Read an identity file.

    Raises:
        UsageError: `key.file`, `key.secret`, `rsa.key`, `rsa.size`.
    """
    text = raw.reveal()
    if text.lstrip().startswith(_PEM):
        return PrivateKeys(rsa=(rsa_identity(raw),))
    found = PrivateKeys()
    for line in _lines(text, size_max=IDENTITY_FILE_BYTES_MAX):
        if line.upper().startswith("AGE-SECRET-KEY-1"):
            found += PrivateKeys(age=(Secret(line.encode()),))
        else:
            found += PrivateKeys(identities=(Identity(secret_key_seed(Secret(line.encode()))),))
    return found


def public_keys(raw: bytes) -> PublicKeys:
    """Read a public file, or the text of one public key.

    Raises:
        UsageError: `key.file`, `key.recipient`, `key.verifier`, `recipient.key`, `rsa.key`,
            `rsa.size`.
    """
    if raw.lstrip().startswith(_PEM):
        return PublicKeys(recipients=(rsa_recipient(raw),))
    found = PublicKeys()
    for line in _lines(raw, size_max=PUBLIC_FILE_BYTES_MAX):
        word = line.lower()
        if word.startswith("age1"):
            found += PublicKeys(age=(line,))
        elif word.startswith("mkv1"):
            found += PublicKeys(verifiers=(verifier_bytes(line),))
        else:
            found += PublicKeys(recipients=(parsed_recipient(line),))
    return found


def identity_file(identity: Identity) -> Secret:
    """The text of an identity file, with its public half as comments."""
    head = (
        "# A modelkeep identity: it opens and signs in your name. Keep it secret, keep a copy.\n"
        f"# recipient: {identity.recipient}\n"
        f"# verifier: {verifier_text(identity.signer.public)}\n"
    )
    return Secret(head.encode() + secret_key_text(identity.seed).reveal() + b"\n")


def public_file(identity: Identity) -> str:
    """The text of a public file: what the identity's owner gives to others."""
    return (
        "# The public half of a modelkeep identity.\n"
        "# Others encrypt to this:\n"
        f"{identity.recipient}\n"
        "# and check signatures with this:\n"
        f"{verifier_text(identity.signer.public)}\n"
    )


def _lines(raw: bytes, *, size_max: int) -> Iterator[str]:
    """The lines that count.

    Raises:
        UsageError: `key.file`.
    """
    if len(raw) > size_max:
        raise UsageError("key.file", f"a file of keys has at most {size_max} bytes")
    lines = [line.strip() for line in raw.decode(errors="replace").split("\n")]
    keys = [line for line in lines if line and not line.startswith("#")]
    if not 1 <= len(keys) <= KEYS_MAX or not all(map(str.isascii, keys)):
        raise UsageError(
            "key.file",
            f"a file of keys holds 1 to {KEYS_MAX}, one a line",
            hint="`modelkeep identity new` makes an identity file and prints its public file",
        )
    yield from keys
