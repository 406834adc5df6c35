"""Verbs that show what is signed with a version, and give its bytes another policy."""

from __future__ import annotations

import argparse
from pathlib import Path

from modelkeep.cli.manifests import manifest_facts, manifest_lines, policy_lines, print_tensors
from modelkeep.cli.opened import opened
from modelkeep.cli.output import print_json, safe_text
from modelkeep.core.policy import ANYTHING
from modelkeep.core.record import as_plain

NO_POLICY = Path("none")


def show(options: argparse.Namespace) -> int:
    """Show a version's manifest: policy, card, marks, files."""
    from modelkeep.sdk.versions import Versions  # noqa: PLC0415 - `--help` need not load it

    with opened(options) as keep:
        manifest, digest = Versions(keep).manifest(options.model)
    if options.json:
        plain = manifest_facts(manifest, with_tensors=options.tensors)
        print_json({"digest": digest, "manifest": plain})
        return 0
    for line in manifest_lines(manifest, digest):
        print(safe_text(line))
    if options.tensors:
        print_tensors(manifest.files)
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
