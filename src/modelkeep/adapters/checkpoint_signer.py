"""The ledger's signing key where somebody else holds it: both ends of the socket to the keyholder.

One message is one packet. A request is its number (u64), a letter and what is to be signed; the
reply is that number and the answer, which is empty when the keyholder refuses. Numbers let a
recorder that was started again tell its own replies from what its predecessor still had coming.
"""

from __future__ import annotations

import os
import socket
import threading

from modelkeep.core.errors import RefusedError, UnavailableError
from modelkeep.crypto.signatures import SIGNATURE_BYTES

ANSWER_S_MAX = 5.0
MESSAGE_BYTES_MAX = 4096
NUMBER_BYTES = 8
ASK_PUBLIC = b"p"
SIGN_CHECKPOINT = b"c"
SIGN_ALIVE = b"a"
ALIVE_CONTEXT = "series/alive"


def signing_pair() -> tuple[int, int]:
    """Two connected sockets: the recorder's descriptor and the keyholder's."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return ours.detach(), its.detach()


class RemoteSigner:
    """Signs what the keyholder agrees to sign; has the shape of `crypto.signatures.Signer`."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lock = threading.Lock()  # a thread per store publishes
        self._number = int.from_bytes(os.urandom(NUMBER_BYTES - 1), "big")
        self.public = self._answer(ASK_PUBLIC, b"")

    def sign(self, message: bytes, *, context: str) -> bytes:
        """Sign a statement that a store is up to date; nothing else is signed under a context.

        Raises:
            RefusedError: `keyholder.refused`.
            UnavailableError: `keyholder.lost`.
        """
        if context != ALIVE_CONTEXT:
            raise RefusedError("keyholder.refused", f"the keyholder does not sign {context}")
        return self._signature(SIGN_ALIVE, message)

    def sign_bare(self, message: bytes) -> bytes:
        """Sign a checkpoint.

        Raises:
            RefusedError: `keyholder.refused`, when it does not go on from the last one.
            UnavailableError: `keyholder.lost`.
        """
        return self._signature(SIGN_CHECKPOINT, message)

    def _signature(self, letter: bytes, message: bytes) -> bytes:
        signature = self._answer(letter, message)
        if len(signature) != SIGNATURE_BYTES:
            raise RefusedError(
                "keyholder.refused",
                "the keyholder refuses to sign: the log does not go on from what it signed last",
                hint="something rewrote the log; `modelkeep ledger verify`",
            )
        return signature

    def _answer(self, letter: bytes, message: bytes) -> bytes:
        with self._lock:
            self._number += 1
            return self._exchange(self._number.to_bytes(NUMBER_BYTES, "big"), letter + message)

    def _exchange(self, number: bytes, request: bytes) -> bytes:
        with socket.socket(fileno=os.dup(self._fd)) as connection:
            connection.settimeout(ANSWER_S_MAX)
            try:
                connection.send(number + request)
                while True:
                    reply = connection.recv(MESSAGE_BYTES_MAX)
                    if not reply:
                        raise ConnectionResetError("it closed the connection")
                    if reply[:NUMBER_BYTES] == number:
                        return reply[NUMBER_BYTES:]
            except OSError as error:
                raise UnavailableError(
                    "keyholder.lost",
                    f"the keyholder does not answer: {error}",
                    hint="restart the service",
                ) from error
