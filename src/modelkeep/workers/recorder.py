"""The recorder process: the ledger's only writer while the service runs.

    python -m modelkeep.workers.recorder --plan-fd N

One loop, one thread: it reads requests from the inherited listening socket, appends everything
that has arrived meanwhile with one fsync (group commit), and answers each request with the index
of its first entry, never before that is durable. Every quarter second it commits what is new in
the call journals; now and then it lets go of call records that were kept long enough, and says
how far all journals are covered. Checkpoints are made and carried to the stores by the threads of
`publishing`.

When the disk is full, the reserve beside the write-ahead journal is given up: control entries go on
being recorded, gateways see it and refuse calls (`ledger.full`). Each second the loop tries to take
the room again; both turns are entries (`ledger.full`, `ledger.room`).

It ends when its lifeline becomes readable (the supervisor is gone) or on SIGTERM, after a last
append and publication. SIGKILL at any moment loses nothing that was acknowledged.

Bounds: connections, bytes of a request, one request per connection at a time, seconds that a
connection may idle. A reply that a client does not take is dropped with its connection.
"""

from __future__ import annotations

import argparse
import selectors
import signal
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from modelkeep.adapters.checkpoint_signer import RemoteSigner
from modelkeep.adapters.disk import RealDisk
from modelkeep.adapters.journal_file import JournalFile
from modelkeep.adapters.locks import sole_writer
from modelkeep.adapters.recorder_client import (
    LENGTH_BYTES,
    MESSAGE_BYTES_MAX,
    RecordReply,
    RecordRequest,
    framed,
)
from modelkeep.core.entry import Entry
from modelkeep.core.errors import IntegrityError, KeepError, UnavailableError, UsageError
from modelkeep.core.record import from_msgpack
from modelkeep.crypto.secret import Secret
from modelkeep.flows.alive import state_alive
from modelkeep.flows.ledger import Sequencer
from modelkeep.flows.ledger_read import Coverage, LogAccess, covered_positions
from modelkeep.ledger.settings import LedgerSettings
from modelkeep.wiring import served_store, system_clock, system_entropy
from modelkeep.workers.plan import RecorderPlan, read_fd, recorder_plan
from modelkeep.workers.posting import Posting
from modelkeep.workers.publishing import News, Publishers, say
from modelkeep.workers.tailing import ACTOR, CallTails

CONNECTIONS_MAX = 64
IDLE_S_MAX = 30.0
RECEIVE_BYTES = 256 * 1024
LAST_PUBLISH_S_MAX = 5.0
LAST_REPLICATE_S_MAX = 3.0
LAST_POST_S_MAX = 1.0
RETENTION_S = 60.0
RESTORE_S = 1.0
# Entries that may wait for a checkpoint before the loop leaves the processor to publishing, for
# this long a round, and longer the more wait. What waits is in memory: 64 MiB hold three times
# this.
BACKLOG_MAX = 65_536
BACKLOG_PAUSE_S = 0.01
BACKLOG_PAUSE_S_MAX = 0.1
# Threads publish beside the loop; it must not wait 5 ms (CPython's default) for its turn.
SWITCH_S = 0.0005


@dataclass(slots=True)
class _Connection:
    """One client, and what it has sent of its request."""

    socket: socket.socket
    heard_s: float
    received: bytearray = field(default_factory=bytearray)


@dataclass(frozen=True, slots=True)
class _Request:
    connection: _Connection
    entries: tuple[Entry, ...]


