"""Verbs about watermarks: evidence when a model is stolen."""

from __future__ import annotations

import argparse
from pathlib import Path

from modelkeep.cli.grammar.verb import Verb, nothing


def _new(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("mark", metavar="MARK", help="the id that it gets, once and for ever")
    parser.add_argument(
        "--method",
        required=True,
        choices=("weights", "triggers"),
        help="weights: in the model's numbers; triggers: in what a classifier answers",
    )
    parser.add_argument("--for", dest="model", default="", metavar="NAME", help="for which model")
    parser.add_argument(
        "--model", dest="file", type=Path, metavar="PATH", help="weights: the model to be marked"
    )
    parser.add_argument(
        "--bits", type=int, default=0, metavar="N", help="weights: default 64 to 256, by its size"
    )
    parser.add_argument(
        "--margin", type=float, default=0.0, metavar="X", help="weights: strength; default 1.0"
    )
    parser.add_argument(
        "--examples", type=Path, metavar="FILE", help="triggers: examples of yours, a .npy file"
    )
    parser.add_argument("--classes", type=int, default=0, metavar="N", help="triggers: how many")
    parser.add_argument(
        "--count", type=int, default=100, metavar="N", help="triggers: how many; default 100"
    )
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="triggers: where they go, a .npz file"
    )


def _embed(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", type=Path, metavar="PATH", help="the model: a file or a folder")
    parser.add_argument("--mark", required=True, metavar="MARK", help="a registered weight mark")
    parser.add_argument(
        "--output", type=Path, required=True, metavar="PATH", help="the marked model, in plaintext"
    )
    parser.add_argument("--force", action="store_true", help="replace a file that exists")


def _triggers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("mark", metavar="MARK", help="a registered trigger set")
    parser.add_argument(
        "--examples",
        type=Path,
        required=True,
        metavar="FILE",
        help="exactly the examples that it was registered with",
    )
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="a .npz file")


def _verify(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("mark", metavar="MARK")
    _suspect(parser)
    parser.add_argument(
        "--claim",
        type=Path,
        metavar="FILE",
        help="write a claim that others can check; it shows the mark's secret seed",
    )
    parser.add_argument(
        "--checkpoint",
        type=Path,
        metavar="FILE",
        help="prove the claim against this checkpoint, which others have had for longer",
    )


def _check_claim(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("claim", type=Path, metavar="CLAIM", help="what `verify --claim` wrote")
    _suspect(parser)
    parser.add_argument(
        "--key",
        action="append",
        required=True,
        metavar="VKEY",
        help="verifier key of the claimant's log; may be repeated",
    )
    parser.add_argument(
        "--witness",
        action="append",
        default=[],
        metavar="VKEY",
        help="verifier key of a witness whose word on the time counts; may be repeated",
    )
    parser.add_argument(
        "--before",
        default="",
        metavar="TIME",
        help="when the suspect appeared: the registration must be older; by a witness's word "
        "where --witness is given",
    )


def _suspect(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "suspect",
        type=Path,
        metavar="SUSPECT",
        help="weights: a model's file or folder; triggers: answers (.npy) or an ONNX model",
    )
    parser.add_argument(
        "--triggers", type=Path, metavar="FILE", help="the trigger set, to ask an ONNX model"
    )


VERBS: tuple[Verb, ...] = (
    Verb(
        "watermark new",
        "Register a watermark in the ledger: do it before anybody else sees the model.",
        "watermark:new",
        (
            "modelkeep watermark new fraud-w1 --method weights --model fraud.onnx --for fraud",
            (
                "modelkeep watermark new fraud-t1 --method triggers --examples x.npy --classes 10 "
                "--output triggers.npz"
            ),
        ),
        _new,
    ),
    Verb(
        "watermark embed",
        "Write a model with a weight mark in it; `admit` and release the marked one.",
        "watermark:embed",
        ("modelkeep watermark embed fraud.onnx --mark fraud-w1 --output marked.onnx",),
        _embed,
    ),
    Verb(
        "watermark triggers",
        "Write a registered trigger set again: inputs, and the labels to train them with.",
        "watermark:triggers",
        ("modelkeep watermark triggers fraud-t1 --examples x.npy --output triggers.npz",),
        _triggers,
    ),
    Verb(
        "watermark list",
        "Show every registered mark.",
        "watermark:listed",
        ("modelkeep watermark list",),
        nothing,
    ),
    Verb(
        "watermark verify",
        "Read a mark in a suspect: its p-value and what it assumes; exit 3 if it is not found.",
        "watermark:verify",
        (
            "modelkeep watermark verify fraud-w1 suspect.onnx --claim claim.json",
            "modelkeep watermark verify fraud-t1 answers.npy",
            "modelkeep watermark verify fraud-t1 suspect.onnx --triggers triggers.npz",
        ),
        _verify,
    ),
    Verb(
        "watermark check-claim",
        "Check somebody's claim offline, without a keep: exit 4 if it is forged, 3 if it is weak.",
        "watermark:check_claim",
        (
            (
                "modelkeep watermark check-claim claim.json suspect.onnx "
                "--key 'modelkeep.invalid/…+1234abcd+AQ…' --before 2026-01-31"
            ),
        ),
        _check_claim,
        needs_keep=False,
    ),
)

GROUPS = {"watermark": "Evidence when a model is stolen: mark, register, verify, claim."}
