"""Verbs in the forms of others: oms sign, oms verify, oms key, bom, safetensors."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from modelkeep.cli.opened import opened, warned
from modelkeep.cli.output import progress, said
from modelkeep.core.record import as_plain
from modelkeep.core.sizes import size_text

if TYPE_CHECKING:
    from modelkeep.flows.oms import OmsVerified

_SHOWN_MAX = 5


def oms_key(options: argparse.Namespace) -> int:
    """Show the public key."""
    from modelkeep.sdk.interop import Interop  # noqa: PLC0415 - `--help` need not load it

    with opened(options) as keep:
        key = Interop(keep).oms_key()
    pem = key.pem.decode()
    return said({"pem": pem, "fingerprint": key.fingerprint}, pem.rstrip(), as_json=options.json)


def oms_sign(options: argparse.Namespace) -> int:
    """Sign a version or a folder."""
    from modelkeep.sdk.interop import Interop  # noqa: PLC0415 - `--help` need not load it

    if options.hash == "blake3":
        warned("the command of the public tool cannot verify BLAKE3; its Python library can")
    with opened(options) as keep, progress(f"sign {options.what}") as advance:
        done = Interop(keep).oms_sign(
            options.what,
            options.output,
            algorithm=options.hash,
            ignore=options.ignore,
            force=options.force,
            progress=advance,
        )
    _say_whose(options.what)
    text = (
        f"signed {done.subject}: {done.files} file(s) by {done.algorithm}, in {options.output}\n"
        f"  root  {done.root}\n  key   {done.key}{_left_out(done.ignored)}"
    )
    return said({**as_plain(done), "output": str(options.output)}, text, as_json=options.json)


def oms_verify(options: argparse.Namespace) -> int:
    """Check files against a signature."""
    from modelkeep.sdk.interop import Interop, verify_files  # noqa: PLC0415 - not for `--help`

    with ExitStack() as stack:
        verify: Callable[..., OmsVerified] = verify_files
        if "/" not in options.what or options.key is options.root is None:
            verify = Interop(stack.enter_context(opened(options))).oms_verify
        done = verify(
            options.what,
            options.signature,
            key=options.key,
            root=options.root,
            ignore=options.ignore,
            progress=stack.enter_context(progress(f"verify {options.what}")),
        )
    _say_whose(options.what)
    text = (
        f"good: {done.subject} is what was signed as {done.signed_name}: {done.files} file(s)\n"
        f"  root  {done.root}\n  key   {done.key}{_left_out(done.ignored)}"
    )
    return said(as_plain(done), text, as_json=options.json)


def bom(options: argparse.Namespace) -> int:
    """Describe a version."""
    from modelkeep.adapters.file_streams import file_target  # noqa: PLC0415
    from modelkeep.sdk.interop import Interop  # noqa: PLC0415

    with opened(options) as keep:
        raw = Interop(keep).bom(options.model, spec=options.spec)
        if options.output is not None:
            disk = keep.folder.world.disk
            with file_target(disk, Path(options.output), force=options.force) as write:
                write(raw)
    if options.output is None:
        sys.stdout.buffer.write(raw + b"\n")
        sys.stdout.buffer.flush()
        return 0
    facts = {"output": str(options.output), "size_bytes": len(raw), "spec": options.spec}
    text = f"wrote {options.output}: CycloneDX {options.spec}, {size_text(len(raw))}"
    return said(facts, text, as_json=options.json)


def safetensors(options: argparse.Namespace) -> int:
    """Write the tensors of a version."""
    from modelkeep.sdk.interop import Interop  # noqa: PLC0415 - `--help` need not load it

    with opened(options) as keep, progress(f"write {options.output}") as advance:
        done = Interop(keep).safetensors(
            options.model,
            options.output,
            path=options.path,
            force=options.force,
            progress=advance,
        )
    how = "as they were admitted" if done.is_same else "as safetensors"
    text = (
        f"wrote {done.tensors} tensors of {done.name}:{done.version} to {options.output}, {how}: "
        f"{done.files} file(s), {size_text(done.size_bytes)}"
    )
    if done.passed:
        text += f"\n  no tensors are seen in {_some(done.passed)}"
    return said({**as_plain(done), "output": str(options.output)}, text, as_json=options.json)


def _say_whose(what: str) -> None:
    """A word is a model of the keep, also where files of that name lie here."""
    if "/" not in what and Path(what).exists():
        warned(f"that was the model {what} of the keep; ./{what} names what lies here")


def _left_out(ignored: tuple[str, ...]) -> str:
    return f"\n  nothing is said of {_some(ignored)}" if ignored else ""


def _some(paths: tuple[str, ...]) -> str:
    more = len(paths) - _SHOWN_MAX
    return ", ".join(paths[:_SHOWN_MAX]) + (f" and {more} more" if more > 0 else "")
