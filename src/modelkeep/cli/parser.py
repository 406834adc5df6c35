"""The command line's parser, put together from the grammar of every group of verbs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

from modelkeep.cli.grammar import (
    access,
    attest,
    convert,
    dependencies,
    export,
    files,
    history,
    hosts,
    inbox,
    interop,
    keys,
    ledger,
    lifecycle,
    models,
    mount,
    preflight,
    scan,
    service,
    stores,
    traffic,
    upkeep,
    versions,
    watermark,
)
from modelkeep.cli.grammar.verb import Verb
from modelkeep.core.errors import UsageError

EXIT_CODES = """exit codes:
  0 done   2 wrong usage or configuration   3 refused by a policy   4 bytes are not what they claim
  5 the named thing does not exist   6 the world failed, trying again may help
  70 a bug in modelkeep   130 interrupted"""

# In the order in which `--help` shows them.
_PARTS = (
    lifecycle,
    scan,
    models,
    convert,
    dependencies,
    versions,
    traffic,
    inbox,
    keys,
    access,
    files,
    preflight,
    service,
    hosts,
    stores,
    upkeep,
    history,
    export,
    interop,
    mount,
    attest,
    watermark,
    ledger,
)
VERBS: tuple[Verb, ...] = tuple(verb for part in _PARTS for verb in part.VERBS)
GROUPS = {
    noun: sentence
    for groups in (
        lifecycle.GROUPS,
        traffic.GROUPS,
        inbox.GROUPS,
        access.GROUPS,
        keys.GROUPS,
        files.GROUPS,
        stores.GROUPS,
        interop.GROUPS,
        attest.GROUPS,
        watermark.GROUPS,
        ledger.GROUPS,
    )
    for noun, sentence in groups.items()
}


class WrongUsage(SystemExit):
    """Ends the process as argparse does, unless somebody asks for the error first."""

    def __init__(self, error: UsageError) -> None:
        super().__init__(error.exit_status)
        self.error = error


class Grammar(argparse.ArgumentParser):
    """A parser whose complaints are errors like all others."""

    def error(self, message: str) -> NoReturn:
        """Refuse the command line.

        Raises:
            WrongUsage: always, with the UsageError `usage.arguments`.
        """
        vars(self)["color"] = False  # Python 3.14 paints the usage
        usage = " ".join(self.format_usage().split())
        raise WrongUsage(UsageError("usage.arguments", message, hint=usage))

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        """Parse; what nobody knows is refused with the usage of the verb that got it.

        Raises:
            WrongUsage: for what is no option of the verb.
        """
        options, unknown = self.parse_known_args(args, namespace)
        if unknown:
            getattr(options, "grammar", self).error(f"unrecognized arguments: {' '.join(unknown)}")
        return options

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Of verbs, which are many, name those only that look like what was typed."""
        verbs = action.choices if action.metavar == "VERB" else None
        if verbs is None or value in verbs:
            super()._check_value(action, value)
            return
        near = get_close_matches(value, verbs)
        meant = f"; did you mean {' or '.join(near)}?" if near else ""
        self.error(f"{self.prog} has no verb {value!r}{meant}")


def parser() -> argparse.ArgumentParser:
    """Build the whole grammar; imports next to nothing."""
    top = Grammar(
        prog="modelkeep",
        description="Keep AI models safe, private and recoverable while they are being served.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument(
        "--version", dest="says_version", action="store_true", help="print the version and exit"
    )
    _shared(top, is_top=True)
    verbs = top.add_subparsers(dest="verb", metavar="VERB", title="verbs")
    groups: dict[str, argparse._SubParsersAction[Grammar]] = {}
    for verb in VERBS:
        noun, _, below = verb.name.partition(" ")
        into = verbs
        if below:
            if noun not in groups:
                group = verbs.add_parser(noun, help=GROUPS[noun], description=GROUPS[noun])
                groups[noun] = group.add_subparsers(
                    dest=f"{noun}_verb", metavar="VERB", required=True
                )
            into = groups[noun]
        sub = into.add_parser(
            below or noun,
            help=verb.purpose,
            description=verb.purpose,
            epilog=_epilog(verb),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        verb.add(sub)
        _shared(sub, is_top=False)
        sub.set_defaults(chosen=verb, grammar=sub)
    return top


def _shared(to: argparse.ArgumentParser, *, is_top: bool) -> None:
    """Options that may stand before or after the verb."""
    unset = None if is_top else argparse.SUPPRESS
    group = to.add_argument_group("everywhere")
    group.add_argument(
        "--keep", type=Path, default=unset, metavar="FOLDER", help="the keep; default: this folder"
    )
    group.add_argument(
        "--passphrase-file",
        type=Path,
        default=unset,
        metavar="FILE",
        help="read the passphrase from a file",
    )
    group.add_argument(
        "--passphrase-fd",
        type=int,
        default=unset,
        metavar="N",
        help="read the passphrase from an inherited descriptor",
    )
    group.add_argument(
        "--key-source",
        default="" if is_top else argparse.SUPPRESS,
        metavar="REF",
        help="what holds the root key (passphrase, file:…, exec:…, kms:…, attested:…); default: "
        "as modelkeep.toml says",
    )
    group.add_argument(
        "--json",
        action="store_true",
        default=False if is_top else argparse.SUPPRESS,
        help="print JSON; errors too, as the last line on stderr",
    )


def _epilog(verb: Verb) -> str:
    examples = "\n".join(f"  {line}" for line in verb.examples)
    return f"examples:\n{examples}\n\n{EXIT_CODES}"
