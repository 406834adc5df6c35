"""Verbs about other machines on which replicas run: host, certificates host."""

from __future__ import annotations

import argparse
import os
import sys
from typing import NoReturn

from modelkeep.cli.opened import opened
from modelkeep.cli.output import said
from modelkeep.core.instant import rfc3339


def host(options: argparse.Namespace) -> NoReturn:
    """Run replicas for a service elsewhere; this process is replaced."""
    command = [sys.executable, "-I", "-m", "modelkeep.workers.replica_host"]
    command += ["--listen", options.listen, "--certificate", str(options.certificate.absolute())]
    os.execv(sys.executable, command + (["--json"] if options.json else []))  # noqa: S606


def host_certificate(options: argparse.Namespace) -> int:
    """Make a host's certificate."""
    with opened(options) as keep:
        made = keep.access.host_certificate(options.host, out=options.out, days=options.days)
    facts = {
        "host": options.host,
        "fingerprint": made.fingerprint,
        "expires_ns": made.expires_ns,
    }
    until = rfc3339(made.expires_ns)[:19]
    text = f"{options.out} is for {options.host} alone, until {until}: bring it there unseen"
    return said(facts, text, as_json=options.json)
