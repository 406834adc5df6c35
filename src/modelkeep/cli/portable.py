"""Verbs about exported models, without a keep: inspect, and decrypt where the file is one."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from modelkeep.cli.export import STREAM, file_passphrase, named_keys
from modelkeep.cli.opened import actor
from modelkeep.cli.output import print_table, progress, said, size_text
from modelkeep.cli.secrets import passphrase_of
from modelkeep.core.artifact import Manifest
from modelkeep.core.errors import UsageError
from modelkeep.core.instant import rfc3339
from modelkeep.core.policy import ANYTHING
from modelkeep.core.record import as_plain

if TYPE_CHECKING:
    from modelkeep.sdk.portable import PortableModel


def inspect(options: argparse.Namespace) -> int:
    """Say what an exported model is."""
    from modelkeep.crypto.keytext import verifier_text  # noqa: PLC0415 - not for `--help`
    from modelkeep.sdk.portable import PortableModel, demand_sender, outside_of  # noqa: PLC0415

    seen = outside_of(options.file)
    facts = as_plain(seen) | {
        "file": str(options.file),
        "size_bytes": options.file.stat().st_size,
        "sender": verifier_text(seen.sender),
        "sender_trusted": options.signer is not None,
    }
    passphrase = file_passphrase(options, is_new=False)
    signers = None if options.signer is None else named_keys(options.signer)
    if not options.identity and passphrase is None:
        if signers is not None:
            demand_sender(seen, signers)
        return said(facts, "\n".join(_outside_lines(facts)), as_json=options.json)
    with PortableModel(
        options.file,
        identity=options.identity,
        passphrase=passphrase,
        signed_by=signers,
        actor=actor(),
    ) as model:
        manifest = model.manifest
        facts |= {
            "sender": model.sender,  # of what was opened, whatever was looked at before
            "manifest": as_plain(manifest),
            "digest": model.digest,
            "links": model.links,
        }
        if not options.tensors:
            for each in facts["manifest"]["files"]:
                each["tensors"] = len(each["tensors"])
        lines = [*_outside_lines(facts), *_lines(model)]
    said(facts, "\n".join(lines), as_json=options.json)
    if options.tensors and not options.json:
        _print_tensors(manifest)
    return 0


def is_model(options: argparse.Namespace) -> bool:
    """Whether what is to be decrypted is an exported model in a file.

    Raises:
        MissingError: `file.missing`.
        UsageError: `files.part`, for a part of anything else.
    """
    from modelkeep.sdk.portable import is_portable  # noqa: PLC0415

    path = Path(options.file)
    if options.file != STREAM and path.is_file() and is_portable(path):
        return True
    if options.path or options.tensor:
        raise UsageError("files.part", "only an exported model in a file has parts to choose from")
    return False


def decrypt_model(options: argparse.Namespace) -> int:
    """Write an exported model, or a part of it, to a file or a folder."""
    from modelkeep.sdk.portable import PortableModel  # noqa: PLC0415

    if options.output in (None, STREAM):
        raise UsageError(
            "files.output",
            "an exported model is opened into a file or a folder",
            hint="name it: --output PATH",
        )
    passphrase = None if options.identity else passphrase_of(options, confirm=False)
    signers = None if options.signed_by is None else named_keys(options.signed_by)
    with (
        PortableModel(
            options.file,
            identity=options.identity,
            passphrase=passphrase,
            signed_by=signers,
            actor=actor(),
        ) as model,
        progress(f"decrypt {options.file}") as advance,
    ):
        size_bytes = model.unpack(
            options.output,
            path=options.path,
            tensor=options.tensor,
            force=options.force,
            progress=advance,
        )
        sender, manifest = model.sender, model.manifest
    trust = "as you demanded" if signers is not None else "which you did not demand with --signer"
    facts = {
        "file": options.output,
        "form": "model",
        "name": manifest.name,
        "version": manifest.version,
        "size_bytes": size_bytes,
        "signer": sender,
        "signer_trusted": signers is not None,
    }
    return said(
        facts,
        f"decrypted {manifest.name}:{manifest.version} to {options.output} "
        f"({size_text(size_bytes)})\n  signed by  {sender}, {trust}",
        as_json=options.json,
    )


def _outside_lines(facts: dict[str, object]) -> list[str]:
    trust = "as you demanded" if facts["sender_trusted"] else "whom you did not name with --signer"
    kinds = [
        f"{facts['recipients']} recipient(s)" if facts["recipients"] else "",
        f"{facts['rsa']} RSA key(s)" if facts["rsa"] else "",
        "a passphrase" if facts["passphrase"] else "",
    ]
    size_bytes = facts["size_bytes"]
    assert isinstance(size_bytes, int)
    return [
        f"{facts['file']}: an exported model, {size_text(size_bytes)}",
        f"  sent by      {facts['sender']}, {trust}",
        f"  opens for    {', '.join(filter(None, kinds))}",
    ]


def _lines(model: PortableModel) -> list[str]:
    manifest = model.manifest
    lines = [
        f"  model        {manifest.name}:{manifest.version} ({manifest.kind})",
        f"  admitted     {rfc3339(manifest.admitted_ns)[:19]}Z",
        f"  manifest     {model.digest}",
    ]
    if manifest.note:
        lines.append(f"  note         {manifest.note}")
    if manifest.policy != ANYTHING:
        lines += _told("policy", as_plain(manifest.policy), as_plain(ANYTHING))
    lines += _told("card", as_plain(manifest.card), {})
    for each in manifest.files:
        tensors = f", {len(each.tensors)} tensors" if each.tensors else ""
        lines.append(f"  file         {each.path}: {size_text(each.size_bytes)}{tensors}")
    lines += [f"  link         {path} -> {says}" for path, says in model.links]
    return lines


def _told(title: str, plain: dict[str, object], silent: dict[str, object]) -> list[str]:
    """The fields that say something."""
    told = {key: value for key, value in plain.items() if value and value != silent.get(key)}
    if isinstance(ends_ns := told.pop("not_after_ns", 0), int) and ends_ns:
        told["not_after"] = rfc3339(ends_ns)[:19] + "Z"
    return [f"  {title:<12} {key}: {_text(value)}" for key, value in told.items()]


def _text(value: object) -> str:
    """A field for people, on one line."""
    if isinstance(value, dict):
        return " ".join(_text(each) for each in value.values() if each)
    return ", ".join(map(_text, value)) if isinstance(value, list | tuple) else str(value)


def _print_tensors(manifest: Manifest) -> None:
    print_table(
        ("tensor", "type", "shape", "size", "file"),
        [
            (
                each.name,
                each.dtype,
                "x".join(map(str, each.shape)) or "scalar",
                size_text(each.length),
                file.path,
            )
            for file in manifest.files
            for each in file.tensors
        ],
    )
