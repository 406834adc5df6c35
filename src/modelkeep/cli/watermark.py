"""Verbs about watermarks: new, embed, triggers, list, verify, check-claim."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from modelkeep.cli.opened import opened
from modelkeep.cli.output import print_json, print_table, progress, said
from modelkeep.core.errors import MissingError, RefusedError, UsageError
from modelkeep.core.instant import rfc3339
from modelkeep.core.record import as_plain

if TYPE_CHECKING:
    from modelkeep.flows.watermark import CheckedClaim, Registered
    from modelkeep.seal.marks import Judgement


def new(options: argparse.Namespace) -> int:
    """Register a mark."""
    from modelkeep.sdk.watermarks import Watermarks  # noqa: PLC0415 - `--help` need not load it

    _demand_words(options)
    with opened(options) as keep:
        marks = Watermarks(keep)
        if options.method == "weights":
            found = marks.new_weights(
                options.mark,
                options.file,
                bits=options.bits,
                margin=options.margin,
                model=options.model,
            )
            more = f"`modelkeep watermark embed … --mark {found.mark}` writes the marked model"
        else:
            found = marks.new_triggers(
                options.mark,
                options.examples,
                options.output,
                classes=options.classes,
                count=options.count,
                model=options.model,
            )
            more = f"train with {options.output} mixed in, and keep it to yourself"
    return said(
        _registered_facts(found),
        f"registered {found.mark} ({found.registration.method}) as entry {found.index}\n"
        f"  commitment  {found.registration.commitment}\n"
        f"  next        {more}\n"
        "  then        have the checkpoint witnessed or time-stamped before the model is seen",
        as_json=options.json,
    )


def embed(options: argparse.Namespace) -> int:
    """Write a model with its mark."""
    from modelkeep.sdk.contents import size_of  # noqa: PLC0415 - as above
    from modelkeep.sdk.watermarks import Watermarks  # noqa: PLC0415

    bar = progress(f"mark {options.path.name}", size_of(options.path))
    with opened(options) as keep, bar as advance:
        done = Watermarks(keep).embed(
            options.mark, options.path, options.output, force=options.force, progress=advance
        )
    return said(
        as_plain(done),
        f"{options.output} carries {done.mark}  {done.digest}\n"
        f"  changed {done.changed} of {done.weights} weights by {done.relative_change:.2%} in all, "
        f"by {done.largest_change:.2f} mean weights at most",
        as_json=options.json,
    )


def triggers(options: argparse.Namespace) -> int:
    """Write a trigger set again."""
    from modelkeep.sdk.watermarks import Watermarks  # noqa: PLC0415 - as above

    with opened(options) as keep:
        found = Watermarks(keep).triggers(options.mark, options.examples, options.output)
    count = len(found.labels)
    return said(
        {"mark": options.mark, "file": str(options.output), "count": count},
        f"{count} triggers of {options.mark} are in {options.output}",
        as_json=options.json,
    )


def listed(options: argparse.Namespace) -> int:
    """List the marks."""
    from modelkeep.sdk.watermarks import Watermarks  # noqa: PLC0415 - as above

    with opened(options) as keep:
        found = Watermarks(keep).list()
    if options.json:
        print_json([_registered_facts(each) for each in found])
        return 0
    print_table(
        ("mark", "method", "model", "registered", "entry", "commitment"),
        [
            (
                each.mark,
                each.registration.method,
                each.registration.model,
                rfc3339(each.at_ns)[:19],
                each.index,
                each.registration.commitment[:16] + "…",
            )
            for each in found
        ],
    )
    return 0


def verify(options: argparse.Namespace) -> int:
    """Read a mark in a suspect."""
    from modelkeep.sdk.watermarks import Watermarks, read_claim  # noqa: PLC0415 - as above

    checkpoint = read_claim(options.checkpoint) if options.checkpoint is not None else None
    with opened(options) as keep:
        found = Watermarks(keep).verify(
            options.mark,
            options.suspect,
            triggers=options.triggers,
            claim=options.claim,
            checkpoint=checkpoint,
        )
    lines = _judgement_lines(found)
    if options.claim is not None:
        lines.append(f"  claim       {options.claim}; it shows the seed: give it to who must judge")
    said(as_plain(found), "\n".join(lines), as_json=options.json)
    return 0 if found.is_found else RefusedError.exit_status


def check_claim(options: argparse.Namespace) -> int:
    """Check a claim with nothing but keys."""
    from modelkeep.ledger.find import instant_ns  # noqa: PLC0415 - as above
    from modelkeep.sdk.watermarks import checked, read_claim  # noqa: PLC0415

    found = checked(
        read_claim(options.claim),
        options.suspect,
        keys=options.key,
        witnesses=options.witness,
        before_ns=instant_ns(options.before) if options.before else 0,
        triggers=options.triggers,
    )
    said(_claim_facts(found), "\n".join(_claim_lines(found)), as_json=options.json)
    return 0 if found.judgement.is_found else RefusedError.exit_status


def _demand_words(options: argparse.Namespace) -> None:
    """Each method takes its own options.

    Raises:
        UsageError: `mark.options`.
        MissingError: `file.missing`.
    """
    if options.method == "weights":
        needed = {"--model": options.file}
    else:
        needed = {
            "--examples": options.examples,
            "--classes": options.classes,
            "--output": options.output,
        }
    missing = [name for name, value in needed.items() if not value]
    if missing:
        raise UsageError(
            "mark.options", f"a mark of the method {options.method} needs {', '.join(missing)}"
        )
    path = options.file or options.examples
    if not Path(path).exists():
        raise MissingError("file.missing", f"there is no file {path}")


def _registered_facts(found: Registered) -> dict[str, object]:
    return {
        **as_plain(found.registration),
        "index": found.index,
        "at": rfc3339(found.at_ns),
    }


def _judgement_lines(found: Judgement) -> list[str]:
    word = "found" if found.is_found else "not found"
    return [
        (
            f"{word}: p = {found.p_value:.2g}, {found.hits} of {found.trials} hits where "
            f"{found.trials * found.chance:.4g} are expected by chance"
        ),
        f"  mark        {found.mark}, by {found.method}",
        f"  corrected   {found.corrected_p:.2g}, for {found.tests} that might have been tried",
        f"  forging     a reading like this takes about 2^{found.tries_log2:.0f} keys to be tried",
        *(f"  assumes     {each}" for each in found.assumptions),
    ]


def _claim_lines(found: CheckedClaim) -> list[str]:
    from modelkeep.seal.marks import TRIES_LOG2_MIN  # noqa: PLC0415 - as above

    witnessed = rfc3339(found.witnessed_ns) if found.witnessed_ns else "by no witness named here"
    lines = ["the claim holds: its proof, its commitment and its reading are as it says"]
    lines += _judgement_lines(found.judgement)
    lines += [
        f"  registered  entry {found.index} of {found.origin}",
        f"  on          {rfc3339(found.registered_ns)}, by that log's own clock",
        f"  witnessed   {witnessed}",
    ]
    if not found.is_model:
        lines.append(
            "  beware      whoever has the seed can write such answers, or pick such texts, and "
            "try no key for it: have them from the suspect yourself"
        )
    if found.judgement.tries_log2 < TRIES_LOG2_MIN:
        lines.append(
            "  beware      somebody who wanted to could have tried keys until one read like this: "
            "ask for a witnessed registration that is older than the suspect"
        )
    return lines


def _claim_facts(found: CheckedClaim) -> dict[str, object]:
    return {
        **as_plain(found.judgement),
        "origin": found.origin,
        "entry": found.index,
        "registered": rfc3339(found.registered_ns),
        "witnessed": rfc3339(found.witnessed_ns) if found.witnessed_ns else "",
        "is_model": found.is_model,
        "is_beyond_trial": found.is_beyond_trial,
    }
