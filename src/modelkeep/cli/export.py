"""Verbs that bring artifacts to other places and take them in: copy, export, import."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from modelkeep.cli.models import done_facts
from modelkeep.cli.opened import opened
from modelkeep.cli.output import progress, said
from modelkeep.cli.secrets import passphrase_of
from modelkeep.core.errors import IntegrityError, UsageError
from modelkeep.core.record import as_plain
from modelkeep.core.sizes import size_text

if TYPE_CHECKING:
    from modelkeep.crypto.secret import Secret
    from modelkeep.sdk.sealing import Public

STREAM = "-"
_KEY_WORDS = ("mkr1", "mkv1", "age1")


def copy(options: argparse.Namespace) -> int:
    """Bring models to one store."""
    from modelkeep.sdk.transfer import Transfer  # noqa: PLC0415 - `--help` need not load it

    with opened(options) as keep, progress(f"copy to {options.to}") as advance:
        report = Transfer(keep).copy(
            *options.models,
            to=options.to,
            source=options.source,
            may_be_empty=options.new,
            progress=advance,
        )
    state = "whole" if report.is_whole else "NOT WHOLE"
    did = f"copied {report.objects} objects, {size_text(report.size_bytes)}"
    lines = [
        f"{report.store}: {', '.join(report.versions)}: {state}; {did} in {report.seconds:.2f} s"
    ]
    lines += [f"  damaged everywhere: {each}" for each in report.damaged]
    lines += [f"  missing: {each}" for each in report.missing]
    facts = as_plain(report) | {"is_whole": report.is_whole}
    said(facts, "\n".join(lines), as_json=options.json)
    return 0 if report.is_whole else IntegrityError.exit_status


def export(options: argparse.Namespace) -> int:
    """Hand one version to somebody else."""
    from modelkeep.crypto.keytext import verifier_text  # noqa: PLC0415 - not for `--help`
    from modelkeep.sdk.transfer import Transfer  # noqa: PLC0415

    _demand_recipients(options.to)
    passphrase = file_passphrase(options, is_new=True)
    with opened(options) as keep, progress(f"export {options.model}") as advance:
        found = keep.manifest(options.model)
        file = options.output or Path(f"{found.name}-{found.version}.model")
        done = Transfer(keep).export(
            f"{found.name}:{found.version}",
            file,
            to=named_keys(options.to),
            passphrase=passphrase,
            force=options.force,
            progress=advance,
        )
    signer = verifier_text(done.signer)
    facts = {**as_plain(done), "signer": signer, "file": str(file)}
    return said(
        facts,
        f"exported {done.name}:{done.version} to {file} ({size_text(done.raw_bytes)} in "
        f"{size_text(done.size_bytes)}) for {done.recipients} recipient(s)\n"
        f"  signed by  {signer}",
        as_json=options.json,
    )


def take_in(options: argparse.Namespace) -> int:
    """Admit a model that another keep exported."""
    from modelkeep.sdk.transfer import Transfer  # noqa: PLC0415 - `--help` need not load it

    passphrase = file_passphrase(options, is_new=False)
    path = Path(options.file)
    with opened(options) as keep:
        size_bytes = path.stat().st_size if path.is_file() else None
        with progress(f"import {options.name}", size_bytes) as advance:
            done = Transfer(keep).take_in(
                sys.stdin.buffer if options.file == STREAM else path,
                name=options.name,
                identity=options.identity,
                passphrase=passphrase,
                signed_by=named_keys(options.signer),
                domain=options.domain,
                note=options.note,
                progress=advance,
            )
    word = "imported" if done.is_new else "holds exactly these files already:"
    text = f"{word} {done.name}:{done.version}  {done.digest}"
    return said(done_facts(done), text, as_json=options.json)


def file_passphrase(options: argparse.Namespace, *, is_new: bool) -> Secret | None:
    """The passphrase of the file, which is not that of the keep.

    Raises:
        UsageError: `passphrase.*`; `passphrase.keep`, where a new one is that of the keep, as far
            as a file tells.
    """
    if options.file_passphrase is None:
        return None
    chosen = argparse.Namespace(passphrase_file=options.file_passphrase, passphrase_fd=None)
    found = passphrase_of(chosen, confirm=is_new)
    own = options.passphrase_file
    # A pipe can be read only once, and the keep is yet to be opened with it.
    if is_new and own is not None and own.is_file() and found == passphrase_of(options):
        raise UsageError(
            "passphrase.keep",
            "the passphrase of the file is that of the keep: whoever opens the one opens the other",
            hint="give the file one of its own; several random words",
        )
    return found


def _demand_recipients(words: Sequence[str]) -> None:
    """Refuse what can check a signature and cannot open a file.

    Raises:
        UsageError: `export.verifier`.
    """
    for word in words:
        if word.lower().startswith("mkv1") and word.isalnum():
            raise UsageError(
                "export.verifier",
                f"{word} is a verifier, which checks signatures; nobody opens a file with it",
                hint="name the recipient, mkr1…, which `identity new` printed in the line above "
                "it, or the whole public file",
            )


def named_keys(words: Sequence[str]) -> list[Public]:
    """What was named: the text of a key, or a file of keys."""
    return [
        word if word.lower().startswith(_KEY_WORDS) and word.isalnum() else Path(word)
        for word in words
    ]
