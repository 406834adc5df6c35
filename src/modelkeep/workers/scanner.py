"""The scanner's process: warm, without rights, a child that is locked in for every file.

It is started by whoever has files to judge, over a pair of sockets that nobody else can reach, and
ends when its socket does. Order:
 1. everything that a parser may need is imported: later nothing can be opened any more;
 2. it gives up root, network and capabilities, for itself and all its children;
 3. for each file that comes as a descriptor it forks; the child maps the file, is locked in (no
    file, no socket, no process, so much memory, so much time), and only then reads the first byte;
 4. the child's answer goes on undecoded, so that nothing a file makes of a child reaches this
    process; a child that ends otherwise, says too much or takes too long is killed, and that is
    what is said of its file.

`python -m modelkeep.workers.scanner --fd N --memory BYTES --cpu SECONDS`
"""

from __future__ import annotations

import argparse
import gc
import importlib
import mmap
import os
import pkgutil
import selectors
import signal
import socket
import stat
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field

import modelkeep.scan
from modelkeep.adapters.sandboxes import this_sandbox
from modelkeep.adapters.scan_process import (
    ANSWER_BYTES_MAX,
    CLOCK_PER_CPU,
    CPU_S_MAX,
    PART_BYTES,
    TEXT_CHARS_MAX,
    Ask,
    Reply,
)
from modelkeep.adapters.worker_process import framed, received
from modelkeep.core.errors import KeepError
from modelkeep.core.record import from_msgpack, to_msgpack
from modelkeep.flows.scanning import judged_file
from modelkeep.ports.sandbox import CALLS, DESCRIPTORS, LIMITS, PRIVILEGES, Grants, Limits
from modelkeep.scan.settings import ScanSettings

# What a parser imports only when it meets a file that needs it, and codecs of texts in files:
# a child cannot open them any more. What is not installed is left out.
_LATE = (
    *("bz2", "lzma", "zlib", "zstandard", "jinja2", "jinja2.ext", "yaml", "ast"),
    *("encodings.ascii", "encodings.cp437", "encodings.idna", "encodings.latin_1"),
    *("encodings.punycode", "encodings.raw_unicode_escape", "encodings.unicode_escape"),
    *("encodings.utf_16", "encodings.utf_16_be", "encodings.utf_16_le", "encodings.utf_32"),
    *("encodings.utf_32_be", "encodings.utf_32_le", "encodings.utf_7", "encodings.utf_8_sig"),
    *("stringprep", "unicodedata", "_strptime", "html.entities", "zipfile", "tarfile"),
    "packaging.licenses",
)
# Looked into before the first fork: lists that parsers read from files when they first need them.
_WARMING = (
    ("a.pkl", b"\x80\x02cacme\nForest\n)\x81cos\nsystem\n."),
    ("config.json", b'{"chat_template": "{% for m in messages %}{{ m.role | trim }}{% endfor %}"}'),
    ("MLmodel", b"flavors:\n  a: [1]\n"),
    ("saved_model.pb", b"\x08\x01\x12\x14\n\x06*\x042.20\x12\n\n\x08\n\x01a\x12\x03Zzz"),
)
EXIT_CRASHED = 70
READ_BYTES = 64 * 1024
# A pause of this length between two looks was not ours: the whole process was stopped.
STOPPED_S_MIN = 2.0
IDLE_S = 3600.0
CHILDREN_MAX = 256


@dataclass(slots=True)
class _Child:
    """A file that is being looked into."""

    number: int
    pid: int
    fd: int
    until_s: float
    said: bytearray = field(default_factory=bytearray)
    why: str = ""


