"""A scanner in a process of its own: the near end of the pipe to it, and what goes over it.

The process (`workers.scanner`) has nothing: no key, no network, no rights. It is started once and
stays warm; for each file it forks a child that is locked in, looks into that one file and ends.
One message is a length (u32, big-endian) and a MessagePack record; a file goes as a descriptor
beside it. What comes back about a file was said by a process that had hostile bytes in it: it is
bounded, decoded strictly and made printable before anybody reads it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import threading
from collections.abc import Iterable, Iterator, Mapping

from modelkeep.adapters.memory_file import sealed_bytes
from modelkeep.adapters.worker_process import (
    END_S_MAX,
    MESSAGE_BYTES_MAX,
    ended,
    framed,
    received,
    started,
)
from modelkeep.core.artifact import Schema
from modelkeep.core.errors import IntegrityError, UnavailableError
from modelkeep.core.limits import TENSOR_RANK_MAX
from modelkeep.core.record import Record, from_msgpack, to_msgpack
from modelkeep.core.verdict import Finding, Severity
from modelkeep.kernels.kinds import KINDS
from modelkeep.kernels.onnxmodel import ELEMENTS
from modelkeep.ports.sandbox import Measure
from modelkeep.ports.scanner import Judged, Unjudged

WORKER = "modelkeep.workers.scanner"
# Names and sizes of files that are judged together: of more, graphs with external data are held.
SIZES_MAX = 100_000
SIZES_BYTES_MAX = MESSAGE_BYTES_MAX // 2
ANSWER_BYTES_MAX = 4 * 1024 * 1024
START_S_MAX = 60.0
TEXT_CHARS_MAX = 400
# A file may take this much of the processor per begun 100 MB, and no file more than that.
CPU_S_PER_PART = 10
PART_BYTES = 100_000_000
CPU_S_MAX = 600
# By the clock it may take longer, as others use the processor too.
CLOCK_PER_CPU = 6
MEMORY_BYTES = 512 * 1024 * 1024
_REFERENCES = {"timeout": "CWE-400", "crashed": "CWE-248", "answer": "CWE-502"}
_DTYPES = frozenset(name for name, _ in ELEMENTS.values())
# Language models that keep what they computed have four for each layer.
_PORTS_MAX = 4096
_DIMENSION_END = 1 << 63  # a schema's are signed


class Context(Record, frozen=True):
    """What holds for all files that follow; `settings` is a record of the scanner's own."""

    settings: bytes
    sizes: dict[str, int]


class Ask(Record, frozen=True):
    """One message to the worker.

    Attributes:
        call: `context`, `judge` (a descriptor comes along) or `explain`.
    """

    call: str
    number: int = 0
    name: str = ""
    context: Context | None = None


class Reply(Record, frozen=True):
    """One message from the worker.

    Attributes:
        outcome: `ready`, `done`, or the end of a rule's name: `crashed`, `timeout`, `answer`.
        text: of what went wrong.
        judged: as the child said it, undecoded.
    """

    number: int
    outcome: str
    text: str = ""
    judged: bytes = b""
    measures: tuple[Measure, ...] = ()


