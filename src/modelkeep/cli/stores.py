"""Verbs about stores: backup, state rebuild."""

from __future__ import annotations

import argparse

from modelkeep.cli.opened import actor, keep_path, opened
from modelkeep.cli.output import print_json, progress
from modelkeep.cli.secrets import means_of
from modelkeep.core.errors import IntegrityError, UnavailableError
from modelkeep.core.sizes import size_text


def backup(options: argparse.Namespace) -> int:
    """Bring every other store up to the first one."""
    with opened(options) as keep, progress("backup") as advance:
        reports = keep.backup(fresh=options.new, progress=advance)
    if options.json:
        print_json([{**_facts(report), "is_whole": report.is_whole} for report in reports])
    elif not reports:
        print("there is only one store: nothing would survive its loss")
    for report in reports:
        if not options.json:
            state = "whole" if report.is_whole else "NOT WHOLE"
            print(
                f"{report.store}: {state}, head {report.head}; copied {report.objects} objects, "
                f"{size_text(report.size_bytes)} in {report.seconds:.2f} s"
                + (f"; {report.error}" if report.error else "")
            )
    if any(report.error for report in reports):
        return UnavailableError.exit_status
    return 0 if all(report.is_whole for report in reports) else IntegrityError.exit_status


def rebuild(options: argparse.Namespace) -> int:
    """Make State anew: set the database aside and replay the ledger."""
    from modelkeep.sdk.keep import Keep  # noqa: PLC0415 - `--help` need not load it
    from modelkeep.wiring import KeepFolder, read_config  # noqa: PLC0415

    path = keep_path(options)
    config, _ = read_config(KeepFolder(path))  # that there is no keep is said before asking
    means = means_of(options, source=config.keys.source)
    with Keep.rebuild_state(path, means=means, actor=actor()) as keep:
        applied = keep.opened.state.applied()
        tokens = len(keep.access.tokens())
    if options.json:
        print_json({"entries": applied.entries, "head": applied.head, "tokens": tokens})
    else:
        print(
            f"State rebuilt from {applied.entries} ledger entries: head {applied.head}, "
            f"{tokens} tokens"
        )
    return 0


def _facts(report: object) -> dict[str, object]:
    names = (
        "store",
        "head",
        "objects",
        "size_bytes",
        "replaced",
        "seconds",
        "damaged",
        "missing",
        "error",
    )
    return {name: getattr(report, name) for name in names}
