"""Lets natural loaders load files, each in a child of its own, and says what they touched.

One line of JSON a file comes in, one goes out. Theory of operation: this process has no network (a
namespace of its own where the kernel gives one) and watches the folder of the canary by inotify,
which tells what any code does there, C++ included. It forks a child for each file, which stands in
a folder of its own, within limits, behind a hook that notes and refuses connections. What the child
started is waited for, and killed. It runs on the standard library of any Python that has loaders.
"""

import atexit
import contextlib
import ctypes
import errno
import importlib
import json
import os
import resource
import select
import shutil
import signal
import struct
import sys
import tempfile
import threading
import time
from pathlib import Path

import loaders

_NEW_USER, _NEW_NETWORK = 0x10000000, 0x40000000
_SUBREAPER = 36
# Read, written, its rights, closed after writing, opened, moved, made, deleted.
_TOUCHES = 0x1 | 0x2 | 0x4 | 0x8 | 0x20 | 0x40 | 0x80 | 0x100 | 0x200
_SECONDS_MAX = 90
_LEFT_BEHIND_S = 3.0
_MIB = 1 << 20
_MEMORY, _FILE, _REFUSED, _RAISED = 77, 78, 79, 1
_ENDS = {0: "loaded", _RAISED: "raised", _MEMORY: "memory", _FILE: "disk", _REFUSED: "network"}
_LIBC = ctypes.CDLL(None, use_errno=True)


def main():
    if _LIBC.unshare(_NEW_NETWORK):  # only root may
        _LIBC.unshare(_NEW_USER | _NEW_NETWORK)
    _LIBC.prctl(_SUBREAPER, 1, 0, 0, 0)
    for name in sys.argv[1:]:
        importlib.import_module(name)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    for line in sys.stdin:
        job = json.loads(line)
        print(json.dumps(proven(job)), file=answers, flush=True)


def proven(job):
    """Load one file in a child; what was touched, and how the child ended."""
    watch = _LIBC.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    for path in (job["trap"], job["trap"] + "/secret"):  # the file itself: it may get other names
        _LIBC.inotify_add_watch(watch, os.fsencode(path), _TOUCHES)
    home = tempfile.mkdtemp(prefix="corpus-")
    said, to_say = os.pipe()
    started = time.monotonic()
    child = os.fork()
    if not child:
        os.close(said)
        _child(job, home, to_say)
    os.close(to_say)
    end = _awaited(child)
    text = os.read(said, 500).decode("utf-8", "replace")
    touched = _events(watch)
    os.close(watch)
    os.close(said)
    shutil.rmtree(home, ignore_errors=True)
    took = round(time.monotonic() - started, 2)
    return {"name": job["name"], "end": end, "touched": touched, "said": text, "seconds": took}


def _awaited(child):
    """How the child ended; then what it left behind is waited for, and killed."""
    end, deadline = "", time.monotonic() + _SECONDS_MAX
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return end
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            end = _ENDS.get(code) or (signal.Signals(-code).name if code < 0 else f"exit {code}")
            deadline = time.monotonic() + _LEFT_BEHIND_S
        elif not pid:
            if time.monotonic() > deadline:
                end = end or "hung"
                _kill_all(child)
                deadline = time.monotonic() + 1
            time.sleep(0.002)


def _kill_all(group):
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    for each in children.split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(each), signal.SIGKILL)


def _events(watch):
    """Names in the folder that were touched, with what was done."""
    found = set()
    while select.select([watch], [], [], 0)[0]:
        raw = os.read(watch, 1 << 16)
        at = 0
        while at < len(raw):
            _, mask, _, size = struct.unpack_from("iIII", raw, at)
            name = raw[at + 16 : at + 16 + size].rstrip(b"\0").decode()
            is_list = mask & 0x40000000 and not name
            done = "lists" if is_list else "reads" if mask & 0x21 else "writes"
            found.add(f"{done} {name}".strip())
            at += 16 + size
    return sorted(found)


def _child(job, home, to_say):
    os.setpgid(0, 0)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    folder = Path(home, "model")
    shutil.copytree(job["folder"], folder, symlinks=True)
    os.environ.update(HOME=home, TMPDIR=home, XDG_CACHE_HOME=home, HF_HOME=home, KERAS_HOME=home)
    tempfile.tempdir = home
    os.chdir(folder)
    _limit(job["harm"])
    refused = []

    def hook(event, arguments):
        if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname"):
            if event == "socket.connect" and not isinstance(arguments[1], tuple):
                return
            refused.append(event)
            raise ConnectionRefusedError(f"{event} {arguments[1:]}")

    sys.addaudithook(hook)
    code, said = 0, ""
    try:
        loaders.LOADERS[job["loader"]](str(folder / job["main"]))
    except BaseException as error:  # noqa: BLE001 - whatever a hostile file raises
        said = f"{type(error).__name__}: {error}"
        low = said.lower()
        code = _RAISED
        if isinstance(error, MemoryError) or "alloc" in low or "out of memory" in low:
            code = _MEMORY
        elif isinstance(error, OSError) and error.errno in (errno.EFBIG, errno.ENOSPC):
            code = _FILE
    with contextlib.suppress(BaseException):
        threading._shutdown()  # a process that ends waits for its threads
    with contextlib.suppress(BaseException):
        atexit._run_exitfuncs()
    os.write(to_say, said[:400].encode("utf-8", "replace"))
    os._exit(_REFUSED if refused else code)


def _limit(harm):
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 20, 64 << 20))
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    room = used + _MIB * (512 if harm == "exhausts memory" else 8192)
    resource.setrlimit(resource.RLIMIT_AS, (room, room))
    seconds = 1 if harm == "takes all time" else 60
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))


main()
