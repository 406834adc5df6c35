"""Whoever is locked in cannot get out: each attack is tried in a process of its own.

A job gets a pipe to say how far it came. What it may not do must fail (or kill it), whichever of
two measures against the same thing is left out.
"""

import ctypes
import fcntl
import mmap
import os
import resource
import signal
import socket
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from modelkeep.adapters.sandbox_bare import BareSandbox
from modelkeep.adapters.sandbox_calls import this_processor
from modelkeep.adapters.sandbox_linux import LinuxSandbox
from modelkeep.adapters.sandbox_seccomp import filter_program
from modelkeep.core.errors import UnavailableError
from modelkeep.ports.sandbox import (
    CALLS,
    DESCRIPTORS,
    FILES,
    LIMITS,
    MEASURES,
    NAMESPACES,
    NETWORK,
    PRIVILEGES,
    Grants,
    Limits,
)

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="the sandbox is Linux's"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]
LIMITS_HERE = Limits(memory_bytes=64 << 20, cpu_s=1)
REACHED = b"REACHED"


def outcome(job, *, without=(), limits=LIMITS_HERE, **grants):
    """What a locked-in job came to: its status, and what it said before its end."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            kept = (writing, *grants.pop("descriptors", ()))
            LinuxSandbox(without=without).lock_in(limits, Grants(descriptors=kept, **grants))
            said = job()
            os.write(writing, REACHED if said is None else repr(said).encode())
        except BaseException as error:  # noqa: BLE001 - a test's child says what ended it
            os.write(writing, f"{type(error).__name__}: {error}".encode()[:500])
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as stream:
        said = stream.read()
    _, ended = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(ended), said


def tcp():
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as one:
        one.connect(("127.0.0.1", 22))


def udp():
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as one:
        one.sendto(b"secret", ("::1", 53))


def unix():
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as one:
        one.bind("\0modelkeep-test")


def netlink():
    socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0).close()


def read_passwd():
    Path("/etc/passwd").read_bytes()


def read_keep():
    os.close(os.open(KEEP, os.O_RDONLY))


def list_root():
    list(Path("/").iterdir())


def fork_bomb():
    while True:
        os.fork()


def start_program():
    os.execv("/bin/true", ["true"])  # noqa: S606


def fill_disk():
    fd = os.open(tempfile.gettempdir() + "/filled", os.O_WRONLY | os.O_CREAT)
    while True:
        os.write(fd, bytes(1 << 20))


def fill_memory_file():
    fd = os.memfd_create("filled")
    while True:
        os.write(fd, bytes(1 << 20))


def trace_parent():
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.ptrace(16, os.getppid(), 0, 0) != 0:  # PTRACE_ATTACH
        raise OSError(ctypes.get_errno(), "ptrace")


def read_parent():
    libc = ctypes.CDLL(None, use_errno=True)
    got = libc.syscall(310, os.getppid(), 0, 0, 0, 0, 0)  # process_vm_readv
    if got < 0:
        raise OSError(ctypes.get_errno(), "process_vm_readv")


def kill_parent():
    os.kill(os.getppid(), signal.SIGTERM)


def new_namespace():
    if ctypes.CDLL(None, use_errno=True).unshare(0x10000000) != 0:
        raise OSError("unshare")


def executable_memory():
    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)


def much_memory():
    bytearray(10 << 30)


KEEP = ""
ATTACKS = (
    *(tcp, udp, unix, netlink, read_passwd, read_keep, list_root, fork_bomb, start_program),
    *(fill_disk, fill_memory_file, trace_parent, read_parent, kill_parent, new_namespace),
    *(executable_memory, much_memory),
)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda each: each.__name__)
def test_an_attack_from_within_fails(attack, tmp_path, monkeypatch):
    keep = tmp_path / "modelkeep.toml"
    keep.write_text("secret")
    keep.chmod(0o644)
    monkeypatch.setattr(sys.modules[__name__], "KEEP", str(keep))
    status, said = outcome(attack)
    assert REACHED not in said, "it got out"
    assert status <= 0
    assert said.startswith((b"PermissionError", b"OSError", b"MemoryError", b"BlockingIOError"))


@pytest.mark.parametrize("attack", [tcp, udp], ids=lambda each: each.__name__)
def test_without_the_filter_the_empty_namespace_and_landlock_hold(attack):
    on = {each.name for each in LinuxSandbox().explain(LIMITS_HERE, Grants()) if each.is_on}
    if NAMESPACES not in on:
        pytest.skip("this kernel gives no namespaces")
    _, said = outcome(attack, without=(CALLS,))
    assert REACHED not in said


@pytest.mark.parametrize("attack", [read_passwd, list_root, fill_disk], ids=lambda e: e.__name__)
@pytest.mark.parametrize("without", [(CALLS,), (FILES,), (NAMESPACES, FILES)], ids=str)
def test_files_stay_closed_whichever_of_two_measures_is_left(attack, without):
    assert REACHED not in outcome(attack, without=without)[1]


def test_a_job_that_spins_for_ever_is_killed_by_its_processor_time():
    def spin():
        while True:
            pass

    status, said = outcome(spin)
    assert (status, said) == (-signal.SIGXCPU, b"")


def test_a_job_that_ignores_the_signal_is_killed_all_the_same():
    def spin():
        signal.signal(signal.SIGXCPU, signal.SIG_IGN)
        while True:
            pass

    assert outcome(spin)[0] == -signal.SIGKILL


def test_a_locked_in_process_ends_with_its_parent():
    reading, writing = os.pipe()
    middle = os.fork()
    if middle == 0:
        if os.fork() == 0:
            LinuxSandbox().lock_in(Limits(memory_bytes=64 << 20, cpu_s=30), Grants())
            os.write(writing, b"r")  # closed: fails, and that is no matter
            time.sleep(60)
        time.sleep(0.3)
        os._exit(0)
    os.close(writing)
    os.waitpid(middle, 0)
    with os.fdopen(reading, "rb") as stream:
        started_s = time.monotonic()
        stream.read()  # ends when nobody holds the other end
    assert time.monotonic() - started_s < 10


def test_descriptors_that_were_not_granted_are_closed(tmp_path):
    secret, granted = tmp_path / "secret", tmp_path / "granted"
    for path in (secret, granted):
        path.write_bytes(b"content")
    with secret.open("rb") as one, granted.open("rb") as other:
        given = other.fileno()
        assert outcome(lambda: os.read(given, 9), descriptors=(given,))[1] == b"b'content'"
        taken = one.fileno()
        assert outcome(lambda: os.read(taken, 9), descriptors=(given,))[1].startswith(b"OSError")
        assert outcome(lambda: os.write(given, b"x"), descriptors=(given,))[1].startswith(b"OSErr")


def test_what_is_granted_to_read_can_be_read_and_nothing_else():
    with tempfile.TemporaryDirectory() as folder:  # another user cannot come into pytest's own
        Path(folder).chmod(0o711)
        model = Path(folder, "model")
        model.write_bytes(b"weights")
        model.chmod(0o644)
        assert outcome(model.read_bytes, readable=(folder,))[1] == b"b'weights'"
        assert REACHED not in outcome(read_passwd, readable=(folder,))[1]
        assert b"Error" in outcome(Path(folder, "more").touch, readable=(folder,))[1]
        Path(folder).chmod(0o777)  # whoever it becomes could write there
        assert b"Error" in outcome(Path(folder, "more").touch, readable=(folder,))[1]


def test_threads_where_they_are_granted_and_processes_never():
    def threads():
        one = threading.Thread(target=lambda: None)
        one.start()
        one.join()

    wide = Limits(memory_bytes=256 << 20, cpu_s=5, processes=1000)
    assert outcome(threads, threads=True, limits=wide)[1] == REACHED
    assert b"Error" in outcome(threads, limits=wide)[1]
    assert b"Error" in outcome(fork_bomb, threads=True, limits=wide)[1]


def test_sockets_that_are_there_work_where_they_are_granted_and_new_ones_never():
    own, its = socket.socketpair()
    fd = its.fileno()

    def send():
        its.send(b"answer")

    assert outcome(send, sockets=True, descriptors=(fd,))[1] == REACHED
    assert own.recv(10) == b"answer"
    assert REACHED not in outcome(send, descriptors=(fd,))[1]
    assert REACHED not in outcome(tcp, sockets=True, descriptors=(fd,))[1]
    own.close()
    its.close()


@pytest.mark.parametrize("given", [{"sockets": True}, {"readable": ("/nowhere",)}], ids=str)
def test_a_descriptor_cannot_be_made_to_signal_anybody(given):
    own, its = socket.socketpair()
    fd = its.fileno()

    def flags():
        fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_NONBLOCK)
        fcntl.fcntl(fd, fcntl.F_SETFD, fcntl.fcntl(fd, fcntl.F_GETFD))

    assert outcome(flags, descriptors=(fd,), **given)[1] == REACHED
    parent = os.getpid()
    for call, value in ((fcntl.F_SETOWN, parent), (10, signal.SIGTERM), (1030, 50)):
        _, said = outcome(lambda c=call, v=value: fcntl.fcntl(fd, c, v), descriptors=(fd,), **given)
        assert said.startswith(b"PermissionError"), (call, said)
    own.close()
    its.close()


def test_what_is_demanded_and_cannot_be_had_refuses():
    for name in (CALLS, FILES):
        _, said = outcome(lambda: None, without=(CALLS, FILES, NAMESPACES), demanded=(name,))
        assert said.startswith(b"UnavailableError"), said
    assert outcome(lambda: None, demanded=(PRIVILEGES, LIMITS, DESCRIPTORS, CALLS))[1] == REACHED
    with pytest.raises(UnavailableError):
        BareSandbox().lock_in(LIMITS_HERE, Grants(demanded=(NETWORK,)))


def test_everything_is_explained_and_what_is_left_out_is_said():
    found = LinuxSandbox().explain(LIMITS_HERE, Grants())
    assert [each.name for each in found] == list(MEASURES)
    less = LinuxSandbox(without=(CALLS, NAMESPACES)).explain(LIMITS_HERE, Grants())
    off = {each.name for each in less if not each.is_on}
    assert {CALLS, NETWORK} <= off
    bare = BareSandbox().explain(LIMITS_HERE, Grants())
    assert {each.name for each in bare if each.is_on} == {LIMITS, DESCRIPTORS}


def test_this_process_is_as_free_as_before():
    """Everything above happened in children."""
    assert resource.getrlimit(resource.RLIMIT_NPROC)[0] != 0
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close()


def test_a_filter_is_short_and_every_jump_stays_within_it():
    processor = this_processor()
    if processor is None:
        pytest.skip("this processor has no row")
    for grants in (Grants(), Grants(threads=True, sockets=True, readable=("/",), executable=True)):
        program = filter_program(processor, grants)
        assert len(program) < 400
        for at, (code, yes, no, _) in enumerate(program):
            if code & 7 == 5:
                assert max(yes, no) + at + 1 < len(program)
        assert program[-1][0] == 6