class Recorder:
    """The loop."""

    def __init__(self, plan: RecorderPlan, *, settings: LedgerSettings) -> None:
        self._plan = plan
        self._settings = settings
        self._clock = system_clock()
        self._body_key = Secret(read_fd(plan.body_key_fd))
        self._signer = RemoteSigner(plan.sign_fd)
        self._stores = tuple(served_store(each, keep_id=plan.keep_id) for each in plan.stores)
        self._wal = JournalFile(
            RealDisk(),
            Path(plan.wal_folder),
            segment_bytes_max=settings.wal_segment_bytes_max,
            reserve_bytes=settings.reserve_bytes,
            writable=True,
        )
        self._sequencer = Sequencer(
            origin=plan.origin,
            journal=self._wal,
            stores=self._stores,
            signer=self._signer,
            body_key=self._body_key,
            entropy=system_entropy(),
            settings=settings,
        )
        self._publishers = Publishers(
            self._sequencer, gather_s=settings.publish_interval_s / 2, alive=self._state_alive
        )
        self._posting = Posting(
            self._stores[0],
            origin=plan.origin,
            public=self._signer.public,
            settings=settings.witness,
            root=Path(plan.journals_folder).parent,
        )
        self._tails = CallTails(
            Path(plan.journals_folder),
            covered=self._covered,
            settings=settings,
        )
        self._was_full = False  # a start says again that the disk is full
        self._restore_s = self._expire_s = 0.0
        self._listener = socket.socket(fileno=plan.listen_fd)
        self._connections: dict[int, _Connection] = {}
        self._selector = selectors.DefaultSelector()
        self._is_ending = False

    def run(self) -> None:
        """Record until the end is asked for; then record and publish the rest."""
        ears, mouth = socket.socketpair()
        for each in (self._listener, ears, mouth):
            each.settimeout(0)
        signal.signal(signal.SIGTERM, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the supervisor's business
        signal.set_wakeup_fd(mouth.fileno())
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(ears, selectors.EVENT_READ)
        self._selector.register(self._plan.lifeline_fd, selectors.EVENT_READ)
        self._publishers.start()
        self._posting.start()
        due_s = time.monotonic()
        while not self._is_ending:
            requests = self._heard(max(due_s - time.monotonic(), 0.0))
            self._record(requests)
            self._leave_room_to_publish()
            if time.monotonic() >= due_s:
                self._record_own()
                self._drop_idle()
                due_s = time.monotonic() + self._settings.batch_interval_s
        self._end()

    def _leave_room_to_publish(self) -> None:
        """Slow down when more is recorded than published; never for a store that fails."""
        backlog = self._sequencer.size - self._sequencer.published_size
        if backlog > BACKLOG_MAX and self._publishers.is_carrying(0):
            time.sleep(min(BACKLOG_PAUSE_S * backlog / BACKLOG_MAX, BACKLOG_PAUSE_S_MAX))

    def _end(self) -> None:
        self._record(self._heard(0.0))
        self._record_own()
        self._publishers.stop(first_s=LAST_PUBLISH_S_MAX, others_s=LAST_REPLICATE_S_MAX)
        self._posting.stop(LAST_POST_S_MAX)
        for connection in tuple(self._connections.values()):
            self._drop(connection)
        self._wal.close()

    def _state_alive(self, number: int, size: int, at_ns: int) -> None:
        state_alive(
            self._stores[number],
            origin=self._plan.origin,
            size=size,
            at_ns=at_ns,
            signer=self._signer,
        )

    def _covered(self) -> Coverage:
        access = LogAccess(
            store=self._stores[0],
            origin=self._plan.origin,
            public=self._signer.public,
            body_key=self._body_key,
            journal=self._wal,
        )
        return covered_positions(access)

    # -- what others record -------------------------------------------------------------------

    def _heard(self, wait_s: float) -> list[_Request]:
        """Wait for something to happen; the requests that are complete now."""
        requests = []
        for key, _ in self._selector.select(wait_s):
            if key.fileobj is self._listener:
                self._accept()
            elif isinstance(key.data, _Connection):
                request = self._received(key.data)
                if request is not None:
                    requests.append(request)
            else:
                self._is_ending = True  # SIGTERM, or the supervisor is gone
        return requests

    def _accept(self) -> None:
        while len(self._connections) < CONNECTIONS_MAX:
            try:
                client, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                say(f"a connection was lost: {error.strerror}")
                return
            client.settimeout(0)
            connection = _Connection(client, time.monotonic())
            self._connections[client.fileno()] = connection
            self._selector.register(client, selectors.EVENT_READ, connection)
        self._selector.unregister(self._listener)  # until one of them is done

    def _received(self, connection: _Connection) -> _Request | None:
        """Read what a client sent; its request when that is complete."""
        try:
            part = connection.socket.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return None
        except OSError:
            part = b""
        connection.heard_s = time.monotonic()
        connection.received += part
        length = int.from_bytes(connection.received[:LENGTH_BYTES], "big")
        surplus = len(connection.received) - LENGTH_BYTES - length
        is_started = len(connection.received) >= LENGTH_BYTES
        if not part or (is_started and (length > MESSAGE_BYTES_MAX or surplus > 0)):
            self._drop(connection)  # closed, too long, or a second request before the first answer
            return None
        if not is_started or surplus < 0:
            return None
        raw = bytes(connection.received[LENGTH_BYTES:])
        connection.received.clear()
        try:
            request = from_msgpack(RecordRequest, raw, what="a request to record")
        except IntegrityError as error:
            self._reply(connection, RecordReply(code=error.code, message=error.message))
            return None
        return _Request(connection, request.entries)

    def _record(self, requests: Sequence[_Request]) -> None:
        """Append all requests with one fsync, then answer each."""
        if not requests:
            return
        try:
            at = self._sequencer.append([entry for each in requests for entry in each.entries])
        except UsageError as error:
            if len(requests) == 1:
                self._refuse(requests, error)
                return
            for request in requests:  # one of them is at fault; the others must not suffer
                self._record([request])
            return
        except KeepError as error:
            self._refuse(requests, error)
            return
        for request in requests:
            self._reply(request.connection, RecordReply(first=at))
            at += len(request.entries)
        self._publishers.wake()

    def _refuse(self, requests: Sequence[_Request], error: KeepError) -> None:
        say(str(error))
        for request in requests:
            self._reply(request.connection, RecordReply(code=error.code, message=error.message))

    def _reply(self, connection: _Connection, reply: RecordReply) -> None:
        message = framed(reply)
        try:
            sent = connection.socket.send(message)
        except OSError:
            sent = 0
        if sent != len(message):
            self._drop(connection)

    def _drop(self, connection: _Connection) -> None:
        was_full = len(self._connections) >= CONNECTIONS_MAX
        if self._connections.pop(connection.socket.fileno(), None) is None:
            return
        self._selector.unregister(connection.socket)
        connection.socket.close()
        if was_full:
            self._selector.register(self._listener, selectors.EVENT_READ)

    def _drop_idle(self) -> None:
        oldest_s = time.monotonic() - IDLE_S_MAX
        for connection in tuple(self._connections.values()):
            if connection.heard_s < oldest_s:
                self._drop(connection)

    # -- what it records itself ---------------------------------------------------------------

    def _record_own(self) -> None:
        """Commit what is new in the call journals, and what is new about the stores."""
        now_ns = self._clock.now_ns()
        news = [*self._publishers.news(), *self._room_news()]
        entries = [
            Entry(kind=kind, at_ns=now_ns, actor=ACTOR, facts=dict(facts)) for kind, facts in news
        ]
        try:
            steps = self._tails.steps(now_ns)
            entries += [step.entry for step in steps]
            if entries:
                self._sequencer.append(entries)
                self._tails.done(steps)
            if self._keep_journals(now_ns) or entries:
                self._publishers.wake()
        except (UnavailableError, IntegrityError) as error:
            say(str(error))  # the journals keep their records; the next round commits them

    def _keep_journals(self, now_ns: int) -> bool:
        """Say how far all journals are covered, and let go of old segments, when it is time."""
        covered = self._tails.coverage(now_ns, size=self._sequencer.size)
        if covered is not None:
            self._tails.covered_at = self._sequencer.append([covered])
        if time.monotonic() < self._expire_s:
            return covered is not None
        self._expire_s = time.monotonic() + RETENTION_S
        expiries = self._tails.expiries(now_ns)
        if expiries:
            self._sequencer.append([each.entry for each in expiries])
            self._tails.let_go(expiries)
        return covered is not None or bool(expiries)

    def _room_news(self) -> list[News]:
        """Try to take the reserve again; what changed about the disk's room since the last time."""
        is_full = self._wal.is_out_of_room()
        if is_full and time.monotonic() >= self._restore_s:
            self._restore_s = time.monotonic() + RESTORE_S
            is_full = not self._wal.restore_room()
        if is_full == self._was_full:
            return []
        self._was_full = is_full
        kind = "ledger.full" if is_full else "ledger.room"
        say(f"{kind}: {'calls are refused' if is_full else 'calls are taken'}")
        return [(kind, {})]


def main(arguments: Sequence[str]) -> int:
    """Read the plan, record until the end."""
    parser = argparse.ArgumentParser(prog="modelkeep.workers.recorder")
    parser.add_argument("--plan-fd", type=int, required=True)
    sys.setswitchinterval(SWITCH_S)
    plan = recorder_plan(parser.parse_args(arguments).plan_fd)
    try:
        with sole_writer(Path(plan.wal_folder)):
            Recorder(plan, settings=plan.settings).run()
    except KeepError as error:
        say(f"{error}; {error.hint}" if error.hint else str(error))
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
