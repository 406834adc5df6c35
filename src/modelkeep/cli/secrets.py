"""Where a passphrase comes from: a file, a descriptor or a prompt; never argv or environment."""

from __future__ import annotations

import argparse
import getpass
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from modelkeep.core.errors import UsageError
from modelkeep.core.limits import PASSPHRASE_BYTES_MAX
from modelkeep.crypto.secret import Secret

if TYPE_CHECKING:
    from modelkeep.ports.keyholder import Means

PASSPHRASE_BYTES_MIN = 8


def passphrase_of(options: argparse.Namespace, *, confirm: bool = False) -> Secret:
    """Read the passphrase from where the options say, else ask for it.

    Args:
        confirm: for a new passphrase: ask twice, and insist on a length.

    Raises:
        UsageError: `passphrase.*`.
    """
    if options.passphrase_file is not None:
        try:
            raw = _from_file(options.passphrase_file)
        except OSError as error:
            raise UsageError(
                "passphrase.file", f"{options.passphrase_file}: {error.strerror}"
            ) from error
    elif options.passphrase_fd is not None:
        raw = _from_descriptor(options.passphrase_fd)
    elif sys.stdin.isatty():
        raw = getpass.getpass("passphrase: ").encode()
        if confirm and getpass.getpass("again: ").encode() != raw:
            raise UsageError("passphrase.differs", "the two passphrases differ")
    else:
        raise UsageError(
            "passphrase.none",
            "there is nobody to ask for the passphrase",
            hint="give --passphrase-file FILE or --passphrase-fd N",
        )
    raw = raw.rstrip(b"\r\n")
    least = PASSPHRASE_BYTES_MIN if confirm else 1
    if not least <= len(raw) <= PASSPHRASE_BYTES_MAX:
        raise UsageError(
            "passphrase.length",
            f"a passphrase has {least} to {PASSPHRASE_BYTES_MAX} bytes",
            hint="several random words are easy to keep and hard to guess",
        )
    return Secret(raw)


def means_of(options: argparse.Namespace, *, source: str, confirm: bool = False) -> Means:
    """What the root is opened with: `--key-source`, else `source`; a passphrase only where asked.

    Raises:
        UsageError: `passphrase.*`.
    """
    from modelkeep.ports.keyholder import PASSPHRASE, Means  # noqa: PLC0415 - not for `--help`

    chosen = options.key_source or source
    passphrase = passphrase_of(options, confirm=confirm) if chosen == PASSPHRASE else None
    return Means(source=chosen, passphrase=passphrase)


def new_passphrase(options: argparse.Namespace, source: str) -> Secret | None:
    """The passphrase that is to hold the root from now on; None where something else does.

    Raises:
        UsageError: `passphrase.*`.
    """
    from modelkeep.ports.keyholder import PASSPHRASE  # noqa: PLC0415 - not for `--help`

    if source != PASSPHRASE:
        return None
    if options.new_passphrase_file is None and not sys.stdin.isatty():
        raise UsageError(
            "passphrase.none",
            "there is nobody to ask for the new passphrase",
            hint="give --new-passphrase-file FILE, or --new-key-source REF",
        )
    if options.new_passphrase_file is None:
        print("The new passphrase:", file=sys.stderr)
    chosen = argparse.Namespace(passphrase_file=options.new_passphrase_file, passphrase_fd=None)
    return passphrase_of(chosen, confirm=True)


def _from_file(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(PASSPHRASE_BYTES_MAX + 2)


def _from_descriptor(fd: int) -> bytes:
    try:
        with os.fdopen(fd, "rb") as stream:
            return stream.read(PASSPHRASE_BYTES_MAX + 2)
    except (OSError, ValueError, TypeError) as error:
        raise UsageError("passphrase.fd", f"cannot read descriptor {fd}: {error}") from error
