"""Verbs about exported models, without a keep: inspect, and decrypt where the file is one."""

from __future__ import annotations

import argparse
from pathlib import Path

from modelkeep.cli.export import STREAM, file_passphrase, named_keys
from modelkeep.cli.manifests import manifest_facts, manifest_lines, print_tensors
from modelkeep.cli.opened import actor
from modelkeep.cli.output import progress, said
from modelkeep.cli.secrets import passphrase_of
from modelkeep.core.errors import UsageError
from modelkeep.core.record import as_plain
from modelkeep.core.sizes import size_text


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
            "manifest": manifest_facts(manifest, with_tensors=options.tensors),
            "digest": model.digest,
            "links": model.links,
        }
        lines = [*_outside_lines(facts), *manifest_lines(manifest, model.digest)]
        lines += [f"  link         {path} -> {says}" for path, says in model.links]
    said(facts, "\n".join(lines), as_json=options.json)
    if options.tensors and not options.json:
        print_tensors(manifest.files)
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
