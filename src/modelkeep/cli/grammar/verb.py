"""What a verb of the command line is made of."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

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


def nothing(_: argparse.ArgumentParser) -> None:
    """Add no argument."""
