"""A replica whose runtime was taken over: it is locked in like every other, and then attacks.

The number in a call says which attack of `ATTACKS` is tried; the answer says 1 if it got out and 0,
with the error's number, if it was stopped. Started as a replica is: `--plan-fd N`, and
`--victim PID --keep FOLDER` to say whom and what to go for.
"""

from __future__ import annotations

import argparse
import ctypes
import errno
import fcntl
import mmap
import os
import resource
import select
import signal
import socket
import struct
import sys
import threading
import time
from pathlib import Path

import numpy as np

from modelkeep.workers import replica
from modelkeep.workers.locked_in import lock_in
from modelkeep.workers.plan import replica_plan

libc = ctypes.CDLL(None, use_errno=True)
VICTIM = 0
KEEP = ""
KEPT = []


def syscall(number, *words):
    """A system call that Python has no name for."""
    done = libc.syscall(number, *words)
    if done < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return done


def own_sockets():
    """The connected sockets, and the listening one, that this process has."""
    found = []
    for fd in range(3, 64):
        try:
            found.append(socket.socket(fileno=fd))
        except OSError:
            continue
    KEPT.extend(found)  # else they were closed
    return found


def tcp():
    socket.socket(socket.AF_INET, socket.SOCK_STREAM).connect(("127.0.0.1", 22))


def tcp6():
    socket.socket(socket.AF_INET6, socket.SOCK_STREAM)


def udp():
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"secret", ("127.0.0.1", 53))


def raw_packets():
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)


def netlink():
    socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)


def vsock():
    socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)


def unix_recorder():
    socket.socket(socket.AF_UNIX, socket.SOCK_STREAM).connect(f"{KEEP}/run/recorder.sock")


def unix_pair():
    socket.socketpair()


def abstract_unix():
    socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).bind("\0modelkeep-attack")


def connect_what_is_there():
    for one in own_sockets():
        one.connect(f"{KEEP}/run/recorder.sock")


def send_to_another_address():
    for one in own_sockets():
        if one.sendto(b"x", f"{KEEP}/run/recorder.sock"):
            return


def stop_listening_for_all():
    for one in own_sockets():
        one.shutdown(socket.SHUT_RDWR)


def read_settings():
    Path(KEEP, "modelkeep.toml").read_bytes()


def read_state():
    os.close(os.open(f"{KEEP}/state.db", os.O_RDONLY))


def write_state():
    os.close(os.open(f"{KEEP}/state.db", os.O_WRONLY | os.O_CREAT, 0o600))


def list_keep():
    list(Path(KEEP).iterdir())


def remove_state():
    Path(KEEP, "state.db").unlink()


def read_passwords():
    os.close(os.open("/etc/passwd", os.O_RDONLY))


def read_victims_memory():
    os.close(os.open(f"/proc/{VICTIM}/mem", os.O_RDONLY))


def read_victims_descriptors():
    list(Path(f"/proc/{VICTIM}/fd").iterdir())


def read_victims_environment():
    os.close(os.open(f"/proc/{VICTIM}/environ", os.O_RDONLY))


def read_victim_by_call():
    room = ctypes.create_string_buffer(64)
    local = (ctypes.c_size_t * 2)(ctypes.addressof(room), 64)
    remote = (ctypes.c_size_t * 2)(0x400000, 64)
    syscall(310, VICTIM, local, 1, remote, 1, 0)


def write_victim_by_call():
    room = ctypes.create_string_buffer(64)
    local = (ctypes.c_size_t * 2)(ctypes.addressof(room), 64)
    syscall(311, VICTIM, local, 1, local, 1, 0)


def trace_victim():
    syscall(101, 16, VICTIM, 0, 0)


def seize_victim():
    syscall(101, 0x4206, VICTIM, 0, 0)


def take_victims_descriptor():
    pidfd = syscall(434, VICTIM, 0)
    syscall(438, pidfd, 0, 0)


def signal_victim():
    os.kill(VICTIM, signal.SIGTERM)


def signal_parent():
    os.kill(os.getppid(), signal.SIGTERM)


def signal_all():
    os.kill(-1, signal.SIGTERM)


def queue_a_signal():
    syscall(129, VICTIM, signal.SIGTERM, ctypes.create_string_buffer(128))


def signal_by_descriptor():
    for fd in range(3, 64):
        try:
            fcntl.fcntl(fd, fcntl.F_SETOWN, VICTIM)
        except OSError as error:
            if error.errno != errno.EBADF:
                raise
        else:
            return


def fork_bomb():
    while True:
        if os.fork() == 0:
            time.sleep(30)


def start_program():
    os.execv("/bin/sh", ["sh", "-c", "true"])  # noqa: S606 - it must not start


