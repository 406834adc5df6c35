"""Verbs about Python packages: dependencies, sbom."""

from __future__ import annotations

import argparse
from pathlib import Path

from modelkeep.cli.grammar.verb import Verb


def _paths(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "paths",
        type=Path,
        nargs="*",
        metavar="PATH",
        help="requirements in pip's format, conda.yaml, python_env.yaml, CycloneDX in JSON, or a "
        "model's folder with such; none: what this interpreter can import",
    )


def _dependencies(parser: argparse.ArgumentParser) -> None:
    _paths(parser)
    parser.add_argument(
        "--advisories",
        type=Path,
        metavar="FILE",
        help="an export of OSV: all.zip of the ecosystem PyPI, a folder, JSON or JSON lines; "
        "default: [advisories] of modelkeep.toml",
    )
    parser.add_argument(
        "--tolerate",
        type=Path,
        metavar="FILE",
        help="TOML with tables [[tolerated]] (id, package, why, until), besides those of "
        "modelkeep.toml",
    )
    parser.add_argument(
        "--age-days-max",
        type=float,
        metavar="N",
        help="past this age of the advisories nothing is called clean; default: 7",
    )
    parser.add_argument("--all", action="store_true", help="show what is clean, too")


def _sbom(parser: argparse.ArgumentParser) -> None:
    _paths(parser)
    parser.add_argument(
        "--output", "-o", type=Path, metavar="FILE", help="the file to write; default: stdout"
    )
    parser.add_argument(
        "--spec", choices=("1.6", "1.7"), default="1.6", help="version of CycloneDX; default: 1.6"
    )
    parser.add_argument("--force", action="store_true", help="replace FILE if it exists")


VERBS: tuple[Verb, ...] = (
    Verb(
        "dependencies",
        "Say of Python packages whether they are vulnerable, clean, or not assessed, by an export "
        "of OSV; offline. What is not assessed is never called clean. Exit status 3 unless all are "
        "clean, or tolerated as they are.",
        "dependencies:dependencies",
        (
            "modelkeep dependencies --advisories all.zip",
            "modelkeep dependencies requirements.lock --advisories all.zip --all",
            "modelkeep dependencies ./model sbom.cdx.json --advisories ./osv --json",
        ),
        _dependencies,
        needs_keep=False,
    ),
    Verb(
        "sbom",
        "List Python packages as a CycloneDX bill: those of the environment that serves, or those "
        "that files name.",
        "dependencies:sbom",
        (
            "modelkeep sbom",
            "modelkeep sbom requirements.lock --output sbom.cdx.json --spec 1.7",
        ),
        _sbom,
        needs_keep=False,
    ),
)
