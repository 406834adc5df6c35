"""How a manifest is shown: as facts for programs, and as lines for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from modelkeep.cli.output import print_table
from modelkeep.core.instant import rfc3339
from modelkeep.core.policy import ANYTHING, Output
from modelkeep.core.record import as_plain
from modelkeep.core.sizes import size_text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from modelkeep.core.artifact import FileEntry, Manifest
    from modelkeep.core.policy import Policy
    from modelkeep.flows.restore import FileFacts


def manifest_facts(manifest: Manifest, *, with_tensors: bool) -> dict[str, Any]:
    """All of it, JSON-ready; of tensors only how many, unless they are asked for."""
    plain: dict[str, Any] = as_plain(manifest)
    if not with_tensors:
        for each in plain["files"]:
            each["tensors"] = len(each["tensors"])
    return plain


def manifest_lines(manifest: Manifest, digest: str) -> list[str]:
    """What is signed with a version."""
    told = {
        "model": f"{manifest.name}:{manifest.version} ({manifest.kind})",
        "admitted": _time(manifest.admitted_ns),
        "manifest": digest,
        "base": manifest.base,
        "note": manifest.note,
        "domain": manifest.domain,
        "marks": ", ".join(manifest.marks),
    }
    lines = [f"  {key:<12} {text}" for key, text in told.items() if text]
    lines += policy_lines(manifest.policy)
    card = as_plain(manifest.card)
    lines += [f"  card         {key}: {_text(value)}" for key, value in card.items() if value]
    for each in manifest.files:
        tensors = f", {len(each.tensors)} tensors" if each.tensors else ""
        lines.append(f"  file         {each.path}: {size_text(each.size_bytes)}{tensors}")
    return lines


def policy_lines(policy: Policy) -> list[str]:
    """A policy; only what it narrows."""
    if policy == ANYTHING:
        return ["  policy       permits everything"]
    told = {
        "uses": ", ".join(policy.uses),
        "loaders": ", ".join(policy.loaders),
        "hosts": ", ".join(policy.hosts),
        "not_after": _time(policy.not_after_ns) if policy.not_after_ns else "",
        "replicas_max": str(policy.replicas_max or ""),
        "output": "" if policy.output is Output.FULL else str(policy.output),
        "decimals": str(policy.decimals) if policy.output is Output.ROUNDED else "",
    }
    return [f"  policy       {key}: {text}" for key, text in told.items() if text]


def print_tensors(files: Iterable[FileEntry | FileFacts]) -> None:
    """Every tensor of some files."""
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
            for file in files
            for each in file.tensors
        ],
    )


def _time(instant_ns: int) -> str:
    return rfc3339(instant_ns)[:19] + "Z"


def _text(value: object) -> str:
    """A field on one line."""
    if isinstance(value, dict):
        return " ".join(_text(each) for each in value.values() if each)
    return ", ".join(map(_text, value)) if isinstance(value, list | tuple) else str(value)