class Scanner:
    """The loop of the process."""

    def __init__(self, parent: socket.socket, *, memory_bytes: int, cpu_s: int) -> None:
        self._parent = parent
        self._memory_bytes = memory_bytes
        self._cpu_s = cpu_s
        self._sandbox = this_sandbox()
        self._pid = os.getpid()
        self._children: dict[int, _Child] = {}
        self._selector = selectors.DefaultSelector()
        self._settings = ScanSettings()
        self._sizes: dict[str, int] = {}
        has_filter = sys.platform == "linux"
        self._demanded = (PRIVILEGES, LIMITS, DESCRIPTORS, CALLS) if has_filter else ()

    def run(self) -> None:
        """Serve until the parent's end closes."""
        self._sandbox.enclose(Grants())
        self._selector.register(self._parent, selectors.EVENT_READ)
        seen_s = time.monotonic()
        while True:
            wait_s = min(
                (each.until_s for each in self._children.values()), default=seen_s + IDLE_S
            )
            wait_s = max(0.0, wait_s - seen_s)
            ready = self._selector.select(wait_s)
            now_s = time.monotonic()
            stopped_s = now_s - seen_s - wait_s
            seen_s = now_s
            for child in self._children.values() if stopped_s > STOPPED_S_MIN else ():
                child.until_s += stopped_s
            for key, _ in ready:
                if key.fd in self._children:
                    self._listen(self._children[key.fd])
                elif not self._answer():
                    self._end()
                    return
            for child in [each for each in self._children.values() if each.until_s <= now_s]:
                self._over(child, "timeout", "it was looked into for too long by the clock")

    def _answer(self) -> bool:
        """Do what the parent asks; False when it has left."""
        asked, fd = received(self._parent, Ask)
        if asked is None:
            return False
        if asked.call == "context" and asked.context is not None:
            self._settings = from_msgpack(ScanSettings, asked.context.settings, what="settings")
            self._sizes = asked.context.sizes
        elif asked.call == "judge" and fd >= 0:
            self._look(asked, fd)
        else:
            limits, grants = self._limits(0), Grants(demanded=self._demanded)
            measures = self._sandbox.explain(limits, grants)
            self._say(Reply(number=asked.number, outcome="ready", measures=measures))
        return True

    def _look(self, asked: Ask, fd: int) -> None:
        """Fork a child for a file."""
        found = os.fstat(fd)
        why = "" if stat.S_ISREG(found.st_mode) else "it is no regular file"
        if not why and len(self._children) >= CHILDREN_MAX:
            why = f"{CHILDREN_MAX} files are being looked into already"
        if why:
            os.close(fd)
            self._say(Reply(number=asked.number, outcome="crashed", text=why))
            return
        reading, writing = os.pipe()
        limits = self._limits(found.st_size)
        try:
            pid = os.fork()
        except OSError as error:
            text = f"no process could be started for it: {error.strerror}"
            self._say(Reply(number=asked.number, outcome="crashed", text=text))
            for each in (reading, writing, fd):
                os.close(each)
            return
        if pid == 0:
            os._exit(self._judged(asked.name, fd, writing, limits))
        os.close(writing)
        os.close(fd)
        until_s = time.monotonic() + limits.cpu_s * CLOCK_PER_CPU
        self._children[reading] = _Child(asked.number, pid, reading, until_s)
        self._selector.register(reading, selectors.EVENT_READ)

    def _limits(self, size_bytes: int) -> Limits:
        parts = 1 + max(0, size_bytes - 1) // PART_BYTES
        return Limits(
            memory_bytes=self._memory_bytes, cpu_s=max(1, min(self._cpu_s * parts, CPU_S_MAX))
        )

    def _judged(self, name: str, fd: int, writing: int, limits: Limits) -> int:
        """The child: map, be locked in, look, say; its exit status."""
        try:
            size_bytes = os.fstat(fd).st_size
            raw = memoryview(b"")
            if size_bytes:
                raw = memoryview(mmap.mmap(fd, size_bytes, access=mmap.ACCESS_READ))
            grants = Grants(descriptors=(writing,), demanded=self._demanded)
            self._sandbox.lock_in(limits, grants)
            if os.getppid() != self._pid:  # it ended before we would have heard of it
                return EXIT_CRASHED
            said = to_msgpack(judged_file(name, raw, self._sizes, self._settings))
            status = 0
        except BaseException as error:  # noqa: BLE001 - a child's end: its parent says that it denies
            said, status = _told(error), EXIT_CRASHED
        view = memoryview(said)
        while view:
            view = view[os.write(writing, view) :]
        return status

    def _listen(self, child: _Child) -> None:
        """Take what a child says; at its end say what came of its file."""
        part = os.read(child.fd, READ_BYTES)
        child.said += part
        if len(child.said) > ANSWER_BYTES_MAX:
            self._over(child, "answer", f"its judgement has over {ANSWER_BYTES_MAX} bytes")
        elif not part:
            status = self._reaped(child)
            if status == 0:
                reply = Reply(number=child.number, outcome="done", judged=bytes(child.said))
            elif status in (-signal.SIGXCPU, -signal.SIGKILL):
                text = "it was looked into for too long: the processor's time was used up"
                reply = Reply(number=child.number, outcome="timeout", text=text)
            else:
                reply = Reply(number=child.number, outcome="crashed", text=_ended(status, child))
            self._say(reply)

    def _over(self, child: _Child, outcome: str, text: str) -> None:
        self._reaped(child)
        self._say(Reply(number=child.number, outcome=outcome, text=text))

    def _reaped(self, child: _Child) -> int:
        """End a child, whatever it does; its status."""
        with suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGKILL)  # it may have closed its pipe and gone on
        _, ended = os.waitpid(child.pid, 0)
        self._selector.unregister(child.fd)
        os.close(child.fd)
        del self._children[child.fd]
        return os.waitstatus_to_exitcode(ended)

    def _say(self, reply: Reply) -> None:
        self._parent.sendall(framed(reply))

    def _end(self) -> None:
        for child in list(self._children.values()):
            self._reaped(child)


