"""A running service as a child of this process: started, watched, stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from modelkeep.core.errors import KeepError, error_of
from modelkeep.ports.keyholder import Means
from modelkeep.wiring import KeepFolder, is_served

STOP_TIMEOUT_S = 45.0
LOG_NAME = "service.log"
# What opens the root was forgotten on purpose, so nobody but the operator can start it again.
KEYHOLDER_ENDED = "the keyholder ended; restart the service"


class Service:
    """The supervisor with everything below it.

    Attributes:
        url: where the gateway listens.
        models: what it serves, as `name:version`.
        fingerprint: SHA-256 of the certificate that the operator gave; empty for one of the keep's
            own authority.
    """

    def __init__(self, folder: Path, means: Means) -> None:
        """Start the service; return when it is ready.

        Raises:
            KeepError: what stopped it from starting.
        """
        reading = passed_passphrase(means)
        # Closed when this process ends, however it ends: then the service ends too.
        lifeline, self._lifeline = os.pipe()
        self._run_folder = folder / "run"
        self._run_folder.mkdir(mode=0o700, exist_ok=True)
        command = [sys.executable, "-I", "-m", "modelkeep.workers.supervisor"]
        with (self._run_folder / LOG_NAME).open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own module, no shell
                [
                    *(*command, "--keep", str(folder), "--json"),
                    *("--key-source", means.source, "--lifeline-fd", str(lifeline)),
                    *("--passphrase-fd", str(reading)),
                ],
                pass_fds=(lifeline, *((reading,) if reading >= 0 else ())),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                process_group=0,
            )
        if reading >= 0:
            os.close(reading)
        os.close(lifeline)
        try:
            facts = self._first_line()
        except BaseException:  # Ctrl-C too: nothing that was started is left behind
            self.stop()
            raise
        self.url: str = facts["url"]
        self.models: tuple[str, ...] = tuple(facts["models"])
        self.fingerprint: str = facts["certificate"]

    @property
    def pid(self) -> int:
        """Of the supervisor."""
        return self._process.pid

    def processes(self) -> dict[str, int]:
        """The service's processes by name: those that run now."""
        facts = json.loads((self._run_folder / "service.json").read_bytes())
        return dict(facts["processes"])

    def stop(self) -> None:
        """Drain and end; idempotent."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1

    def kill(self) -> None:
        """End the supervisor at once, as a disaster would; what it started ends by itself."""
        self._process.kill()
        self._process.wait()
        self.stop()

    def wait(self) -> int:
        """Wait for the service to end; its exit status."""
        return self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _first_line(self) -> dict[str, Any]:
        stdout = self._process.stdout
        line = stdout.readline() if stdout is not None else b""
        if line:
            return dict(json.loads(line))
        status = self._process.wait()
        said = (self._run_folder / LOG_NAME).read_text(errors="replace")
        self.stop()
        raise _failure(status, said)


def told_of(folder: KeepFolder) -> dict[str, Any] | None:
    """What a running service's supervisor says of it; None where none runs, or it starts."""
    if not is_served(folder):
        return None
    try:
        facts = json.loads(folder.service_file.read_bytes())
        return {**facts, "processes": dict(facts["processes"])}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def degraded(facts: Mapping[str, Any]) -> str:
    """What a running service cannot do until it is restarted; empty when nothing is amiss."""
    pid = facts["processes"].get("keyholder")
    return "" if pid is not None and _is_running(pid) else KEYHOLDER_ENDED


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def passed_passphrase(means: Means) -> int:
    """A pipe with the passphrase in it, to be inherited; -1 when there is none."""
    if means.passphrase is None:
        return -1
    reading, writing = os.pipe()
    os.write(writing, means.passphrase.reveal())
    os.close(writing)
    return reading


def _failure(status: int, said: str) -> KeepError:
    """The supervisor's own error, from the last line that it wrote."""
    lines = said.strip().splitlines()
    try:
        return error_of(json.loads(lines[-1]))
    except (IndexError, ValueError, KeyError, TypeError):
        last = lines[-1] if lines else f"it ended with status {status}"
        message = f"the service did not start: {last}"
        return error_of({"code": "serve.start", "message": message, "exit_status": status})