class ProcessScanner:
    """Starts the process when it is first needed; whatever ends it, the next use starts another.

    Args:
        lanes: files that are looked into at once; by default one per processor.
        memory_bytes: that looking into one file may take beside the file itself.
        cpu_s: that it may take per begun 100 MB of the file.
    """

    def __init__(
        self, *, lanes: int = 0, memory_bytes: int = MEMORY_BYTES, cpu_s: int = CPU_S_PER_PART
    ) -> None:
        self._lanes = lanes or _processors()
        self._memory_bytes = memory_bytes
        self._cpu_s = cpu_s
        self._wait_s = CPU_S_MAX * CLOCK_PER_CPU + START_S_MAX
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._owner = 0
        self._context = b""

    @property
    def pid(self) -> int:
        """Of the process, -1 while there is none."""
        return -1 if self._process is None else self._process.pid

    def start(self) -> None:
        """Start the process ahead of its use, so that it loads meanwhile.

        Raises:
            UnavailableError: `scan.worker.start`.
        """
        if self._lock.acquire(blocking=False):  # else it runs, and judges for somebody
            try:
                self._started()
            finally:
                self._lock.release()

    def judge(
        self, files: Iterable[Unjudged], *, sizes: Mapping[str, int], settings: Record
    ) -> Iterator[Judged]:
        if not self._lock.acquire(blocking=False):  # somebody is in the middle of their files
            with contextlib.closing(self._another()) as other:
                yield from other.judge(files, sizes=sizes, settings=settings)
            return
        try:
            self._tell(Context(settings=to_msgpack(settings), sizes=_few(sizes)))
            yield from self._judged(files)
        finally:
            self._lock.release()

    def explain(self) -> tuple[Measure, ...]:
        with self._lock:
            self._started()
            self._send(Ask(call="explain"))
            return self._received().measures

    def close(self) -> None:
        with self._lock:
            self._end()

    def _another(self) -> ProcessScanner:
        return ProcessScanner(lanes=self._lanes, memory_bytes=self._memory_bytes, cpu_s=self._cpu_s)

    def _judged(self, files: Iterable[Unjudged]) -> Iterator[Judged]:
        asked: dict[int, Unjudged] = {}  # in order; what was answered leaves in that order
        answered: dict[int, Judged] = {}
        try:
            for number, file in enumerate(files):
                asked[number] = file
                self._ask(number, file)
                while len(asked) - len(answered) >= self._lanes:
                    self._take(asked, answered)
                yield from _in_order(asked, answered)
            while len(asked) > len(answered):
                self._take(asked, answered)
                yield from _in_order(asked, answered)
        finally:
            if len(asked) > len(answered):  # answers are under way that nobody waits for
                self._end()

    def _ask(self, number: int, file: Unjudged) -> None:
        fd = file.fd if file.fd >= 0 else sealed_bytes("unjudged", file.raw)
        try:
            self._send(Ask(call="judge", number=number, name=file.name), fd)
        finally:
            if fd != file.fd:
                os.close(fd)

    def _take(self, asked: Mapping[int, Unjudged], answered: dict[int, Judged]) -> None:
        reply = self._received()
        if reply.number not in asked or reply.number in answered:
            raise self._lost()
        answered[reply.number] = _judgement(reply, asked[reply.number].name)
        asked[reply.number].forget()

    def _tell(self, context: Context) -> None:
        """Say what holds for the files that follow, unless it was said."""
        raw = to_msgpack(context)
        self._started()
        if raw != self._context:
            self._send(Ask(call="context", context=context))
            self._context = raw

    def _started(self) -> socket.socket:
        if self._socket is not None and self._owner == os.getpid():
            if self._process is not None and self._process.poll() is None:
                return self._socket
            self._end()
        own, its = socket.socketpair()
        bounds = ["--memory", str(self._memory_bytes), "--cpu", str(self._cpu_s)]
        try:
            self._process = started(WORKER, its, *bounds)
        except OSError as error:
            own.close()
            raise UnavailableError(
                "scan.worker.start",
                f"cannot start the scanner: {error.strerror}",
                hint="is there room for one more process, and memory?",
            ) from error
        finally:
            its.close()
        own.settimeout(self._wait_s)
        self._socket, self._owner, self._context = own, os.getpid(), b""
        return own

    def _send(self, message: Ask, fd: int = -1) -> None:
        raw, target = framed(message), self._socket
        if target is None:
            raise self._lost()
        try:
            if fd >= 0:
                sent = socket.send_fds(target, [raw], [fd])
                raw = raw[sent:]
            target.sendall(raw)
        except OSError:
            raise self._lost() from None

    def _received(self) -> Reply:
        assert self._socket is not None
        try:
            reply, _ = received(self._socket, Reply)
        except (OSError, IntegrityError):
            reply = None
        if reply is None:
            raise self._lost()
        return reply

    def _lost(self) -> UnavailableError:
        process = self._process
        if process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(END_S_MAX)
        status = None if process is None else process.poll()
        self._end()
        return UnavailableError(
            "scan.worker.start",
            f"the scanner's process does not answer (status {status})",
            hint="what it wrote stands above; nothing was let in",
        )

    def _end(self) -> None:
        if self._socket is not None:
            self._socket.close()
        process, self._process, self._socket = self._process, None, None
        if process is not None and self._owner == os.getpid():
            ended(process)


def _judgement(reply: Reply, name: str) -> Judged:
    """What a reply comes to: anything but a sound judgement is a finding that denies."""
    if reply.outcome != "done":
        return _against(name, reply.outcome, reply.text)
    try:
        found = from_msgpack(Judged, reply.judged, what="a judgement")
    except IntegrityError as error:
        return _against(name, "answer", error.message)
    if not all(_is_plain(each) for each in found.findings):
        return _against(name, "answer", "its texts are too long, or would steer a terminal")
    if found.kind not in KINDS:
        return _against(name, "answer", "it is said to be of a kind that there is not")
    if found.schema is not None and not _is_schema(found.schema):
        return _against(name, "answer", "its inputs or outputs are too many, or no tensors")
    return found


def _is_schema(schema: Schema) -> bool:
    """Whether it may stand in a manifest."""
    ports = (*schema.inputs, *schema.outputs)
    return len(ports) <= _PORTS_MAX and all(
        len(port.name) <= TEXT_CHARS_MAX
        and port.name.isprintable()
        and port.dtype in _DTYPES
        and len(port.shape) <= TENSOR_RANK_MAX
        and all(-1 <= size < _DIMENSION_END for size in port.shape)
        for port in ports
    )


def _against(name: str, outcome: str, text: str) -> Judged:
    known = outcome if outcome in _REFERENCES else "answer"
    finding = Finding(
        rule=f"scan.worker.{known}",
        severity=Severity.HIGH,
        subject=_printable(name),
        evidence=_printable(text),
        reference=_REFERENCES[known],
    )
    return Judged(findings=(finding,), kind="unknown")


def _is_plain(finding: Finding) -> bool:
    texts = (finding.rule, finding.subject, finding.evidence, finding.reference)
    return all(len(text) <= 2 * TEXT_CHARS_MAX and text.isprintable() for text in texts)


def _printable(text: str) -> str:
    cut = text if len(text) <= TEXT_CHARS_MAX else text[: TEXT_CHARS_MAX - 1] + "…"
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in cut)


def _in_order(asked: dict[int, Unjudged], answered: dict[int, Judged]) -> Iterator[Judged]:
    while asked and (first := next(iter(asked))) in answered:
        del asked[first]
        yield answered.pop(first)


def _few(sizes: Mapping[str, int]) -> dict[str, int]:
    """The sizes, where they are of more files than one and fit into a message; else none."""
    is_few = 1 < len(sizes) <= SIZES_MAX
    if is_few and sum(len(name.encode("utf-8", "replace")) for name in sizes) <= SIZES_BYTES_MAX:
        return dict(sizes)
    return {}


def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
