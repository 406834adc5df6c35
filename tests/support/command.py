"""The command line as a person uses it: in this process where that proves as much, else its own."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnx_models import trained_models

from modelkeep.cli.main import main
from modelkeep.crypto.kdf import Argon2Settings
from modelkeep.sdk.keep import Keep

CHEAP = Argon2Settings(memory_kib=8, passes=1, lanes=1)
PASSPHRASE = "correct horse battery canary"  # noqa: S105 - of keeps that live for one test
WAIT_S = 20.0


@dataclass(frozen=True)
class Outcome:
    """What one command came to."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON document on stdout."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        """One JSON document a line on stdout."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def error(self) -> dict[str, Any]:
        """The error object: the last line on stderr."""
        return dict(json.loads(self.err.splitlines()[-1]))


def modelkeep(*words: object, wanted: int | None = 0) -> Outcome:
    """Run one command in this process; streams encode strictly, as a terminal's do."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main([str(word) for word in words])
        except SystemExit as leaving:  # argparse
            status = int(leaving.code or 0)
    found = Outcome(status, _text(out), _text(err))
    assert wanted is None or found.status == wanted, (words, found)
    return found


def _text(stream: io.TextIOWrapper) -> str:
    stream.flush()
    return stream.buffer.getvalue().decode()  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Desk:
    """A folder with a keep, its second store, and the file that holds its passphrase."""

    folder: Path

    @classmethod
    def made(cls, folder: Path, *, second: bool = True) -> Desk:
        """Make a keep whose passphrase is cheap to stretch."""
        desk = cls(folder)
        folder.mkdir(parents=True, exist_ok=True)
        desk.passphrase_file.write_text(PASSPHRASE + "\n")
        desk.passphrase_file.chmod(0o600)
        stores = {"offsite": desk.offsite} if second else {}
        Keep.create(
            desk.keep, passphrase=PASSPHRASE, stores=stores, port=0, argon2=CHEAP, actor="test"
        ).close()
        return desk

    @property
    def keep(self) -> Path:
        return self.folder / "keep"

    @property
    def main(self) -> Path:
        return self.keep / "stores" / "main"

    @property
    def offsite(self) -> Path:
        return self.folder / "offsite"

    @property
    def config(self) -> Path:
        return self.keep / "modelkeep.toml"

    @property
    def passphrase_file(self) -> Path:
        return self.folder / "passphrase.txt"

    def words(self, *words: object) -> list[str]:
        """A whole command line of this keep."""
        own = ("--keep", self.keep, "--passphrase-file", self.passphrase_file)
        return [str(word) for word in (*own, *words)]

    def run(self, *words: object, wanted: int | None = 0) -> Outcome:
        """Run one verb; people's output."""
        return modelkeep(*self.words(*words), wanted=wanted)

    def json(self, *words: object, wanted: int = 0) -> Any:
        """Run one verb with `--json`; the document on stdout."""
        return self.run(*words, "--json", wanted=wanted).json

    def refusal(self, *words: object, wanted: int) -> str:
        """Run a verb that must end in an error, said to people and to programs; its code."""
        human = self.run(*words, wanted=wanted)
        assert not human.out, human
        assert human.err.startswith("modelkeep: error: "), human
        found = self.run(*words, "--json", wanted=wanted)
        assert not found.out, found
        facts = found.error
        assert facts["exit_status"] == wanted
        assert facts["message"]
        assert f"[{facts['code']}]" in human.err
        assert ("modelkeep: hint: " in human.err) == bool(facts["hint"])
        return str(facts["code"])

    def admit(self, version: int = 1, *, name: str = "digits") -> Any:
        """Admit one of the two trained models with its canary."""
        model = trained_models()[1][version - 1]
        return self.json("admit", model.file, "--name", name, "--canary", model.canary)

    def kinds(self) -> list[str]:
        """Kinds of all ledger entries, in order, but for the one that every opening makes."""
        return [each["kind"] for each in self.entries() if each["kind"] != "key.used"]

    def entries(self, kind: str = "") -> list[dict[str, Any]]:
        """Ledger entries, in order."""
        return self.run("ledger", "tail", "--last", 10_000, "--kind", kind, "--json").lines

    def configure(self, old: str, new: str) -> None:
        """Edit modelkeep.toml as an operator would."""
        text = self.config.read_text()
        assert old in text
        self.config.write_text(text.replace(old, new))

    def files(self) -> dict[Path, bytes]:
        """Every file that lies in the keep and in its second store."""
        return {
            path: path.read_bytes()
            for root in (self.keep, self.offsite)
            for path in sorted(root.rglob("*"))
            if path.is_file()
        }

    def destroy(self) -> None:
        """The disaster: the keep's folder is gone."""
        shutil.rmtree(self.keep)


def _hear_interrupts() -> None:
    """Undo what a background job hands down: a terminal's programs do not ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Process:
    """A command as a process of its own, in a session of its own, so that nothing escapes us."""

    def __init__(
        self,
        *words: object,
        fds: tuple[int, ...] = (),
        into: Any = subprocess.PIPE,
        python: str = sys.executable,
        **options: Any,
    ) -> None:
        command = [python, "-P", "-m", "modelkeep", *map(str, words)]
        self.popen = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=into,
            stderr=into,
            text=True,
            start_new_session=True,
            pass_fds=fds,
            preexec_fn=_hear_interrupts,  # noqa: PLW1509 - it only sets a signal
            **options,
        )

    @property
    def pid(self) -> int:
        return self.popen.pid

    def event(self, name: str) -> dict[str, Any]:
        """Wait for a line of JSON that says this event."""
        assert self.popen.stdout is not None
        for line in self.popen.stdout:
            facts = dict(json.loads(line))
            if facts.get("event") == name:
                return facts
        raise AssertionError(f"ended without {name}: {self.ended()}")

    def ended(self, wait_s: float = WAIT_S) -> Outcome:
        """Wait for its end."""
        out, err = self.popen.communicate(timeout=wait_s)
        return Outcome(self.popen.returncode, out, err)

    def interrupt(self) -> None:
        """Ctrl-C, as a terminal sends it: to the foreground group."""
        os.killpg(self.pid, signal.SIGINT)

    def left(self) -> list[int]:
        """Processes of its session that live."""
        return [pid for pid in _pids() if _session(pid) == self.pid]

    def clean(self) -> None:
        """End whatever a failed test left."""
        for pid in self.left():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.popen.communicate(timeout=WAIT_S)


def _pids() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]


def _session(pid: int) -> int:
    """The session of a living process, -1 for the dead."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return -1
    return -1 if fields[0] in "ZX" else int(fields[3])


def wait_until(holds: Callable[[], object], wait_s: float = WAIT_S) -> float:
    """Wait for something to hold; how long that took, in seconds."""
    started_s = time.monotonic()
    while not holds():
        assert time.monotonic() - started_s < wait_s, "waited too long"
        time.sleep(0.01)
    return time.monotonic() - started_s
