"""One replica that a host runs for a service elsewhere: its model in memory, its process, its end.

The model's bytes come in pieces, are hashed as they come, and lie in sealed memory files, of which
an ordinary locked-in replica is started. It is started again when it ends, as a service's own is.
"""

from __future__ import annotations

import contextlib
import hashlib
import socket
from pathlib import Path

from modelkeep.adapters.memory_file import MemoryFile
from modelkeep.core.errors import IntegrityError, KeepError, UnavailableError
from modelkeep.core.record import replaced
from modelkeep.workers.host_frames import Begin
from modelkeep.workers.plan import ReplicaPlan, TextReplicaPlan
from modelkeep.workers.process import Child, stopped
from modelkeep.workers.telling import ending

BACKLOG = 128
GRACE_S = 0.2


class Hosted:
    """One replica.

    Args:
        folder_fd: where its socket lies, which nobody else may enter.
        lifeline_fd: becomes readable when this host's process ends.
    """

    def __init__(self, begin: Begin, *, folder_fd: int, lifeline_fd: int) -> None:
        self.begin = begin
        # An address holds 108 bytes; through the folder's descriptor it fits, wherever that lies.
        self.path = Path(f"/proc/self/fd/{folder_fd}/{begin.replica}")
        self._lifeline_fd = lifeline_fd
        self._memory = [MemoryFile(f"model-{self.name}") for _ in begin.files]
        self._views: list[memoryview] = []
        self._at = self._done_bytes = 0
        self._sum = hashlib.sha256()
        self._child: Child | None = None
        self._listener: socket.socket | None = None

    @property
    def name(self) -> str:
        """What runs, as `model:version`."""
        plan = self.begin.plan
        return f"{plan.model}:{plan.version}"

    @property
    def is_whole(self) -> bool:
        """Whether all files are there, and are what was announced."""
        return self._at == len(self.begin.files)

    def allocate(self) -> None:
        """Take the memory; may take seconds.

        Raises:
            UnavailableError: `memory.full`.
        """
        for memory, file in zip(self._memory, self.begin.files, strict=True):
            self._views.append(memory.allocate(file.size_bytes))

    def fill(self, data: bytes) -> bytes:
        """Take bytes of the files, in order; what came behind the last of them.

        Raises:
            IntegrityError: `host.digest`.
        """
        left = memoryview(data)
        self._next_if_done()
        while left and not self.is_whole:
            view = self._views[self._at]
            part = left[: len(view) - self._done_bytes]
            view[self._done_bytes : self._done_bytes + len(part)] = part
            self._sum.update(part)
            self._done_bytes += len(part)
            left = left[len(part) :]
            self._next_if_done()
        return bytes(left)

    def _next_if_done(self) -> None:
        files = self.begin.files
        while self._at < len(files) and self._done_bytes == files[self._at].size_bytes:
            if self._sum.hexdigest() != files[self._at].sha256:
                raise IntegrityError("host.digest", f"{self.name} came otherwise than announced")
            self._sum = hashlib.sha256()
            self._at, self._done_bytes = self._at + 1, 0

    def start(self) -> None:
        """Seal the files and start the process.

        Raises:
            UnavailableError: `serve.process` or `host.socket`.
        """
        assert self.is_whole
        self._views.clear()
        sealed = [each.sealed() for each in self._memory]
        self._listener = listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.bind(str(self.path))
        except OSError as error:
            raise UnavailableError("host.socket", f"no socket: {error.strerror}") from error
        listener.listen(BACKLOG)
        fds = {"listen_fd": listener.fileno(), "lifeline_fd": self._lifeline_fd}
        plan: ReplicaPlan | TextReplicaPlan
        if self.begin.tensor is not None:
            plan = replaced(self.begin.tensor, model_fd=sealed[0], shares=False, **fds)
            worker = "replica"
        else:
            assert self.begin.text is not None
            paths = [file.path for file in self.begin.files]
            files = tuple(zip(paths, sealed, strict=True))
            plan = replaced(self.begin.text, files=files, **fds)
            worker = "text_replica"
        self._child = Child(
            name=f"replica of {self.name}",
            worker=worker,
            plan=plan,
            fds=(*sealed, *fds.values()),
        )
        self._child.start()

    def mended(self) -> str:
        """Start the process again if it has ended; what happened, empty for nothing."""
        child = self._child
        if child is None:
            return ""
        status = child.reaped()
        if child.is_due():
            with contextlib.suppress(KeepError):  # the next start is put off
                child.start()
        return f"{child.name} ended ({ending(status)})" if status is not None else ""

    def end(self) -> None:
        """End the process and wipe the model; may take a moment. Idempotent."""
        if self._child is not None:
            stopped([self._child], grace_s=GRACE_S)
            self._child = None
        if self._listener is not None:
            self._listener.close()
            self._listener = None
            with contextlib.suppress(OSError):
                self.path.unlink()
        self._views.clear()
        for each in self._memory:
            each.wiped()
