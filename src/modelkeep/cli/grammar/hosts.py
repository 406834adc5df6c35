"""Verbs about other machines on which replicas run: host, certificates host."""

from __future__ import annotations

import argparse
from pathlib import Path

from modelkeep.cli.grammar.verb import Verb, named_path


def _host(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--listen",
        required=True,
        metavar="HOST:PORT",
        help="where the service connects: an address of this machine; port 0 takes a free one",
    )
    parser.add_argument(
        "--certificate",
        type=Path,
        required=True,
        metavar="FILE",
        help="what `modelkeep certificates host` made where the keep is",
    )


def _host_certificate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("host", help="the machine's name: [[hosts]] name in modelkeep.toml")
    parser.add_argument(
        "--out",
        type=named_path,
        required=True,
        metavar="FILE",
        help="where it goes with its private key, mode 0600; a new file, for that machine only",
    )
    parser.add_argument("--days", type=int, default=90, help="until it expires; 825 at most")


VERBS: tuple[Verb, ...] = (
    Verb(
        "host",
        "Run replicas here for a service on another machine, until Ctrl-C; needs no keep.",
        "hosts:host",
        (
            "modelkeep host --listen 10.0.0.7:9443 --certificate spare-1.pem",
            "modelkeep host --listen '[::]:9443' --certificate /etc/modelkeep/spare-1.pem",
        ),
        _host,
        needs_keep=False,
    ),
    Verb(
        "certificates host",
        "Make the certificate of a machine that is to run replicas for this keep's service.",
        "hosts:host_certificate",
        (
            "modelkeep certificates host spare-1 --out spare-1.pem",
            "modelkeep certificates host spare-1 --out spare-1.pem --days 365",
        ),
        _host_certificate,
    ),
)
