"""What a case of the corpus is: a dangerous file, its benign twin, and how to prove the danger.

A case says which natural loader loads it and which harm that does. Its files name a *trap*: a
folder with a file `secret`, which nobody has a reason to look into. Loading the dangerous file
makes a file there or reads the secret (or does another harm that `Harm` names); loading the twin
does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from modelkeep.core.verdict import Decision

SECRET = b"0.5\n0.25\n0.125\n"  # numbers, and a vocabulary: whatever a reader expects


class Harm(StrEnum):
    """What loading does, and how it is proven."""

    CODE = "runs code"  # a file in the trap
    WRITE = "writes outside"  # a file in the trap, or one less
    READ = "reads outside"  # the secret is opened
    NETWORK = "opens a connection"  # a hook of Python's refuses it
    MEMORY = "exhausts memory"  # 512 MiB do not suffice
    DISK = "fills the disk"  # 64 MiB for one file do not suffice
    CRASH = "ends the process"  # by a signal
    TIME = "takes all time"  # 1 s of the processor does not suffice


@dataclass(frozen=True, slots=True)
class Trap:
    """Where a dangerous file has to leave its mark."""

    folder: Path

    @property
    def new(self) -> str:
        """A file that is not there."""
        return str(self.folder / "touched")

    @property
    def secret(self) -> str:
        """A file that is there."""
        return str(self.folder / "secret")

    @property
    def code(self) -> str:
        """Source of Python, an expression, that makes the file."""
        return f"open({self.new!r},'w')"

    @property
    def command(self) -> str:
        """A line for a shell that makes the file."""
        return f"touch {self.new}"

    def up(self, path: str) -> str:
        """The same file by a relative path that climbs to the root."""
        return "../" * 24 + path.lstrip("/")


@dataclass(frozen=True, slots=True)
class Case:
    """One dangerous file, or folder, and its twin.

    Attributes:
        format: the family under which it is counted.
        loader: its name in `prover/loaders.py`.
        main: which of the files the loader is given; empty is the folder.
        wanted: `deny` where the file itself shows that it is dangerous, `hold` where only whoever
            loads it can know.
    """

    name: str
    format: str
    loader: str
    dangerous: Mapping[str, bytes]
    twin: Mapping[str, bytes]
    main: str
    harm: Harm = Harm.CODE
    wanted: Decision = Decision.DENY


Traps = Callable[[str], Trap]
Recipes = Callable[[Traps], Iterator[Case]]


@dataclass(frozen=True, slots=True)
class Family:
    """Makes the cases of one format."""

    format: str
    loader: str
    main: str

    def case(
        self,
        name: str,
        dangerous: bytes | Mapping[str, bytes],
        twin: bytes | Mapping[str, bytes],
        **options: object,
    ) -> Case:
        """A case; bytes are a single file under the family's usual name."""
        main = str(options.pop("main", self.main))
        loader = str(options.pop("loader", self.loader))
        return Case(
            f"{self.format}-{name}".replace(" ", "-"),
            self.format,
            loader,
            {main: dangerous} if isinstance(dangerous, bytes) else dangerous,
            {main: twin} if isinstance(twin, bytes) else twin,
            main,
            **options,  # type: ignore[arg-type]
        )
