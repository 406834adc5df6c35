"""What a verb of the command line is made of."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

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


def named_path(text: str) -> Path:
    """A path that is written to; stdout, which others mean by `-`, is none.

    Raises:
        argparse.ArgumentTypeError: for `-`.
    """
    if text == "-":
        raise argparse.ArgumentTypeError("it is not written to stdout: name a path (./- for `-`)")
    return Path(text)


def nothing(_: argparse.ArgumentParser) -> None:
    """Add no argument."""
