"""Files and streams for anybody, without a keep: encrypt, decrypt, sign, verify, new identities.

You pick a recipient or a passphrase, never an algorithm. Recipients `age1…` give a file in the
public age format, all others a sealed file (docs/design/sealed-file.md); which of them a file is,
`decrypt` reads from its first bytes.

    sealed = encrypt(b"weights", to="mkr1…")
    plain = decrypt(sealed, identity=Path("me.key"))

Small things go through memory (`encrypt`, `decrypt`), large ones through files and streams
(`encrypt_file`, `decrypt_file`), which take constant memory.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from modelkeep.core.errors import UsageError
from modelkeep.core.record import Record
from modelkeep.crypto.file_signature import SIGNATURE_TEXT_BYTES, parsed_signature
from modelkeep.crypto.kdf import Argon2Settings
from modelkeep.crypto.key_files import (
    IDENTITY_FILE_BYTES_MAX,
    PUBLIC_FILE_BYTES_MAX,
    PrivateKeys,
    PublicKeys,
    identity_file,
    private_keys,
    public_file,
    public_keys,
)
from modelkeep.crypto.keytext import verifier_text
from modelkeep.crypto.locks import Key, Lock, Passphrase
from modelkeep.crypto.recipients import Identity, new_identity
from modelkeep.crypto.secret import Secret
from modelkeep.crypto.signatures import Signer
from modelkeep.crypto.stream import Read, exactly
from modelkeep.flows.files import Plaintext, Progress, Write, open_sealed, seal, sign, verify
from modelkeep.seal.portable import FIRST_LINE as PORTABLE_LINE

# What a caller may give: the text of a key, a file of keys, keys that were read, or several such.
Public = str | Path | PublicKeys
Private = Path | Identity
Data = Path | BinaryIO

# The longest first line of a format that we read: that of age's armour.
_FIRST_BYTES = 64


class Sealed(Record, frozen=True):
    """What an encryption came to.

    Attributes:
        form: `modelkeep` or `age`.
        recipients: how many keys open it; a passphrase counts as one.
        size_bytes: of the plaintext.
    """

    form: str
    recipients: int
    size_bytes: int


class Opened(Record, frozen=True):
    """What a decryption came to.

    Attributes:
        form: `modelkeep` or `age`.
        size_bytes: of the plaintext.
        signer: verifier (`mkv1…`) of who signed it, proven; empty if nobody did. Whether to trust
            it is yours to say, with `signed_by`.
    """

    form: str
    size_bytes: int
    signer: str


@dataclass(frozen=True, slots=True)
class _Target:
    """Where bytes go; `is_stream` if they cannot be taken back."""

    write: Write
    is_stream: bool


def encrypt(
    data: bytes,
    *,
    to: Public | Iterable[Public] = (),
    passphrase: str | Secret | None = None,
    sign_with: Private | Signer | None = None,
) -> bytes:
    """Encrypt bytes to recipients or under a passphrase.

    Args:
        to: `mkr1…`, `age1…`, the PEM text of an RSA key, or the path of a public file.
        sign_with: whose signature the sealed file carries.

    Raises:
        UsageError: `files.*`, `key.*`, `recipient.key`, `rsa.*`, `age.recipient`.
    """
    target = io.BytesIO()
    encrypt_file(io.BytesIO(data), target, to=to, passphrase=passphrase, sign_with=sign_with)
    return target.getvalue()


def decrypt(
    data: bytes,
    *,
    identity: Private | Iterable[Private] = (),
    passphrase: str | Secret | None = None,
    signed_by: Public | Iterable[Public] | None = None,
) -> bytes:
    """Decrypt bytes; they come back only when all of them, and the signature, verified.

    Args:
        identity: paths of identity files, or identities.
        signed_by: verifiers (`mkv1…`, or a public file), one of whom must have signed; without
            it anybody may have made the data.

    Raises:
        IntegrityError: `sealed.*` or `age.damaged`.
        RefusedError: `sealed.key`, `sealed.signer`, `age.key`, `file.readable`.
        UsageError: `files.*`, `key.*`.
    """
    parts: list[bytes] = []
    target = _Target(write=parts.append, is_stream=False)
    keys, signers = _private(identity), demanded(signed_by)
    _open(io.BytesIO(data).read, target, keys=keys, passphrase=passphrase, signers=signers)
    return b"".join(parts)


def encrypt_file(
    source: Data,
    target: Data,
    *,
    to: Public | Iterable[Public] = (),
    passphrase: str | Secret | None = None,
    sign_with: Private | Signer | None = None,
    force: bool = False,
    progress: Progress = lambda _: None,
    argon2: Argon2Settings = Argon2Settings(),  # noqa: B008 - it is frozen
) -> Sealed:
    """Encrypt a file or a stream; a target that is a path appears when it is whole.

    Args:
        force: replace a target that exists.
        argon2: cost of a passphrase; at most 1 GiB and 8 passes.

    Raises:
        UsageError: as `encrypt`; `file.exists`.
        UnavailableError: `file.write`.
    """
    keys = keys_of(to)
    signer = _signer(sign_with)
    locks: list[Lock] = list(keys.recipients)
    if passphrase is not None:
        locks.append(Passphrase(_secret(passphrase), argon2))
    _demand_one_form(keys, locks, signer)
    with _reading(source, progress) as (read, size), _writing(target, force=force) as into:
        if keys.age:
            from modelkeep.adapters.age_files import encrypt_age  # noqa: PLC0415

            encrypt_age(read, into.write, recipients=keys.age)
        else:
            from modelkeep.adapters.system import SystemEntropy  # noqa: PLC0415

            seal(read, into.write, locks=locks, signer=signer, entropy=SystemEntropy())
    return Sealed(
        form="age" if keys.age else "modelkeep",
        recipients=len(keys.age) + len(locks),
        size_bytes=size(),
    )


def decrypt_file(
    source: Data,
    target: Data,
    *,
    identity: Private | Iterable[Private] = (),
    passphrase: str | Secret | None = None,
    signed_by: Public | Iterable[Public] | None = None,
    force: bool = False,
    progress: Progress = lambda _: None,
) -> Opened:
    """Decrypt a file or a stream; a target that is a path appears when all of it verified.

    A stream gets each chunk when that chunk verified; an error then means that what it got is not
    the whole. Therefore `signed_by` demands a path.

    Raises:
        UsageError: as `decrypt`; `files.unproven`, `file.exists`.
        IntegrityError: as `decrypt`.
        RefusedError: as `decrypt`.
        UnavailableError: `file.write`.
    """
    keys = _private(identity)
    signers = demanded(signed_by)
    with _reading(source, progress) as (read, _), _writing(target, force=force) as into:
        return _open(read, into, keys=keys, passphrase=passphrase, signers=signers)


def sign_file(
    source: Data, *, sign_with: Private | Signer, progress: Progress = lambda _: None
) -> bytes:
    """The text of a detached signature of a file or a stream.

    Raises:
        UsageError: `file.read`, `files.signer`, `key.*`.
        RefusedError: `file.readable`.
    """
    signer = _signer(sign_with)
    assert signer is not None  # one was given
    with _reading(source, progress) as (read, _):
        return sign(read, signer)


def verify_file(
    source: Data,
    signature: bytes,
    *,
    signed_by: Public | Iterable[Public],
    progress: Progress = lambda _: None,
) -> Opened:
    """Check a detached signature of a file or a stream.

    Raises:
        IntegrityError: `signature.form`, `signature.bad`.
        RefusedError: `signature.signer`.
        UsageError: `files.verifier`, `key.*`.
    """
    found = parsed_signature(signature)
    verifiers = _verifiers(signed_by)
    with _reading(source, progress) as (read, _):
        size_bytes = verify(read, found, verifiers=verifiers)
    return Opened(form="modelkeep", size_bytes=size_bytes, signer=verifier_text(found.verifier))


def signature_of(path: Path) -> bytes:
    """The bytes of a signature file.

    Raises:
        MissingError: `file.missing`.
        UsageError: `file.read`, `file.size`.
    """
    from modelkeep.adapters.file_streams import small_bytes  # noqa: PLC0415

    return small_bytes(path, size_max=SIGNATURE_TEXT_BYTES)


def written(target: Data, raw: bytes, *, force: bool) -> None:
    """Write small bytes to where streams and files go.

    Raises:
        UsageError: `file.exists`.
        UnavailableError: `file.write`.
    """
    with _writing(target, force=force) as into:
        into.write(raw)


def make_identity(path: Path) -> str:
    """Write a new identity to a file of its own, mode 0600; the text of its public file.

    Raises:
        UsageError: `file.exists`: an identity is never replaced.
        UnavailableError: `file.write`.
    """
    from modelkeep.adapters.system import SystemEntropy  # noqa: PLC0415

    if path.is_symlink() or path.exists():
        raise UsageError(
            "file.exists",
            f"{path} exists, and an identity is never replaced",
            hint="name another file, or move this one away: only it opens what is sealed to it",
        )
    identity = new_identity(SystemEntropy().random_bytes)
    written(path, identity_file(identity).reveal(), force=False)
    return public_file(identity)


def _open(
    read: Read,
    into: _Target,
    *,
    keys: PrivateKeys,
    passphrase: str | Secret | None,
    signers: tuple[bytes, ...] | None,
) -> Opened:
    """Decrypt whichever form it is."""
    from modelkeep.adapters.age_files import AGE_FIRST_BYTES, decrypt_age  # noqa: PLC0415

    if signers is not None and into.is_stream:
        raise UsageError(
            "files.unproven",
            "whose bytes these are is known only when all of them are read",
            hint="decrypt into a file: it appears when the signature verified",
        )
    head = exactly(read, _FIRST_BYTES)
    held = io.BytesIO(head)

    def whole(size_bytes: int) -> bytes:
        return held.read(size_bytes) or read(size_bytes)

    if head.lstrip().startswith(AGE_FIRST_BYTES):
        if signers is not None:
            raise UsageError("files.age", "a file in the age format carries no signature")
        size_bytes = decrypt_age(whole, into.write, identities=keys.age)
        return Opened(form="age", size_bytes=size_bytes, signer="")
    if head.startswith(PORTABLE_LINE):
        raise UsageError(
            "files.portable",
            "this is an exported model, which is opened from a file",
            hint="`modelkeep decrypt FILE --output PATH`, or `modelkeep.sdk.portable`",
        )
    openers = _openers(keys, passphrase)
    found: Plaintext = open_sealed(whole, into.write, keys=openers, signers=signers)
    signer = verifier_text(found.signer) if found.signer else ""
    return Opened(form="modelkeep", size_bytes=found.size_bytes, signer=signer)


@contextmanager
def _reading(source: Data, progress: Progress) -> Iterator[tuple[Read, Callable[[], int]]]:
    """A function that reads and tells of its progress, and how much it has read."""
    done = 0

    def counted(read: Read) -> Read:
        def counting(size_bytes: int) -> bytes:
            nonlocal done
            got = read(size_bytes)
            done += len(got)
            progress(len(got))
            return got

        return counting

    if isinstance(source, Path):
        from modelkeep.adapters.file_streams import file_source  # noqa: PLC0415

        with file_source(source) as read:
            yield counted(read), lambda: done
    else:
        yield counted(source.read), lambda: done


@contextmanager
def _writing(target: Data, *, force: bool) -> Iterator[_Target]:
    if not isinstance(target, Path):
        yield _Target(write=target.write, is_stream=True)
        target.flush()
        return
    from modelkeep.adapters.disk import RealDisk  # noqa: PLC0415
    from modelkeep.adapters.file_streams import file_target  # noqa: PLC0415

    with file_target(RealDisk(), target, force=force) as write:
        yield _Target(write=write, is_stream=False)


def _demand_one_form(keys: PublicKeys, locks: list[Lock], signer: Signer | None) -> None:
    """A file is of one form.

    Raises:
        UsageError: `files.recipient` or `files.age`.
    """
    if not keys.age and not locks:
        raise UsageError(
            "files.recipient",
            "nobody is named who could open it",
            hint="name a recipient (mkr1…, age1…, a public file) or give a passphrase",
        )
    if keys.age and (locks or signer):
        raise UsageError(
            "files.age",
            "a file in the age format takes age1… recipients only, and no signature",
            hint="encrypt twice, once for each kind of recipient",
        )


def keys_of(given: Public | Iterable[Public]) -> PublicKeys:
    """The public keys in texts and files.

    Raises:
        MissingError: `file.missing`.
        UsageError: `file.read`, `file.size`, and what `public_keys` raises.
    """
    found = PublicKeys()
    for each in [given] if isinstance(given, Public) else given:
        if isinstance(each, PublicKeys):
            found += each
        elif isinstance(each, Path):
            from modelkeep.adapters.file_streams import small_bytes  # noqa: PLC0415

            found += public_keys(small_bytes(each, size_max=PUBLIC_FILE_BYTES_MAX))
        else:
            found += public_keys(each.encode())
    return found


def openers_of(identity: Private | Iterable[Private], passphrase: str | Secret | None) -> list[Key]:
    """What opens a sealed file: the keys in identity files, and a passphrase.

    Raises:
        MissingError: `file.missing`.
        RefusedError: `file.readable`.
        UsageError: `files.passphrase`, `key.*`.
    """
    return _openers(_private(identity), passphrase)


def _openers(keys: PrivateKeys, passphrase: str | Secret | None) -> list[Key]:
    openers: list[Key] = [*keys.identities, *keys.rsa]
    if passphrase is not None:
        openers.append(Passphrase(_secret(passphrase)))
    return openers


def demanded(given: Public | Iterable[Public] | None) -> tuple[bytes, ...] | None:
    """Whose signature is demanded: None for nobody's.

    Raises:
        UsageError: `files.verifier`, `key.*`.
    """
    return None if given is None else _verifiers(given)


def _verifiers(given: Public | Iterable[Public]) -> tuple[bytes, ...]:
    """The verifiers in texts and files: at least one.

    Raises:
        UsageError: `files.verifier`.
    """
    verifiers = keys_of(given).verifiers
    if not verifiers:
        raise UsageError(
            "files.verifier",
            "no verifier is in what was given",
            hint="a verifier begins with mkv1; `modelkeep identity new` prints it",
        )
    return verifiers


def _private(given: Private | Iterable[Private]) -> PrivateKeys:
    """The keys in identity files, and identities themselves."""
    found = PrivateKeys()
    for each in [given] if isinstance(given, Path | Identity) else given:
        if isinstance(each, Identity):
            found += PrivateKeys(identities=(each,))
        else:
            from modelkeep.adapters.file_streams import private_bytes  # noqa: PLC0415

            raw = private_bytes(each, size_max=IDENTITY_FILE_BYTES_MAX)
            found += private_keys(raw)
    return found


def _signer(given: Private | Signer | None) -> Signer | None:
    """Who signs.

    Raises:
        UsageError: `files.signer`.
    """
    if given is None or isinstance(given, Signer):
        return given
    identities = _private(given).identities
    if len(identities) != 1:
        raise UsageError(
            "files.signer",
            "a signature is by one modelkeep identity",
            hint="`modelkeep identity new --output FILE` makes one",
        )
    return identities[0].signer


def _secret(passphrase: str | Secret) -> Secret:
    """A passphrase as bytes.

    Raises:
        UsageError: `files.passphrase`.
    """
    secret = Secret(passphrase.encode()) if isinstance(passphrase, str) else passphrase
    if not len(secret):
        raise UsageError("files.passphrase", "an empty passphrase protects nothing")
    return secret
