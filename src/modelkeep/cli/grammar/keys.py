"""Verbs about keys: who holds the root, the domains, and their whole life."""

from __future__ import annotations

import argparse
from pathlib import Path

from modelkeep.cli.grammar.verb import Verb, nothing

DOMAIN_HELP = "as `modelkeep keys list` shows it"


def _new(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("domains", nargs="+", metavar="DOMAIN", help="names; existing ones stay")
    parser.add_argument("--tenant", default="default", help="whose they are")


def _holder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--new-key-source",
        default="",
        metavar="REF",
        help="what shall hold the root (passphrase, file:…, exec:…, kms:…, attested:…); default: "
        "the same",
    )
    parser.add_argument(
        "--new-passphrase-file",
        type=Path,
        default=None,
        metavar="FILE",
        help="read the new passphrase from a file instead of asking",
    )


def _private(parser: argparse.ArgumentParser, *, required: bool) -> None:
    group = parser.add_mutually_exclusive_group(required=required)
    group.add_argument(
        "--words", type=Path, metavar="FILE", help="shares of the root, one on a line; `-`: stdin"
    )
    group.add_argument(
        "--identity", type=Path, metavar="FILE", help="private key of an escrow recipient"
    )


def join(parser: argparse.ArgumentParser) -> None:
    """What opens the root, and what is to hold it from then on."""
    _private(parser, required=True)
    _holder(parser)


def lost(parser: argparse.ArgumentParser) -> None:
    """What opens the root when its key source is lost."""
    _private(parser, required=False)


def _domain(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("domain", help=DOMAIN_HELP)


def _rekey(parser: argparse.ArgumentParser) -> None:
    _domain(parser)
    parser.add_argument(
        "--keep-old",
        action="store_true",
        help="the old key still reads (encrypted columns need it); run again without, to finish",
    )


def _revoke(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("domain", nargs="?", default="", help=DOMAIN_HELP)
    parser.add_argument("--shares", action="store_true", help="a new root; the shares open nothing")
    parser.add_argument(
        "--escrow", default="", metavar="RECIPIENT", help="a new root, not sealed to this one"
    )


def _destroy(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("domain", help=DOMAIN_HELP)
    parser.add_argument("--dry-run", action="store_true", help="only list what would die")
    parser.add_argument("--yes", action="store_true", help="do not ask")


def _split(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--needed", type=int, required=True, metavar="M", help="how many bring it back"
    )
    parser.add_argument("--shares", type=int, required=True, metavar="N", help="how many are made")
    parser.add_argument(
        "--to", type=Path, default=None, metavar="FOLDER", help="a file per share, mode 0600"
    )


def _escrow(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipient", help="public key mkr1…, or a file that holds it")
    parser.add_argument("--note", default="", help="whose it is")


VERBS: tuple[Verb, ...] = (
    Verb(
        "keys list",
        "Show who holds the root, and every domain with its models; never a key.",
        "keys:show",
        ("modelkeep keys list", "modelkeep keys list --json"),
        nothing,
    ),
    Verb(
        "keys new",
        "Make a domain with a key of its own: what is admitted to it can be destroyed alone.",
        "keys:new",
        ("modelkeep keys new acme", "modelkeep keys new acme globex --tenant group"),
        _new,
    ),
    Verb(
        "keys rotate",
        "Give a new root to a new passphrase or key source; every domain key is wrapped anew.",
        "keys:rotate",
        (
            "modelkeep keys rotate --new-passphrase-file /run/secrets/new",
            "modelkeep keys rotate --new-key-source file:/run/secrets/kek",
        ),
        _holder,
    ),
    Verb(
        "keys rekey",
        "Encrypt a whole domain anew under a new key, after a theft of key and data.",
        "keys:rekey",
        ("modelkeep keys rekey acme", "modelkeep keys rekey customers-db --keep-old"),
        _rekey,
    ),
    Verb(
        "keys revoke",
        "Refuse a domain's models within a second, or make a root that shares do not open.",
        "keys:revoke",
        ("modelkeep keys revoke acme", "modelkeep keys revoke --shares"),
        _revoke,
    ),
    Verb(
        "keys restore",
        "Undo the revocation of a domain.",
        "keys:restore",
        ("modelkeep keys restore acme",),
        _domain,
    ),
    Verb(
        "keys destroy",
        "Destroy a domain's key: everything in it is gone, in every store and backup.",
        "keys:destroy",
        ("modelkeep keys destroy acme --dry-run", "modelkeep keys destroy acme --yes"),
        _destroy,
    ),
    Verb(
        "keys split",
        "Make a recovery key in shares (SLIP-39 words): M of N of them open the root.",
        "keys:split",
        ("modelkeep keys split --needed 3 --shares 5",),
        _split,
    ),
    Verb(
        "keys join",
        "Open the root with shares or an escrow key, and give it to a new holder.",
        "keys:join",
        (
            "modelkeep keys join --words shares.txt --new-passphrase-file /run/secrets/new",
            "modelkeep keys join --identity escrow.key --new-key-source file:/run/secrets/kek",
        ),
        join,
    ),
    Verb(
        "keys escrow",
        "Seal the root to somebody's public key, who can then bring the keep back.",
        "keys:escrow",
        ("modelkeep keys escrow auditor.pub --note 'the notary'",),
        _escrow,
    ),
)

GROUPS = {
    "keys": "Keys: list, new, rotate, rekey, revoke, restore, destroy, split, join, escrow.",
}
