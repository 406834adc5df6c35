"""The grammar of the command line: every verb with its arguments, examples and exit codes."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from modelkeep.core.errors import UsageError

EXIT_CODES = """exit codes:
  0 done   2 wrong usage or configuration   3 refused by a policy   4 bytes are not what they claim
  5 the named thing does not exist   6 the world failed, trying again may help
  70 a bug in modelkeep   130 interrupted"""

Adder = Callable[[argparse.ArgumentParser], None]


@dataclass(frozen=True, slots=True)
class Verb:
    """One verb.

    Attributes:
        name: as typed; two words for a verb below a noun (`tokens new`).
        run: `module:function` below `modelkeep.cli`, imported only when the verb is used.
        needs_keep: whether it works on a keep, which must then be unlocked.
    """

    name: str
    purpose: str
    run: str
    examples: tuple[str, ...]
    add: Adder
    needs_keep: bool = True


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


def _nothing(_: argparse.ArgumentParser) -> None:
    return


def _init(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="where the keep is made; created if missing")
    parser.add_argument(
        "--store",
        action="append",
        default=[],
        metavar="LABEL=PATH",
        help="a further store that backups go to; may be repeated",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address that the service listens on")
    parser.add_argument("--port", type=int, default=8443, help="its TCP port; 0 takes a free one")


def _scan(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", type=Path, nargs="+", metavar="PATH", help="file or folder")


def _admit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, help="the model's file")
    parser.add_argument("--name", required=True, help="name it is registered under")
    parser.add_argument(
        "--canary",
        type=Path,
        metavar="FILE",
        help='JSON {"inputs": […], "outputs": […]}: a V2 call whose right answer is known; '
        "recovery proves itself with it",
    )
    parser.add_argument("--base", default="", metavar="NAME:VERSION", help="what it was made from")
    parser.add_argument("--note", default="", help="a sentence for people")


def _reference(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="NAME, NAME:VERSION or NAME:ALIAS")


def _alias(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("alias", metavar="NAME:ALIAS", help="such as fraud:prod")
    parser.add_argument("version", help="the version, or another alias")


def _restore(parser: argparse.ArgumentParser) -> None:
    _reference(parser)
    parser.add_argument(
        "--to", type=Path, required=True, metavar="FILE", help="plaintext goes here"
    )
    parser.add_argument("--force", action="store_true", help="replace FILE if it exists")


def _token_new(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("principal", help="who will hold the key")
    parser.add_argument(
        "--scope",
        action="append",
        default=[],
        help="infer:MODEL, infer:* or metrics; may be repeated; default infer:*",
    )
    parser.add_argument("--days", type=float, default=0, help="days until it expires; 0 is never")


def _token_revoke(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("token_id", help="as `modelkeep tokens list` shows it")


def _backup(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--new",
        action="append",
        default=[],
        metavar="LABEL",
        help="this store is new and may be empty; otherwise an empty one counts as not mounted",
    )


def _check(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--read-data", action="store_true", help="read, authenticate and hash every byte"
    )
    parser.add_argument("--repair", action="store_true", help="replace damage from another store")


def _recover(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="where the keep is made again")
    parser.add_argument(
        "--from", dest="source", type=Path, required=True, metavar="STORE", help="a store's folder"
    )
    parser.add_argument("--serve", action="store_true", help="go on serving after the proof")
    parser.add_argument("--port", type=int, default=None, help="listen here instead")
    parser.add_argument(
        "--expect",
        type=Path,
        metavar="FILE",
        help="a checkpoint saved elsewhere: recovery fails unless its history holds it",
    )
    parser.add_argument(
        "--disaster-at",
        metavar="TIME",
        help="when it happened (RFC 3339), for the RPO; default: now",
    )


def _log(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--last", type=int, default=20, metavar="N", help="how many; default 20")
    parser.add_argument("--kind", default="", help="only entries whose kind starts with this")


def _ledger_verify(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--store", default="", metavar="STORE", help="only this label or folder; default all"
    )
    parser.add_argument(
        "--expect", type=Path, metavar="FILE", help="a checkpoint that must be in the history"
    )
    parser.add_argument("--repair", action="store_true", help="replace damage from another store")


def _prove(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("receipt", help="the modelkeep-receipt header of an answer")


def _demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--serve", action="store_true", help="leave the gateway up; prints URL, key and a curl line"
    )
    parser.add_argument(
        "--folder", type=Path, default=None, help="where it happens; default: a fresh folder"
    )
    parser.add_argument(
        "--report", type=Path, default=None, metavar="FILE", help="where the HTML report goes"
    )


def _completion(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=("bash", "zsh", "tcsh"))


VERBS: tuple[Verb, ...] = (
    Verb(
        "demo",
        "Tell the whole story on real data: admit, serve, attack, back up, lose all, recover.",
        "demo:run",
        ("modelkeep demo", "modelkeep demo --serve"),
        _demo,
        needs_keep=False,
    ),
    Verb(
        "init",
        "Make a keep: modelkeep.toml, a root key behind a passphrase, a ledger, its stores.",
        "lifecycle:init",
        (
            "modelkeep init ./keep --store offsite=/mnt/offsite/keep",
            "modelkeep init ./keep --passphrase-file /run/secrets/keep",
        ),
        _init,
        needs_keep=False,
    ),
    Verb(
        "scan",
        "Look for what is dangerous or broken in model files; nothing in them is executed.",
        "models:scan",
        ("modelkeep scan fraud.onnx", "modelkeep scan ./downloads --json"),
        _scan,
        needs_keep=False,
    ),
    Verb(
        "admit",
        "Let a model in: scan, sign, seal, store, register as the next version.",
        "models:admit",
        (
            "modelkeep admit fraud.onnx --name fraud",
            "modelkeep admit v2.onnx --name fraud --base fraud:1",
        ),
        _admit,
    ),
    Verb(
        "models",
        "List the models in the keep with their versions and aliases.",
        "models:models",
        ("modelkeep models", "modelkeep models --json"),
        _nothing,
    ),
    Verb(
        "alias",
        "Point an alias at a version; calls that name no version go to the alias `prod`.",
        "models:alias",
        ("modelkeep alias fraud:prod 2",),
        _alias,
    ),
    Verb(
        "restore",
        "Write a model's plaintext to a file that you name, bit for bit as it was admitted.",
        "models:restore",
        ("modelkeep restore fraud:1 --to fraud.onnx",),
        _restore,
    ),
    Verb(
        "tokens new",
        "Make an API key; it is shown once and kept only as a hash.",
        "access:token_new",
        ("modelkeep tokens new alice", "modelkeep tokens new prometheus --scope metrics --days 90"),
        _token_new,
    ),
    Verb(
        "tokens list",
        "List API keys: ids, holders, scopes; never the keys.",
        "access:token_list",
        ("modelkeep tokens list",),
        _nothing,
    ),
    Verb(
        "tokens revoke",
        "Revoke an API key; a running gateway refuses it within a second.",
        "access:token_revoke",
        ("modelkeep tokens revoke 0123456789abcdef",),
        _token_revoke,
    ),
    Verb(
        "serve",
        "Serve the keep's models over TLS until Ctrl-C: gateway, isolated replicas, recorder.",
        "service:serve",
        ("modelkeep serve", "modelkeep --keep ./keep serve --passphrase-file /run/secrets/keep"),
        _nothing,
    ),
    Verb(
        "status",
        "Say what runs, what the keep holds and how its stores are doing.",
        "service:status",
        ("modelkeep status", "modelkeep status --json"),
        _nothing,
    ),
    Verb(
        "backup",
        "Bring every other store up to the first one, and check that it holds all it needs.",
        "stores:backup",
        ("modelkeep backup", "modelkeep backup --new offsite2"),
        _backup,
    ),
    Verb(
        "check",
        "Check that every store holds what it must, ledger included; repair if asked.",
        "stores:check",
        ("modelkeep check", "modelkeep check --read-data --repair"),
        _check,
    ),
    Verb(
        "recover",
        "Bring a keep back from one surviving store; RTO and RPO are measured and recorded.",
        "service:recover",
        (
            "modelkeep recover ./keep --from /mnt/offsite/keep",
            "modelkeep recover ./keep --from /mnt/offsite/keep --serve",
        ),
        _recover,
        needs_keep=False,
    ),
    Verb(
        "drill",
        "Rehearse a recovery from the last backup in a folder that is thrown away afterwards.",
        "service:drill",
        ("modelkeep drill",),
        _nothing,
    ),
    Verb(
        "ledger verify",
        "Prove that the log is whole in every store: every leaf, tile, root and signature.",
        "record:verify",
        ("modelkeep ledger verify --repair", "modelkeep ledger verify --expect checkpoint.txt"),
        _ledger_verify,
    ),
    Verb(
        "ledger tail",
        "Show the last entries of the ledger.",
        "record:tail",
        ("modelkeep ledger tail", "modelkeep ledger tail --kind model. --last 5 --json"),
        _log,
    ),
    Verb(
        "ledger checkpoint",
        "Print the latest signed checkpoint; save it elsewhere to prove freshness later.",
        "record:checkpoint",
        ("modelkeep ledger checkpoint > /safe/place/checkpoint.txt",),
        _nothing,
    ),
    Verb(
        "ledger prove",
        "Prove that one call was recorded: its record, and both paths to a signed checkpoint.",
        "record:prove",
        ("modelkeep ledger prove gateway-0-0:17",),
        _prove,
    ),
    Verb(
        "state rebuild",
        "Make the State database anew from the ledger.",
        "stores:rebuild",
        ("modelkeep state rebuild",),
        _nothing,
    ),
    Verb(
        "config explain",
        "Explain every key of modelkeep.toml, with its type and default.",
        "lifecycle:explain",
        ("modelkeep config explain",),
        _nothing,
        needs_keep=False,
    ),
    Verb(
        "completion",
        "Print a completion script for a shell.",
        "lifecycle:completion",
        ("modelkeep completion bash > /etc/bash_completion.d/modelkeep",),
        _completion,
        needs_keep=False,
    ),
)

GROUPS = {
    "tokens": "API keys: new, list, revoke.",
    "ledger": "The tamper-evident log: verify, tail, checkpoint, prove.",
    "state": "What is true now: rebuild.",
    "config": "modelkeep.toml: explain.",
}


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
        sub.set_defaults(chosen=verb)
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
        "--json",
        action="store_true",
        default=False if is_top else argparse.SUPPRESS,
        help="print JSON; errors too, as the last line on stderr",
    )


def _epilog(verb: Verb) -> str:
    examples = "\n".join(f"  {line}" for line in verb.examples)
    return f"examples:\n{examples}\n\n{EXIT_CODES}"
