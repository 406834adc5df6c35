"""Verbs about what versions are made of: save, ls, cat."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from modelkeep.cli.manifests import print_tensors
from modelkeep.cli.opened import opened
from modelkeep.cli.output import print_json, print_table, progress, said
from modelkeep.core.instant import rfc3339
from modelkeep.core.record import as_plain
from modelkeep.core.sizes import size_text

if TYPE_CHECKING:
    from modelkeep.flows.restore import FileFacts


def save(options: argparse.Namespace) -> int:
    """Keep files as they are."""
    from modelkeep.sdk.contents import size_of  # noqa: PLC0415 - `--help` need not load it

    bar = progress(f"save {options.name}", size_of(options.path))
    with opened(options) as keep, bar as advance:
        done = keep.save(
            options.path,
            name=options.name,
            domain=options.domain,
            base=options.base,
            note=options.note,
            progress=advance,
        )
    names = ("name", "version", "digest", "is_new", "files", "size_bytes", "unread")
    what = f"{done.name}:{done.version}"
    text = f"saved {what}  {done.files} files, {size_text(done.size_bytes)}  {done.digest}"
    if not done.is_new:
        text = f"nothing is new: {what} holds exactly this already  {done.digest}"
    return said({name: getattr(done, name) for name in names}, text, as_json=options.json)


def ls(options: argparse.Namespace) -> int:
    """List what is in a version."""
    with opened(options) as keep:
        found = keep.files(options.model)
    if options.json:
        print_json(found if options.tensors else [_without_tensors(each) for each in found])
    elif options.tensors:
        print_tensors(found)
    else:
        print_table(("path", "size", "mode", "modified", "tensors"), [_row(each) for each in found])
    return 0


def cat(options: argparse.Namespace) -> int:
    """Write a file to stdout."""
    with opened(options) as keep:
        keep.stream(options.model, options.path, sys.stdout.buffer.write)
        sys.stdout.buffer.flush()
    return 0


def _without_tensors(facts: FileFacts) -> dict[str, object]:
    plain = as_plain(facts)
    assert isinstance(plain, dict)
    return plain | {"tensors": len(facts.tensors)}


def _row(facts: FileFacts) -> tuple[object, ...]:
    path = facts.path
    if facts.kind == "folder":
        path += "/"
    elif facts.kind == "link":
        path += f" -> {facts.leads_to}"
    return (
        path,
        size_text(facts.size_bytes) if facts.size_bytes >= 0 else "",
        f"{facts.mode:04o}" if facts.mode >= 0 else "",
        rfc3339(facts.modified_ns)[:19] if facts.modified_ns >= 0 else "",
        len(facts.tensors) or "",
    )
