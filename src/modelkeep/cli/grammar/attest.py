"""Verbs about proving which host this is: attest new, show, verify."""

from __future__ import annotations

import argparse
from pathlib import Path

from modelkeep.cli.grammar.verb import Verb


def _new(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("key", type=Path, metavar="KEYFILE", help="the file to write, mode 0600")
    parser.add_argument(
        "--algorithm", choices=("ES256", "Ed25519"), default="ES256", help="default: ES256"
    )


def _show(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--attester",
        default="",
        metavar="REF",
        help="software:/path/key or exec:/program; default: as modelkeep.toml says",
    )
    parser.add_argument(
        "--raw", action="store_true", help="the evidence alone, as a verifier takes it"
    )
    parser.add_argument(
        "--nonce",
        default="",
        metavar="HEX",
        help="of who will verify it; default: a fresh one, for looking only",
    )


def _verify(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help="evidence, as `show --raw` prints")
    parser.add_argument(
        "--anchor",
        type=Path,
        action="append",
        required=True,
        metavar="PUB",
        help="a public key (PEM) whose evidence is believed; may be repeated",
    )
    parser.add_argument(
        "--nonce", required=True, metavar="HEX", help="that was given out for this evidence, once"
    )
    parser.add_argument(
        "--measurement",
        action="append",
        default=[],
        metavar="LINE",
        help="name=value …; one such line must hold; may be repeated; default: none is compared",
    )


VERBS: tuple[Verb, ...] = (
    Verb(
        "attest new",
        "Make an attestation key for this host: whoever can read it can claim to be the host.",
        "attest:new",
        ("modelkeep attest new /etc/modelkeep/attest.key > serving-1.pub",),
        _new,
        needs_keep=False,
    ),
    Verb(
        "attest show",
        "Show what this host can prove of itself, and whether this keep believes it.",
        "attest:show",
        (
            "modelkeep attest show",
            "modelkeep attest show --attester software:/etc/modelkeep/attest.key --raw --nonce 0f…",
        ),
        _show,
        needs_keep=False,
    ),
    Verb(
        "attest verify",
        "Verify evidence that a host made over your nonce.",
        "attest:verify",
        ("modelkeep attest verify evidence.jwt --anchor serving-1.pub --nonce 0f…",),
        _verify,
        needs_keep=False,
    ),
)
GROUPS = {
    "attest": "Which host this is, proven: new, show, verify.",
}
