"""Picks the KeySource that a reference names; each library is loaded only when it is needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from modelkeep.core.errors import UsageError, extra_hint
from modelkeep.core.reference import (
    AttestedReference,
    AwsReference,
    AzureReference,
    ExecReference,
    FileReference,
    GcpReference,
    PassphraseReference,
    Pkcs11Reference,
    SecretReference,
    VaultReference,
    parsed_reference,
)
from modelkeep.crypto.kdf import Argon2Settings
from modelkeep.crypto.secret import Secret
from modelkeep.ports.entropy import Entropy
from modelkeep.ports.keysource import KeySource

if TYPE_CHECKING:
    from modelkeep.adapters.keysource_pkcs11 import Pkcs11Source


def opened_source(
    reference: str, *, passphrase: Secret | None, entropy: Entropy, argon2: Argon2Settings
) -> KeySource:
    """The KeySource of a reference (`core.reference` has the grammar); nothing is read yet.

    Args:
        passphrase: for `passphrase`; the others do not look at it.
        argon2: cost of a passphrase, where one is wrapped with.

    Raises:
        ConfigError: `reference.*`.
        UsageError: `extra.missing`, or `passphrase.none`.
    """
    parsed = parsed_reference(reference)
    source: KeySource
    match parsed:
        case PassphraseReference():
            from modelkeep.adapters.keysource_passphrase import PassphraseSource  # noqa: PLC0415

            if passphrase is None:
                raise UsageError(
                    "passphrase.none",
                    "there is nobody to ask for the passphrase",
                    hint="give --passphrase-file FILE or --passphrase-fd N",
                )
            source = PassphraseSource(passphrase, entropy=entropy, settings=argon2)
        case FileReference(path=path):
            from modelkeep.adapters.keysource_file import FileSource  # noqa: PLC0415

            source = FileSource(path, entropy=entropy)
        case ExecReference(words=words):
            from modelkeep.adapters.keysource_exec import ExecSource  # noqa: PLC0415

            source = ExecSource(words, entropy=entropy)
        case Pkcs11Reference():
            source = _hsm(parsed, entropy=entropy)
        case AttestedReference(path=path):
            with _extra("attest"):
                from modelkeep.adapters.keysource_attested import attested_source  # noqa: PLC0415

            source = attested_source(
                path,
                lambda inner: opened_source(inner, passphrase=None, entropy=entropy, argon2=argon2),
                entropy=entropy,
            )
        case _:
            source = _remote(parsed)
    return source


def _remote(parsed: VaultReference | AwsReference | GcpReference | AzureReference) -> KeySource:
    """A key that a service elsewhere holds."""
    source: KeySource
    match parsed:
        case VaultReference():
            with _extra("vault"):
                from modelkeep.adapters.keysource_vault import VaultSource  # noqa: PLC0415

            source = VaultSource(parsed, token=secret_of(parsed.token))
        case AwsReference():
            with _extra("aws"):
                from modelkeep.adapters.keysource_aws import AwsSource  # noqa: PLC0415

            source = AwsSource(parsed, credentials=_maybe(parsed.credentials))
        case GcpReference():
            with _extra("gcp"):
                from modelkeep.adapters.keysource_gcp import GcpSource  # noqa: PLC0415

            source = GcpSource(parsed, credentials=_maybe(parsed.credentials))
        case AzureReference():
            with _extra("azure"):
                from modelkeep.adapters.keysource_azure import AzureSource  # noqa: PLC0415

            source = AzureSource(parsed, secret=_maybe(parsed.secret))
    return source


def new_key(reference: str, *, entropy: Entropy) -> None:
    """Make the key that a reference names: a key file, or a key inside an HSM.

    Raises:
        UsageError: `keysource.exists`, or `keysource.make` where its holder makes the key.
        KeepError: as `opened_source` and the sources.
    """
    parsed = parsed_reference(reference)
    if isinstance(parsed, FileReference):
        from modelkeep.adapters.keysource_file import new_key_file  # noqa: PLC0415

        new_key_file(parsed.path, entropy=entropy)
    elif isinstance(parsed, Pkcs11Reference):
        _hsm(parsed, entropy=entropy).generate_key()
    else:
        raise UsageError(
            "keysource.make",
            "the key of this source is made where it lives",
            hint="docs/guide/key-sources.md has the commands",
        )


def secret_of(reference: SecretReference) -> Callable[[], Secret]:
    """Reads a PIN, a token or a password anew at each call."""
    if isinstance(reference, FileReference):
        from modelkeep.adapters.keysource_file import secret_from_file  # noqa: PLC0415

        return lambda: secret_from_file(reference.path)
    from modelkeep.adapters.keysource_exec import secret_from_program  # noqa: PLC0415

    return lambda: secret_from_program(reference.words)


def _hsm(reference: Pkcs11Reference, *, entropy: Entropy) -> Pkcs11Source:
    with _extra("hsm"):
        from modelkeep.adapters.keysource_pkcs11 import Pkcs11Source  # noqa: PLC0415

    return Pkcs11Source(reference, pin=secret_of(reference.pin), entropy=entropy)


def _maybe(reference: SecretReference | None) -> Callable[[], Secret] | None:
    return None if reference is None else secret_of(reference)


@contextmanager
def _extra(name: str) -> Iterator[None]:
    """Say how to install what an adapter imports."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise UsageError(
            "extra.missing",
            f"this source of keys needs {error.name}, which is not installed",
            hint=extra_hint(name),
        ) from error