def _told(error: BaseException) -> bytes:
    """What an error was and where, without what it says: that may be the file's."""
    place, trace = "", error.__traceback__
    while trace is not None:
        place = f"{os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}"  # noqa: PTH119
        trace = trace.tb_next
    code = f" {error}" if isinstance(error, KeepError | ImportError) else ""
    return f"{type(error).__name__} at {place}{code}".encode("utf-8", "replace")[:TEXT_CHARS_MAX]


def _ended(status: int, child: _Child) -> str:
    said = child.said[:TEXT_CHARS_MAX].decode("utf-8", "replace") if status > 0 else ""
    how = f"by signal {-status}" if status < 0 else f"with status {status}"
    return f"what looked into it ended {how}" + (f": {said}" if said else "")


def _prepare() -> None:
    """Step 1."""
    parsers = pkgutil.iter_modules(modelkeep.scan.__path__, f"{modelkeep.scan.__name__}.")
    for name in (*(each.name for each in parsers), *_LATE):
        with suppress(ImportError):
            importlib.import_module(name)
    for name, raw in _WARMING:
        judged_file(name, memoryview(raw), {}, ScanSettings())
    gc.collect()
    gc.freeze()  # what is shared with the children is not written to by their collector


def main(arguments: list[str] | None = None) -> int:
    """Serve until the parent is gone."""
    parser = argparse.ArgumentParser(prog="modelkeep scanner")
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--memory", type=int, required=True)
    parser.add_argument("--cpu", type=int, required=True)
    options = parser.parse_args(arguments)
    for number in (signal.SIGINT, signal.SIGTERM):  # it ends with its parent, not before
        signal.signal(number, signal.SIG_IGN)
    _prepare()
    with socket.socket(fileno=options.fd) as parent:
        try:
            Scanner(parent, memory_bytes=options.memory, cpu_s=options.cpu).run()
        except (ConnectionError, BrokenPipeError):
            return 0  # the parent is gone
        except (KeepError, OSError) as error:
            sys.stderr.write(f"modelkeep scanner: {error}\n")
            return EXIT_CRASHED
    return 0


if __name__ == "__main__":
    status = main()
    sys.stderr.flush()
    os._exit(status)  # nothing is left to be done
