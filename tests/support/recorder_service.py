"""What a supervisor holds for a recorder: socket, keys, stores, and somebody who signs."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import modelkeep
from modelkeep.adapters.checkpoint_signer import MESSAGE_BYTES_MAX, NUMBER_BYTES, signing_pair
from modelkeep.adapters.recorder_client import RecorderClient
from modelkeep.adapters.store_folder import FolderStore
from modelkeep.adapters.store_settings import StoreSettings
from modelkeep.core.record import replaced, to_json
from modelkeep.crypto.secret import Secret
from modelkeep.crypto.signatures import Signer
from modelkeep.flows.ledger_read import LogAccess
from modelkeep.ledger.settings import LedgerSettings
from modelkeep.ledger.verify import verified_log
from modelkeep.workers.keyholder import CheckpointKey
from modelkeep.workers.plan import RecorderPlan

ORIGIN = "example.org/keep/main"
SEED, BODY_KEY = b"s" * 32, b"b" * 32
PUBLIC = Signer(Secret(SEED)).public
SOURCES = str(Path(modelkeep.__file__).parent.parent)


def memory_file(name, raw):
    fd = os.memfd_create(name)
    os.write(fd, raw)
    return fd


class Service:
    """A recorder that can be started, killed and started again over one folder."""

    def __init__(self, folder, *, labels=("main", "offsite"), settings=None):
        self.folder = folder
        self.run_folder = folder / ("deep" * 25) / "run"
        self.run_folder.mkdir(parents=True)
        folder_fd = os.open(self.run_folder, os.O_RDONLY)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(f"/proc/self/fd/{folder_fd}/recorder.sock")
        self.listener.listen(64)
        os.close(folder_fd)
        self.lifeline, self.lifeline_held = os.pipe()
        self.sign_fd, its = signing_pair()
        self.signs = socket.socket(fileno=its)
        self.signing = threading.Thread(target=self._sign, daemon=True)
        self.signing.start()
        self.body_key = memory_file("body-key", BODY_KEY)
        self.plan = RecorderPlan(
            listen_fd=self.listener.fileno(),
            lifeline_fd=self.lifeline,
            sign_fd=self.sign_fd,
            body_key_fd=self.body_key,
            origin=ORIGIN,
            wal_folder=str(folder / "wal"),
            journals_folder=str(folder / "journals"),
            stores=tuple(StoreSettings(label=label, path=str(folder / label)) for label in labels),
            settings=settings or LedgerSettings(reserve_bytes=64 * 1024),
        )
        self.process = None

    def _sign(self):
        """The keyholder's part, with its own refusal to sign a rollback or a fork."""
        key = CheckpointKey(Signer(Secret(SEED)))
        while packet := self.signs.recv(MESSAGE_BYTES_MAX):
            number, rest = packet[:NUMBER_BYTES], packet[NUMBER_BYTES:]
            self.signs.send(number + key.answer(rest[:1], rest[1:]))

    def start(self, **changes):
        plan_fd = memory_file("plan", to_json(replaced(self.plan, **changes)))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "modelkeep.workers.recorder", "--plan-fd", str(plan_fd)],
            pass_fds=(
                self.listener.fileno(),
                self.lifeline,
                self.sign_fd,
                self.body_key,
                plan_fd,
            ),
            env={"PYTHONPATH": SOURCES},
        )
        os.close(plan_fd)
        return self

    def ended(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        return self.process.wait(20)

    def client(self, timeout_s=20.0):
        return RecorderClient(self.run_folder, timeout_s=timeout_s)

    def store(self, label):
        return FolderStore(self.folder / label, label)

    def access(self, label="main", journal=None):
        return LogAccess(self.store(label), ORIGIN, PUBLIC, Secret(BODY_KEY), journal)

    def report(self, label):
        return verified_log(
            self.store(label), origin=ORIGIN, public=PUBLIC, body_key=Secret(BODY_KEY)
        )

    def close(self):
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.listener.close()
        self.signs.shutdown(socket.SHUT_RDWR)
        self.signing.join()
        self.signs.close()
        for fd in {self.lifeline, self.sign_fd, self.body_key}:
            os.close(fd)
        if self.lifeline_held >= 0:
            os.close(self.lifeline_held)
