"""Verbs about files and streams of anybody: encrypt, decrypt, sign, verify, identity new.

They need no keep. Whose keys are used is decided in `_named_keys`, `_identities` and `_passphrase`;
a keep's own identity would come in there.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from modelkeep.cli.output import print_json, progress, safe_text
from modelkeep.cli.secrets import passphrase_of
from modelkeep.core.errors import UsageError
from modelkeep.core.sizes import size_text

if TYPE_CHECKING:
    from modelkeep.crypto.secret import Secret
    from modelkeep.sdk.sealing import Data, Private, Public

STREAM = "-"
SUFFIXES = (".sealed", ".age")
_KEY_WORDS = ("mkr1", "mkv1", "age1")


def encrypt(options: argparse.Namespace) -> int:
    """Encrypt a file or a stream."""
    from modelkeep.sdk.sealing import encrypt_file, keys_of  # noqa: PLC0415 - not for `--help`

    to = keys_of(_named_keys(options.to))
    target = _target(options, options.file + SUFFIXES[bool(to.age)], is_binary=True)
    passphrase = _passphrase(options, is_needed=not options.to, is_new=True)
    with progress(f"encrypt {options.file}", _size(options.file)) as advance:
        done = encrypt_file(
            _source(options.file),
            target,
            to=to,
            passphrase=passphrase,
            sign_with=options.sign,
            force=options.force,
            progress=advance,
        )
    if not isinstance(target, Path):
        return 0
    facts = {"file": str(target), "form": done.form, "recipients": done.recipients}
    facts |= {"size_bytes": done.size_bytes, "signed": options.sign is not None}
    opener = "a passphrase" if passphrase else f"{done.recipients} recipient(s)"
    signed = ", signed" if options.sign else ""
    _say(options, facts, f"encrypted {target} ({size_text(done.size_bytes)}) for {opener}{signed}")
    return 0


def decrypt(options: argparse.Namespace) -> int:
    """Decrypt a file or a stream."""
    from modelkeep.cli.portable import decrypt_model, is_model  # noqa: PLC0415
    from modelkeep.sdk.sealing import decrypt_file  # noqa: PLC0415

    if is_model(options):
        return decrypt_model(options)
    target = _target(options, _without_suffix(options.file), is_binary=False)
    identities = _identities(options.identity)
    passphrase = _passphrase(options, is_needed=not identities, is_new=False)
    with progress(f"decrypt {options.file}", _size(options.file)) as advance:
        done = decrypt_file(
            _source(options.file),
            target,
            identity=identities,
            passphrase=passphrase,
            signed_by=None if options.signed_by is None else _named_keys(options.signed_by),
            force=options.force,
            progress=advance,
        )
    if not isinstance(target, Path):
        return 0
    is_demanded = options.signed_by is not None
    facts = {"file": str(target), "form": done.form, "size_bytes": done.size_bytes}
    facts |= {"signer": done.signer, "signer_trusted": is_demanded}
    _say(options, facts, f"decrypted {target} ({size_text(done.size_bytes)})")
    if not options.json:
        trust = "as you demanded" if is_demanded else "which you did not demand with --signer"
        print(f"  signed by  {done.signer}, {trust}" if done.signer else "  signed by  nobody")
    return 0


def sign(options: argparse.Namespace) -> int:
    """Write a file's detached signature."""
    from modelkeep.sdk.sealing import sign_file, written  # noqa: PLC0415

    target = _target(options, options.file + ".sig", is_binary=False)
    with progress(f"sign {options.file}", _size(options.file)) as advance:
        text = sign_file(_source(options.file), sign_with=options.identity, progress=advance)
    written(target, text, force=options.force)
    if isinstance(target, Path):
        _say(options, {"file": options.file, "signature": str(target)}, f"signed: {target}")
    return 0


def verify(options: argparse.Namespace) -> int:
    """Check a file's detached signature."""
    from modelkeep.sdk.sealing import signature_of, verify_file  # noqa: PLC0415

    if options.signature is None and options.file == STREAM:
        raise UsageError("files.signature", "a stream's signature is named with --signature FILE")
    text = signature_of(options.signature or Path(options.file + ".sig"))
    with progress(f"verify {options.file}", _size(options.file)) as advance:
        done = verify_file(
            _source(options.file), text, signed_by=_named_keys(options.key), progress=advance
        )
    facts = {"file": options.file, "size_bytes": done.size_bytes, "signer": done.signer}
    _say(options, facts, f"good: {options.file} is what {done.signer} signed")
    return 0


def identity_new(options: argparse.Namespace) -> int:
    """Make an identity file; print its public half."""
    from modelkeep.sdk.sealing import make_identity  # noqa: PLC0415

    text = make_identity(options.output)
    recipient, verifier = (line for line in text.splitlines() if not line.startswith("#"))
    if options.json:
        print_json({"file": str(options.output), "recipient": recipient, "verifier": verifier})
    else:
        print(text, end="")
    return 0


def _named_keys(words: list[str]) -> list[Public]:
    """What was named: the text of a key, or a file of keys."""
    return [
        word if word.lower().startswith(_KEY_WORDS) and word.isalnum() else Path(word)
        for word in words
    ]


def _identities(paths: list[Path]) -> list[Private]:
    """Whose keys open."""
    return list(paths)


def _passphrase(options: argparse.Namespace, *, is_needed: bool, is_new: bool) -> Secret | None:
    """The passphrase, where no key was named.

    Raises:
        UsageError: `files.both`, and those of `passphrase_of`.
    """
    is_given = options.passphrase_file is not None or options.passphrase_fd is not None
    if is_given and not is_needed:
        raise UsageError(
            "files.both", "name keys or a passphrase, not both", hint="leave one of them away"
        )
    return passphrase_of(options, confirm=is_new) if is_needed else None


def _source(name: str) -> Data:
    return sys.stdin.buffer if name == STREAM else Path(name)


def _size(name: str) -> int | None:
    path = Path(name)
    return path.stat().st_size if name != STREAM and path.is_file() else None


def _target(options: argparse.Namespace, default: str, *, is_binary: bool) -> Path | BinaryIO:
    """Where the output goes.

    Raises:
        UsageError: `files.output`, `files.terminal`.
    """
    named = options.output or (STREAM if options.file == STREAM else default)
    if not named:
        raise UsageError(
            "files.output",
            f"it cannot be told what {safe_text(options.file)} should be called when it is opened",
            hint="name it: --output FILE, or - for stdout",
        )
    if named != STREAM:
        return Path(named)
    if options.json:
        raise UsageError(
            "files.output", "stdout cannot take both the output and JSON", hint="--output FILE"
        )
    if is_binary and sys.stdout.isatty():
        raise UsageError(
            "files.terminal", "a terminal cannot show encrypted bytes", hint="--output FILE"
        )
    return sys.stdout.buffer


def _without_suffix(name: str) -> str:
    for suffix in SUFFIXES:
        if name.endswith(suffix) and Path(name).name != suffix:
            return name.removesuffix(suffix)
    return ""


def _say(options: argparse.Namespace, facts: dict[str, object], sentence: str) -> None:
    if options.json:
        print_json(facts)
    else:
        print(safe_text(sentence))
