"""Verbs about proving which host this is: attest new, show, verify."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from modelkeep.cli.opened import keep_path
from modelkeep.cli.output import print_json, safe_text, said
from modelkeep.core.errors import MissingError, UsageError
from modelkeep.core.record import as_plain

if TYPE_CHECKING:
    from modelkeep.config import Config


def new(options: argparse.Namespace) -> int:
    """Make an attestation key; its public half goes to stdout, what it means to stderr."""
    from modelkeep.sdk.attestation import make_host_key  # noqa: PLC0415 - not for `--help`

    made = make_host_key(options.key, algorithm=options.algorithm)
    if options.json:
        print_json({"key": str(options.key), **as_plain(made)})
        return 0
    print(f"modelkeep: this host is {made.ueid}", file=sys.stderr)
    print(made.public, end="")
    return 0


def show(options: argparse.Namespace) -> int:
    """Show what this host can prove."""
    from modelkeep.sdk.attestation import evidence_of, shown  # noqa: PLC0415

    config = _config(options)
    attester = options.attester or (config.attestation.attester if config is not None else "")
    nonce = _nonce(options.nonce)
    if options.raw:
        print(safe_text(evidence_of(attester, nonce).decode("ascii", errors="replace").strip()))
        return 0
    found = shown(attester, nonce, config)
    told = found.told
    lines = [
        f"host          {told.ueid}",
        f"measurements  {told.measurements}",
        f"debugging     {told.debug}",
        f"software      {told.software}",
        f"boot          {told.boot}",
        f"profile       {told.profile}",
    ]
    if found.is_believed:
        lines.append("this keep believes it")
    elif found.refusal:
        lines.append(f"this keep does not believe it: {found.refusal}")
    return said(found, "\n".join(lines), as_json=options.json)


def verify(options: argparse.Namespace) -> int:
    """Verify the evidence of a host."""
    from modelkeep.sdk.attestation import verify_evidence  # noqa: PLC0415 - not for `--help`

    found = verify_evidence(
        options.file,
        anchors=options.anchor,
        nonce=_nonce(options.nonce),
        measurements=options.measurement,
    )
    compared = "" if options.measurement else "  (not compared with anything)"
    lines = [
        f"host          {found.ueid}",
        f"said by       {found.anchor}",
        f"measurements  {found.measurements}{compared}",
        f"debugging     {found.debug}",
    ]
    return said(found, "\n".join(lines), as_json=options.json)


def _nonce(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise UsageError("attest.nonce_form", "a nonce is written in hexadecimal") from None


def _config(options: argparse.Namespace) -> Config | None:
    """The configuration of the keep, where there is one; needed only without --attester."""
    from modelkeep.wiring import KeepFolder, read_config  # noqa: PLC0415 - not for `--help`

    try:
        return read_config(KeepFolder(keep_path(options)))[0]
    except MissingError:
        if options.attester:
            return None
        raise
