"""How the demo tells itself: real verbs run in front of the user, each step timed and kept."""

from __future__ import annotations

import contextlib
import io
import json
import shlex
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from modelkeep.cli.main import main
from modelkeep.cli.output import console
from modelkeep.core.record import Record


class Line(Record, frozen=True):
    """One thing that was seen.

    Attributes:
        kind: `command`, `fact`, `refused` or `proof`.
    """

    kind: str
    text: str


class Step(Record, frozen=True):
    """One step of the story.

    Attributes:
        at_s: when it began, seconds after the story did.
    """

    number: int
    title: str
    at_s: float
    seconds: float
    lines: tuple[Line, ...]


class Story:
    """Runs verbs on one keep, shows what happens, remembers it for the summary and the report."""

    def __init__(self, passphrase_file: str) -> None:
        self.passphrase_file = passphrase_file
        self._started_s = time.perf_counter()
        self._console = console()
        self._lines: list[Line] = []
        self.steps: list[Step] = []

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """One numbered step."""
        at_s = time.perf_counter() - self._started_s
        number = len(self.steps) + 1
        self._lines = []
        self._console.print(f"\n[bold cyan]{number:>2}  {title}[/]")
        yield
        seconds = time.perf_counter() - self._started_s - at_s
        self.steps.append(
            Step(
                number=number,
                title=title,
                at_s=round(at_s, 2),
                seconds=round(seconds, 2),
                lines=tuple(self._lines),
            )
        )

    @property
    def seconds(self) -> float:
        """Since the story began."""
        return time.perf_counter() - self._started_s

    def run(self, *words: str | Path, wanted: int = 0) -> list[Any]:
        """Run one verb as a person would type it; its JSON lines, from stdout or stderr.

        Args:
            wanted: the exit code that must come of it; anything else ends the story.
        """
        arguments = [str(word) for word in words]
        self._say("command", "modelkeep " + shlex.join(arguments), "dim")
        status, said = self._called([*arguments, "--json"])
        if status != wanted:
            raise AssertionError(f"{arguments} ended with {status}, not {wanted}: {said[-2000:]}")
        return [json.loads(line) for line in said.splitlines() if line.startswith(("{", "["))]

    def refused(self, *words: str | Path, wanted: int) -> dict[str, Any]:
        """Run a verb that must end in an error; the error as facts."""
        facts: dict[str, Any] = self.run(*words, wanted=wanted)[-1]
        self.refusal(f"{facts['message']} [{facts['code']}] exit {wanted}")
        return facts

    def fact(self, text: str) -> None:
        """Something that was seen."""
        self._say("fact", text, "")

    def refusal(self, text: str) -> None:
        """Something that was stopped, as it must be."""
        self._say("refused", text, "yellow")

    def proof(self, text: str) -> None:
        """A claim that was checked, and held."""
        self._say("proof", text, "green")

    def proven(self, claim: str, *, holds: bool) -> None:
        """Check a claim; the story ends where one does not hold."""
        if not holds:
            raise AssertionError(f"the demo's claim does not hold: {claim}")
        self.proof(claim)

    def command(self, words: Sequence[str]) -> None:
        """Show a command that is run as a process of its own."""
        self._say("command", "modelkeep " + shlex.join(words), "dim")

    def _called(self, arguments: list[str]) -> tuple[int, str]:
        stdout, stderr = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
            status = main([*arguments, "--passphrase-file", self.passphrase_file])
        return status, stdout.getvalue() + stderr.getvalue()

    def _say(self, kind: str, text: str, style: str) -> None:
        self._lines.append(Line(kind=kind, text=text))
        mark = {"command": "$", "fact": "·", "refused": "✗", "proof": "✓"}[kind]
        self._console.print(f"    {mark} {text}", style=style or None, markup=False)
