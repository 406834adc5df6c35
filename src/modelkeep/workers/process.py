"""A child process: started from a plan in a memory file, watched, stopped, started again."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from modelkeep.adapters.memory_file import sealed_bytes
from modelkeep.core.errors import UnavailableError
from modelkeep.core.record import Record, to_json

BACKOFF_S_MIN = 0.05
BACKOFF_S_MAX = 5.0
# A process that ran this long was healthy: its next start waits no longer than the first.
HEALTHY_S = 3.0


@dataclass(slots=True)
class Child:
    """One process of the service.

    Attributes:
        worker: module below `modelkeep.workers`.
        plan: read by the child from its `--plan-fd`.
        fds: inherited descriptors that the plan names.
        environment: all of it; no secret.
        pidfd: readable once the process has ended; -1 while there is none.
        is_over: whether it is not to be started any more.
    """

    name: str
    worker: str
    plan: Record
    fds: tuple[int, ...]
    process: subprocess.Popen[bytes] | None = None
    started_s: float = 0.0
    backoff_s: float = BACKOFF_S_MIN
    starts: int = 0
    not_before_s: float = 0.0
    is_over: bool = False
    environment: dict[str, str] = field(default_factory=dict)
    pidfd: int = -1
    _plan_fd: int = field(default=-1)

    def start(self) -> None:
        """Start the process with its own environment, which mostly is empty.

        It is in a group of its own, so Ctrl-C reaches the supervisor only.

        Raises:
            UnavailableError: `serve.process`; the next start is put off.
        """
        try:
            self.process = self._started()
        except OSError as error:
            self._put_off()
            raise UnavailableError(
                "serve.process",
                f"cannot start {self.name}: {error.strerror}",
                hint="is there room for one more process, and memory?",
            ) from error
        with contextlib.suppress(OSError):
            self.pidfd = os.pidfd_open(self.process.pid)
        self.started_s = time.monotonic()
        self.starts += 1

    def _started(self) -> subprocess.Popen[bytes]:
        if self._plan_fd < 0:
            self._plan_fd = sealed_bytes(f"plan-{self.name}", to_json(self.plan))
        command = [sys.executable, "-I", "-m", f"modelkeep.workers.{self.worker}"]
        return subprocess.Popen(  # noqa: S603 - our own module, no shell
            [*command, "--plan-fd", str(self._plan_fd)],
            pass_fds=(*self.fds, self._plan_fd),
            stdin=subprocess.DEVNULL,
            env=self.environment,
            process_group=0,
        )

    @property
    def pid(self) -> int:
        """The process id, or -1 when it is not running."""
        return self.process.pid if self.process is not None else -1

    def reaped(self) -> int | None:
        """The exit status if the process has ended since it was started, else None.

        When it has, the next start is put off: at once after a healthy run, later and later
        while starts keep failing.
        """
        if self.process is None:
            return None
        status = self.process.poll()
        if status is None:
            return None
        self._forget()
        now_s = time.monotonic()
        if now_s - self.started_s >= HEALTHY_S or self.starts == 1:
            self.backoff_s = BACKOFF_S_MIN
        self._put_off()
        return status

    def killed(self) -> None:
        """End the process at once, whatever it does; `reaped` then finds it."""
        if self.process is not None:
            _signal(self.process, signal.SIGKILL)

    def ended(self) -> None:
        """It was stopped on purpose: forget the process and its plan, for good."""
        self._forget()
        self.is_over = True
        if self._plan_fd >= 0:
            os.close(self._plan_fd)
            self._plan_fd = -1

    def _forget(self) -> None:
        self.process = None
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1

    def _put_off(self) -> None:
        pause_s = 0 if self.backoff_s == BACKOFF_S_MIN else self.backoff_s
        self.not_before_s = time.monotonic() + pause_s
        self.backoff_s = min(self.backoff_s * 2, BACKOFF_S_MAX)

    def is_due(self) -> bool:
        """Whether the process is down and may be started again."""
        return not self.is_over and self.process is None and time.monotonic() >= self.not_before_s


def stopped(children: Sequence[Child], *, grace_s: float) -> None:
    """Ask all to end with SIGTERM, wait, and kill what is left."""
    running = [child.process for child in children if child.process is not None]
    for process in running:
        _signal(process, signal.SIGTERM)
    deadline_s = time.monotonic() + grace_s
    for process in running:
        try:
            process.wait(max(deadline_s - time.monotonic(), 0.01))
        except subprocess.TimeoutExpired:
            _signal(process, signal.SIGKILL)
            process.wait()
    for child in children:
        child.ended()


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    try:
        os.kill(process.pid, number)
    except ProcessLookupError:
        return  # it ended by itself