def thread_bomb():
    many = 0
    threading.stack_size(16 << 20)
    try:
        while many < 20_000:
            threading.Thread(target=time.sleep, args=(1,), daemon=True).start()
            many += 1
    except (RuntimeError, MemoryError) as error:
        time.sleep(1.5)  # until they have ended
        raise OSError(errno.EAGAIN, str(error)) from error


def much_memory():
    taken = []
    while True:
        taken.append(mmap.mmap(-1, 256 << 20))  # of addresses: the test leaves others their memory


def lift_the_limits():
    try:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    except ValueError as error:  # so Python says EPERM here
        raise PermissionError(errno.EPERM, str(error)) from error


def fill_a_disk():
    fd = os.open(f"{KEEP}/filled", os.O_WRONLY | os.O_CREAT, 0o600)
    while True:
        os.write(fd, bytes(1 << 20))


def fill_a_memory_file():
    fd = os.memfd_create("filled")
    while True:
        os.write(fd, bytes(1 << 20))


def fill_the_log():
    for _ in range(8):
        os.write(2, b"." * (1 << 20))


def change_the_model():
    for fd in range(3, 64):
        try:
            os.pwrite(fd, b"changed", 0)
        except OSError as error:
            if error.errno in (errno.EBADF, errno.ESPIPE, errno.ENXIO, errno.EINVAL):
                continue
            raise
        else:
            return
    raise OSError(errno.EPERM, "nothing can be written")


def executable_memory():
    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)


def executable_later():
    room = libc.mmap
    room.restype = ctypes.c_void_p
    address = room(None, ctypes.c_size_t(4096), 3, 0x22, -1, ctypes.c_size_t(0))
    if libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(4096), 5) != 0:
        raise OSError(ctypes.get_errno(), "mprotect")


def new_namespace():
    syscall(272, 0x10000000)


def mount_a_disk():
    syscall(165, b"none", b"/", b"tmpfs", 0, 0)


def load_into_the_kernel():
    syscall(321, 0, ctypes.create_string_buffer(120), 120)


def io_uring():
    syscall(425, 8, ctypes.create_string_buffer(120))


def type_into_the_terminal():
    fcntl.ioctl(2, 0x5412, struct.pack("c", b"x"))


def userfault():
    syscall(323, 0)


def kernel_keys():
    syscall(250, 0, -3, 1)


def become_root():
    os.setuid(0)


def hand_over_descriptors():
    """To the gateway: it must not keep them."""
    sent = 0
    for one in own_sockets():
        try:
            socket.send_fds(one, [b""], [0, 1])
            sent += 1
        except OSError:
            continue
    raise OSError(errno.EPERM, f"{sent} sent, and nobody takes them")


ATTACKS = (
    *(tcp, tcp6, udp, raw_packets, netlink, vsock, unix_recorder, unix_pair, abstract_unix),
    *(connect_what_is_there, send_to_another_address, stop_listening_for_all),
    *(read_settings, read_state, write_state, list_keep, remove_state, read_passwords),
    *(read_victims_memory, read_victims_descriptors, read_victims_environment),
    *(read_victim_by_call, write_victim_by_call, trace_victim, seize_victim),
    *(take_victims_descriptor, signal_victim, signal_parent, signal_all, queue_a_signal),
    *(signal_by_descriptor, fork_bomb, start_program, thread_bomb, much_memory, lift_the_limits),
    *(fill_a_disk, fill_a_memory_file, fill_the_log, change_the_model, executable_memory),
    *(executable_later, new_namespace, mount_a_disk, load_into_the_kernel, io_uring),
    *(type_into_the_terminal, userfault, kernel_keys, become_root, hand_over_descriptors),
)


class Malicious:
    """The runtime that was taken over."""

    def answer(self, inputs):
        """Try the attack of that number."""
        attack = ATTACKS[int(inputs["x"][0, 0])]
        try:
            attack()
        except (OSError, MemoryError) as error:
            number = getattr(error, "errno", None) or errno.ENOMEM
            return {"y": np.array([[0.0, number]], np.float32)}
        except Exception as error:  # noqa: BLE001 - it was not even tried: a fault of the test
            os.write(2, f"{attack.__name__}: {error!r}\n".encode())
            return {"y": np.array([[0.0, 0.0]], np.float32)}
        return {"y": np.array([[1.0, 0.0]], np.float32)}


def main():
    """As `workers.replica`, with another runtime."""
    global VICTIM, KEEP
    parser = argparse.ArgumentParser()
    parser.add_argument("--plan-fd", type=int, required=True)
    parser.add_argument("--victim", type=int, required=True)
    parser.add_argument("--keep", required=True)
    options = parser.parse_args()
    VICTIM, KEEP = options.victim, options.keep
    plan = replica_plan(options.plan_fd)
    select.select([], [], [], 0)
    fds = (plan.model_fd, plan.listen_fd, plan.lifeline_fd)
    lock_in("bad:1", os.fstat(plan.model_fd).st_size, fds)
    replica.Replica(plan, Malicious()).run()
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
