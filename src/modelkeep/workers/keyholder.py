"""The keyholder: the only process that sees a key-encryption key or the root.

It serves one parent over an inherited socket: unlock a keyring, lock one, split the way to it; see
`ports.keyholder`. For a service it also signs checkpoints, over a second socket: then the signing
key is in no process that talks to anybody else. It signs a checkpoint only if it is of the log
that it signed before and no smaller, and of one size it signs one root only. So a recorder that
was taken over cannot take the key away, nor have it sign that less happened. A larger log with
another past it can have signed: whoever saw an earlier checkpoint finds that.

It ends when its parent's end of the socket closes. It speaks to its key source and to nobody else,
and has an empty environment, no core dumps, and memory that is locked where the kernel allows it.

`python -m modelkeep.workers.keyholder --fd N [--sign-fd M]`
"""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import signal
import socket
import sys
from dataclasses import dataclass

from modelkeep.adapters.checkpoint_signer import (
    ALIVE_CONTEXT,
    ASK_PUBLIC,
    MESSAGE_BYTES_MAX,
    NUMBER_BYTES,
    SIGN_ALIVE,
    SIGN_CHECKPOINT,
)
from modelkeep.adapters.hardening import hardened
from modelkeep.adapters.keyholder_local import local_keyholder
from modelkeep.adapters.keyholder_process import Hello, Reply, Request, received, send
from modelkeep.adapters.system import SystemEntropy
from modelkeep.core.errors import KeepError, UsageError
from modelkeep.crypto.hierarchy import keep_keys
from modelkeep.crypto.secret import Secret
from modelkeep.crypto.signatures import Signer
from modelkeep.ledger.checkpoint import parsed_tree_head
from modelkeep.ports.keyholder import Keyholder, Means

EXIT_PROTOCOL = 65
EXIT_BUG = 70


@dataclass(slots=True)
class CheckpointKey:
    """The signing key, with the last tree head that it signed."""

    signer: Signer
    origin: str = ""
    size: int = 0
    root: bytes = b""

    def answer(self, letter: bytes, message: bytes) -> bytes:
        """Sign what may be signed; nothing otherwise."""
        if letter == ASK_PUBLIC:
            return self.signer.public
        if letter == SIGN_ALIVE:
            return self.signer.sign(message, context=ALIVE_CONTEXT)
        return self._checkpoint(message) if letter == SIGN_CHECKPOINT else b""

    def _checkpoint(self, text: bytes) -> bytes:
        try:
            origin, size, root = parsed_tree_head(text)
        except KeepError:
            return b""
        goes_on = not self.origin or (
            origin == self.origin and size >= self.size and (size > self.size or root == self.root)
        )
        if not goes_on:
            return b""
        self.origin, self.size, self.root = origin, size, root
        return self.signer.sign_bare(text)


def main(arguments: list[str] | None = None) -> int:
    """Serve until the parent is gone."""
    parser = argparse.ArgumentParser(prog="modelkeep keyholder")
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--sign-fd", type=int, default=-1)
    options = parser.parse_args(arguments)
    for number in (signal.SIGINT, signal.SIGTERM):  # it ends with its parent, not before
        signal.signal(number, signal.SIG_IGN)
    hardened()
    with socket.socket(fileno=options.fd) as parent, contextlib.ExitStack() as stack:
        signing = None
        if options.sign_fd >= 0:
            signing = stack.enter_context(socket.socket(fileno=options.sign_fd))
        return _conversation(parent, signing)


def _conversation(parent: socket.socket, signing: socket.socket | None) -> int:
    """From the first message to the end; nothing that was said shows in how it ends."""
    try:
        hello = received(parent, Hello)
        if hello is None:
            return 0
        with contextlib.closing(local_keyholder(_means(hello), entropy=SystemEntropy())) as holder:
            return _served(parent, signing, holder)
    except ConnectionError:
        return 0  # the parent is gone
    except (KeepError, OSError):
        return _ended(EXIT_PROTOCOL, "what came is no message")
    except Exception as error:  # noqa: BLE001  # a worker loop: a traceback may quote secrets
        return _ended(EXIT_BUG, f"a bug: {type(error).__name__}")


def _ended(status: int, why: str) -> int:
    sys.stderr.write(f"modelkeep keyholder: {why}\n")
    return status


def _means(hello: Hello) -> Means:
    return Means(
        source=hello.source,
        passphrase=None if hello.passphrase is None else Secret(hello.passphrase),
        words=hello.words,
        identity=None if hello.identity is None else Secret(hello.identity),
        argon2=hello.argon2,
    )


def _served(parent: socket.socket, signing: socket.socket | None, holder: Keyholder) -> int:
    """Answer until the parent's end closes."""
    key: CheckpointKey | None = None
    while True:
        sources = [parent, signing] if signing is not None and key is not None else [parent]
        ready, _, _ = select.select(sources, [], [])
        if parent in ready:
            request = received(parent, Request)
            if request is None:
                return 0
            reply = _reply(holder, request)
            if reply.body is not None:
                seed = keep_keys(Secret(reply.body.identity)).ledger_seed
                key = key or CheckpointKey(Signer(seed))
            send(parent, reply)
        elif signing is not None and key is not None and not _signs(signing, key):
            signing = None


def _signs(signing: socket.socket, key: CheckpointKey) -> bool:
    """Answer one packet; False when nobody can ask any more."""
    try:
        packet = signing.recv(MESSAGE_BYTES_MAX)
        number, letter = packet[:NUMBER_BYTES], packet[NUMBER_BYTES : NUMBER_BYTES + 1]
        if letter:
            signing.send(number + key.answer(letter, packet[NUMBER_BYTES + 1 :]))
    except OSError:  # a recorder that ended does not wait for its answer
        return False
    return bool(packet)


def _reply(holder: Keyholder, request: Request) -> Reply:
    try:
        if request.call == "unlock":
            place, body = holder.unlock(request.rings)
            return Reply(place=place, body=body)
        if request.call == "lock" and request.body is not None:
            ring = holder.lock(
                request.body,
                keep_id=request.keep_id,
                number=request.number,
                holders=request.holders,
            )
            return Reply(ring=ring)
        if request.call == "split":
            return Reply(split=holder.split(threshold=request.threshold, total=request.total))
        raise UsageError("keyholder.call", "the keyholder does not know this request")
    except KeepError as error:
        return Reply(error=error.as_facts())


if __name__ == "__main__":
    status = main()
    sys.stderr.flush()
    os._exit(status)  # nothing is left to be done: taking the interpreter apart costs 15 ms
