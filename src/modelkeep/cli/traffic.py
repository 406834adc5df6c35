"""Verbs about who answers a model's calls: traffic set, traffic list, traffic end."""

from __future__ import annotations

import argparse

from modelkeep.cli.opened import opened
from modelkeep.cli.output import print_json, print_table, said
from modelkeep.core.instant import rfc3339
from modelkeep.core.record import as_plain
from modelkeep.core.rows import LOTS, Traffic


def set_traffic(options: argparse.Namespace) -> int:
    """Give a model a canary, a shadow or both."""
    from modelkeep.sdk.traffic import TrafficRules  # noqa: PLC0415 - `--help` need not load it

    with opened(options) as keep:
        row = TrafficRules(keep).set(
            options.name, canary=options.canary, shadow=options.shadow, sticky=options.sticky
        )
    parts = []
    if row.canary:
        parts.append(f"version {row.canary} answers {_share(row.canary_lots)} of the calls")
    if row.shadow:
        parts.append(f"version {row.shadow} is asked {_share(row.shadow_lots)} of them too")
    text = f"{row.model}: {'; '.join(parts)}"
    text += f"\n  `modelkeep traffic end {row.model}` takes it back"
    return said(as_plain(row), text, as_json=options.json)


def list_traffic(options: argparse.Namespace) -> int:
    """List every canary and shadow."""
    from modelkeep.sdk.traffic import TrafficRules  # noqa: PLC0415 - `--help` need not load it

    with opened(options) as keep:
        rows = TrafficRules(keep).all()
    if options.json:
        print_json([as_plain(row) for row in rows])
        return 0
    print_table(
        ("model", "canary", "shadow", "sticky", "since", "by"),
        [
            (
                row.model,
                _said(row.canary, row.canary_lots),
                _said(row.shadow, row.shadow_lots),
                "yes" if row.sticky else "no",
                _time(row),
                row.by,
            )
            for row in rows
        ],
    )
    return 0


def end_traffic(options: argparse.Namespace) -> int:
    """End a model's canary and shadow."""
    from modelkeep.sdk.traffic import TrafficRules  # noqa: PLC0415 - `--help` need not load it

    with opened(options) as keep:
        has_ended = TrafficRules(keep).end(options.name)
    text = "its default version answers all calls" if has_ended else "it had neither"
    facts = {"model": options.name, "ended": has_ended}
    return said(facts, f"{options.name} has no canary and no shadow: {text}", as_json=options.json)


def _said(version: int, lots: int) -> str:
    return f"{version} ({_share(lots)})" if version else ""


def _share(lots: int) -> str:
    return f"{lots * 100 / LOTS:g} %"


def _time(row: Traffic) -> str:
    return rfc3339(row.since_ns)[:16].replace("T", " ")
