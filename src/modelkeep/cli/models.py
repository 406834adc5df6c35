"""Verbs about models: admit, models, restore."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from modelkeep.cli.manifests import policy_lines
from modelkeep.cli.opened import opened
from modelkeep.cli.output import print_json, print_table, progress, safe_text
from modelkeep.cli.show import NO_POLICY
from modelkeep.core.instant import rfc3339
from modelkeep.core.policy import ANYTHING
from modelkeep.core.record import as_plain
from modelkeep.core.sizes import size_text

if TYPE_CHECKING:
    from modelkeep.core.artifact import Port
    from modelkeep.core.entry import Fact


def admit(options: argparse.Namespace) -> int:
    """Let a model in."""
    from modelkeep.sdk.contents import size_of  # noqa: PLC0415 - `--help` need not load it
    from modelkeep.sdk.proofs import Papers  # noqa: PLC0415 - as above

    bar = progress(f"admit {options.name}", size_of(options.path))
    with opened(options) as keep, bar as advance:
        done = keep.admit(
            options.path,
            name=options.name,
            domain=options.domain,
            canary=options.canary,
            base=options.base,
            note=options.note,
            policy=ANYTHING if options.policy == NO_POLICY else options.policy,
            card=options.card,
            marks=options.watermark,
            papers=Papers(
                signature=options.signature,
                signed_by=tuple(options.signed_by),
                expect=tuple(options.expect),
                boms=tuple(options.bom),
                schema=options.schema,
            ),
            progress=advance,
        )
    if options.json:
        print_json(done_facts(done))
        return 0
    if done.is_new:
        print(f"admitted {done.name}:{done.version}  {done.digest}")
    else:
        print(f"{done.name}:{done.version} holds exactly this already  {done.digest}")
    if done.approval:
        print(f"  held by the scan, let in by the approval {done.approval}")
    for line in _proven_lines(done.proven):
        print(safe_text(line))
    if done.schema is not None:
        print(f"  takes   {_ports(done.schema.inputs)}")
        print(f"  gives   {_ports(done.schema.outputs)}")
    if done.policy != ANYTHING:
        for line in policy_lines(done.policy):
            print(safe_text(line))
    if done.marks:
        print(safe_text(f"  marks   {', '.join(done.marks)}"))
        print("          one in weights is embedded, so that what is kept is not the file given;")
        print("          others are named, and were not looked for")
    return 0


def done_facts(done: object) -> dict[str, object]:
    """What an admission came to, as JSON-ready facts."""
    names = (
        *("name", "version", "digest", "is_new", "verdict", "schema"),
        *("policy", "marks", "approval", "proven"),
    )
    return {name: as_plain(getattr(done, name)) for name in names}


def models(options: argparse.Namespace) -> int:
    """List the models."""
    with opened(options) as keep:
        found = keep.models()
    if options.json:
        print_json(found)
        return 0
    print_table(
        ("model", "aliases", "status", "kind", "size", "tensors", "admitted", "manifest"),
        [
            (
                f"{each.name}:{each.version}",
                ", ".join(each.aliases),
                each.status + ", held" * each.is_held,
                each.kind,
                size_text(each.size_bytes),
                each.tensors,
                rfc3339(each.admitted_ns)[:19],
                each.digest[:19] + "…",
            )
            for each in found
        ],
    )
    return 0


def restore(options: argparse.Namespace) -> int:
    """Write a version's plaintext to a file or a folder."""
    with opened(options) as keep, progress(f"restore {options.model}") as advance:
        size_bytes = keep.restore(
            options.model,
            options.to,
            path=options.path,
            tensor=options.tensor,
            force=options.force,
            progress=advance,
        )
    if options.json:
        print_json({"model": options.model, "file": str(options.to), "size_bytes": size_bytes})
    else:
        part = f" {options.path}" * bool(options.path) + f" {options.tensor}" * bool(options.tensor)
        print(
            safe_text(
                f"restored {options.model}{part} to {options.to} ({size_text(size_bytes)}), proven"
            )
        )
    return 0


def _proven_lines(proven: Mapping[str, Fact]) -> list[str]:
    """What was proven of where it is from."""
    lines = []
    if proven.get("signer"):
        lines.append(f"  signed  by {proven['signer']}")
    expected, boms = proven.get("expected"), proven.get("boms")
    if isinstance(expected, tuple) and expected:
        lines.append(f"  proven  {len(expected)} digest(s) as expected")
    if isinstance(boms, tuple) and boms:
        lines.append(f"  told    held against {len(boms)} bill(s) of materials")
    if proven.get("packages"):
        lines.append(
            f"  wants   {proven['packages']} package(s), held against {proven['advisories']}"
        )
    return lines


def _ports(ports: Sequence[Port]) -> str:
    return ", ".join(
        f"{port.name} {port.dtype}[{','.join('?' if n < 0 else str(n) for n in port.shape)}]"
        for port in ports
    )
