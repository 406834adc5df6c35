"""Verbs that show what is signed with a version, and give its bytes another policy."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from modelkeep.cli.opened import opened
from modelkeep.cli.output import print_json, safe_text, size_text
from modelkeep.core.instant import rfc3339
from modelkeep.core.policy import ANYTHING
from modelkeep.core.record import as_plain

if TYPE_CHECKING:
    from modelkeep.core.artifact import Manifest
    from modelkeep.core.policy import Policy

NO_POLICY = Path("none")


def show(options: argparse.Namespace) -> int:
    """Show a version's manifest: policy, card, marks, files."""
    from modelkeep.sdk.versions import Versions  # noqa: PLC0415 - `--help` need not load it

    with opened(options) as keep:
        manifest, digest = Versions(keep).manifest(options.model)
    plain = as_plain(manifest)
    if not options.tensors:
        for each in plain["files"]:
            each["tensors"] = len(each["tensors"])
    if options.json:
        print_json({"digest": digest, "manifest": plain})
        return 0
    print(safe_text(f"{manifest.name}:{manifest.version}  {manifest.kind}  {digest}"))
    for line in manifest_lines(manifest, with_tensors=options.tensors):
        print(safe_text(line))
    return 0


def policy(options: argparse.Namespace) -> int:
    """Show a version's policy, or make a version of the same bytes under another one."""
    from modelkeep.sdk.versions import Versions  # noqa: PLC0415

    with opened(options) as keep:
        if options.set is None:
            manifest, _ = Versions(keep).manifest(options.model)
            is_new = False
        else:
            given = ANYTHING if options.set == NO_POLICY else options.set
            manifest, _, is_new = Versions(keep).set_policy(options.model, given)
    if options.json:
        print_json(
            {
                "name": manifest.name,
                "version": manifest.version,
                "is_new": is_new,
                "policy": as_plain(manifest.policy),
            }
        )
        return 0
    name = f"{manifest.name}:{manifest.version}"
    print(safe_text(f"{name} has the same bytes as {manifest.base}" if is_new else name))
    for line in policy_lines(manifest.policy):
        print(safe_text(line))
    return 0


def manifest_lines(manifest: Manifest, *, with_tensors: bool = False) -> list[str]:
    """What is signed with a version, for people."""
    lines = [f"  admitted     {rfc3339(manifest.admitted_ns)[:19]}Z"]
    told = {
        "base": manifest.base,
        "note": manifest.note,
        "domain": manifest.domain,
        "marks": ", ".join(manifest.marks),
    }
    lines += [f"  {key:<12} {text}" for key, text in told.items() if text]
    lines += policy_lines(manifest.policy)
    card = as_plain(manifest.card)
    lines += [f"  card         {key}: {_text(value)}" for key, value in card.items() if value]
    for each in manifest.files:
        lines.append(
            f"  file         {each.path}: {size_text(each.size_bytes)}, "
            f"{len(each.tensors)} tensors, {each.digest}"
        )
        if with_tensors:
            lines += [
                f"  tensor       {one.name}: {one.dtype}[{','.join(map(str, one.shape))}]"
                for one in each.tensors
            ]
    return lines


def policy_lines(policy: Policy) -> list[str]:
    """A policy for people; only what it narrows."""
    if policy == ANYTHING:
        return ["  policy       permits everything"]
    told = {
        "uses": ", ".join(policy.uses),
        "loaders": ", ".join(policy.loaders),
        "hosts": ", ".join(policy.hosts),
        "ends": f"{rfc3339(policy.not_after_ns)[:19]}Z" if policy.not_after_ns else "",
        "replicas": str(policy.replicas_max or ""),
        "output": "" if policy.output == ANYTHING.output else str(policy.output),
        "decimals": str(policy.decimals) if policy.output == "rounded" else "",
    }
    return [f"  policy       {key}: {text}" for key, text in told.items() if text]


def _text(value: object) -> str:
    if isinstance(value, dict):
        return " ".join(_text(each) for each in value.values() if each)
    return ", ".join(map(_text, value)) if isinstance(value, list | tuple) else str(value)
