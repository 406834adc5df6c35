"""Verbs about versions: versions, promote, rollback, alias, deprecate, hold, retire, lineage."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from modelkeep.cli.opened import opened, warned
from modelkeep.cli.output import print_json, print_table, safe_text, said
from modelkeep.core.errors import UsageError
from modelkeep.core.instant import rfc3339
from modelkeep.core.record import as_plain

if TYPE_CHECKING:
    from modelkeep.core.card import DataSet
    from modelkeep.flows.lineage import Origin
    from modelkeep.flows.version_list import VersionFacts
    from modelkeep.flows.versions import Move

_DIGEST_CHARS = 19  # of a digest in a table
_GAPS = {
    "removed": "removed from this keep",
    "unknown": "not in this keep",
    "inexact": "named by no number, so nobody knows which version",
    "cycle": "named above already: this lineage is a circle",
}


def versions(options: argparse.Namespace) -> int:
    """List the versions of a model."""
    from modelkeep.sdk.versions import Versions  # noqa: PLC0415 - `--help` need not load it

    with opened(options) as keep:
        found = Versions(keep).of(options.name)
        moves = tuple(Versions(keep).moves(options.name)) if options.history else ()
    if options.json:
        print_json({**as_plain(found), **({"moves": as_plain(moves)} if options.history else {})})
        return 0
    print_table(
        ("version", "admitted", "aliases", "status", "base", "data", "run", "manifest"),
        [
            (
                f"{found.model}:{each.version}",
                _time(each.admitted_ns),
                ", ".join(each.aliases),
                _status(each),
                each.base,
                ", ".join(data.name for data in each.datasets),
                each.run,
                each.digest[:_DIGEST_CHARS] + "…",
            )
            for each in found.versions
        ],
    )
    for row in found.aliases:
        before = ", ".join(map(str, row.previous))
        print(safe_text(f"{row.alias} is {row.version}" + f"; before: {before}" * bool(before)))
    for move in moves:
        note = f" ({move.note})" * bool(move.note)
        act = move.act.replace("_", " ")
        print(
            safe_text(
                f"{_time(move.at_ns)}  {move.actor}  {act}  {move.alias} -> {move.version}{note}"
            )
        )
    return 0


def promote(options: argparse.Namespace) -> int:
    """Move an alias to a version that may be served."""
    from modelkeep.sdk.versions import Versions  # noqa: PLC0415 - `--help` need not load it

    with opened(options) as keep:
        move = Versions(keep).promote(
            options.model, to=options.to, note=options.note, force=options.force
        )
    return _moved(move, as_json=options.json)


def rollback(options: argparse.Namespace) -> int:
    """Move an alias back."""
    from modelkeep.sdk.versions import Versions  # noqa: PLC0415 - `--help` need not load it

    with opened(options) as keep:
        move = Versions(keep).rollback(options.alias, to=options.to, note=options.note)
    for each in move.skipped:
        warned(f"passed over: {each}")
    return _moved(move, as_json=options.json)


def alias(options: argparse.Namespace) -> int:
    """Point an alias at a version."""
    from modelkeep.sdk.versions import Versions  # noqa: PLC0415 - `--help` need not load it

    with opened(options) as keep:
        move = Versions(keep).alias(options.alias, options.version)
    for each in move.warnings:
        warned(each)
    return said(
        {"alias": options.alias, "version": move.version},
        f"{options.alias} is version {move.version}; a running service swaps to it at once",
        as_json=options.json,
    )


def deprecate(options: argparse.Namespace) -> int:
    """Say that a version should not be used any more, or take that back."""
    from modelkeep.sdk.versions import Versions  # noqa: PLC0415 - `--help` need not load it

    if options.undo:
        _demand_alone(options, "until", "replaced_by", "note")
        with opened(options) as keep:
            was = Versions(keep).undeprecate(options.model)
        text = "is not deprecated any more" if was else "was not deprecated"
        facts = {**_named(options.model), "was_deprecated": was}
        return said(facts, f"{options.model} {text}", as_json=options.json)
    with opened(options) as keep:
        row = Versions(keep).deprecate(
            options.model, until=options.until, replaced_by=options.replaced_by, note=options.note
        )
        found = Versions(keep).of(row.model)
    for each in found.aliases:
        if each.version == row.version:
            warned(f"the alias {each.alias} names {row.model}:{row.version}")
    until = f" until {_time(row.until_ns)}" * bool(row.until_ns)
    instead = f"; use {row.replaced_by}" * bool(row.replaced_by)
    text = f"{row.model}:{row.version} is deprecated{until}{instead}"
    return said(as_plain(row), text, as_json=options.json)


def hold(options: argparse.Namespace) -> int:
    """Say that a version must not go, or that it may."""
    from modelkeep.sdk.versions import Versions  # noqa: PLC0415 - `--help` need not load it

    if options.undo:
        _demand_alone(options, "note")
        with opened(options) as keep:
            was = Versions(keep).unhold(options.model)
        facts = {**_named(options.model), "was_held": was}
        text = "is not on hold any more" if was else "was not on hold"
        return said(facts, f"{options.model} {text}", as_json=options.json)
    with opened(options) as keep:
        row = Versions(keep).hold(options.model, note=options.note)
    text = f"{row.model}:{row.version} is on hold: nothing removes it"
    return said(as_plain(row), text, as_json=options.json)


def retire(options: argparse.Namespace) -> int:
    """Take out what is past retention."""
    from modelkeep.sdk.versions import Versions  # noqa: PLC0415 - `--help` need not load it

    with opened(options) as keep:
        done = Versions(keep).retire(*options.names, dry_run=options.dry_run)
    would = "would be " if options.dry_run else ""
    lines = [f"{would}retired: {', '.join(done.versions) or 'nothing'}; {done.kept} kept"]
    lines += [f"  {each.version} stays: {each.reason}" for each in done.spared]
    if done.versions and not options.dry_run:
        lines.append("earlier snapshots hold them until `modelkeep prune` drops them")
    facts = {**as_plain(done), "dry_run": options.dry_run}
    return said(facts, "\n".join(lines), as_json=options.json)


def lineage(options: argparse.Namespace) -> int:
    """Say where a version comes from, and what came of it."""
    from modelkeep.sdk.versions import Versions  # noqa: PLC0415 - `--help` need not load it

    with opened(options) as keep:
        found = Versions(keep).lineage(options.model)
    if options.json:
        print_json(found)
        return 0
    lines = [*_origin(found.version, depth=0)]
    if found.bases:
        lines.append("made from")
    for each in found.bases:
        lines += _origin(each, depth=each.depth)
    if found.descendants:
        lines.append("of which were made")
    for each in found.descendants:
        lines += _origin(each, depth=each.depth)
    print("\n".join(map(safe_text, lines)))
    return 0


def _named(reference: str) -> dict[str, object]:
    """A version as the facts of one name it; the flow refused what does not name one."""
    model, _, version = reference.partition(":")
    return {"model": model, "version": int(version)}


def _moved(move: Move, *, as_json: bool) -> int:
    for each in move.warnings:
        warned(each)
    name = f"{move.model}:{move.alias}"
    before = f", before it was {move.previous}" * bool(move.previous)
    text = (
        f"{name} is version {move.version}{before}; "
        "a running service swaps to it at once\n"
        f"  manifest  {move.digest}"
        if move.is_new
        else f"{name} is version {move.version} already"
    )
    return said(as_plain(move), text, as_json=as_json)


def _demand_alone(options: argparse.Namespace, *others: str) -> None:
    """Refuse to take something back and to say it at once.

    Raises:
        UsageError: `usage.undo`.
    """
    given = [each for each in others if getattr(options, each)]
    if given:
        raise UsageError(
            "usage.undo", f"--undo takes back all of it; --{given[0].replace('_', '-')} says more"
        )


def _status(each: VersionFacts) -> str:
    text = each.status
    if each.deprecation is not None and each.deprecation.until_ns:
        text += f" until {_time(each.deprecation.until_ns)}"
    if each.deprecation is not None and each.deprecation.replaced_by:
        text += f", use {each.deprecation.replaced_by}"
    return text + ", held" * (each.hold is not None)


def _origin(each: Origin, *, depth: int) -> list[str]:
    """One version of a lineage, indented; what its card says below it."""
    margin = "  " * depth
    if each.gap:
        return [f"{margin}{each.reference}  ({_GAPS.get(each.gap, each.gap)})"]
    lines = [f"{margin}{each.reference}  {each.kind}  {_time(each.admitted_ns)}  {each.digest}"]
    lines += [f"{margin}    data  {_data(data)}" for data in each.datasets]
    told = (("run", each.run), ("code", each.code), ("marks", ", ".join(each.marks)))
    lines += [
        f"{margin}    {word:<5} {text}" for word, text in (*told, ("note", each.note)) if text
    ]
    return lines


def _data(data: DataSet) -> str:
    return "  ".join(filter(None, (data.name, data.purpose, data.digest or "no digest", data.url)))


def _time(at_ns: int) -> str:
    return rfc3339(at_ns)[:19] + "Z"
