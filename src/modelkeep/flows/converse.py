"""A call of a language model, answered whole or in parts, through the same table as every other.

Whole: as a tensor call; the texts are gathered, checked, rendered, recorded, sent.

A stream:
 1. Its intent is queued for the journal and its replica is asked, at the same time.
 2. Nothing leaves before the intent is durable and the first piece is there: until then an error is
    an ordinary refusal with its own status.
 3. Parts leave as pieces come; each is hashed into the commitment of the answer.
 4. The last part is held back until the call's record is durable: it says that the stream is whole,
    how many tokens it has, and its receipt.
 5. A replica that fails in the middle ends the stream by an error in the protocol's form, recorded
    first; a caller that is gone ends it by a record with the code `client.gone`. Either way the
    replica is told to stop.

A replica is not trusted: choices, sizes and counts of what it says are checked and bounded.
"""

from __future__ import annotations

import math
import struct
from collections.abc import AsyncIterator, Awaitable
from typing import Protocol

from modelkeep.core.errors import IntegrityError, KeepError, UnavailableError, UsageError
from modelkeep.core.record import Row
from modelkeep.core.text import TextKind, TextRequest, encoded_request
from modelkeep.flows.call import Call, Rendered, Reply, Served, Ticket
from modelkeep.flows.serve import Serving
from modelkeep.gate.limits import demand_slot
from modelkeep.gate.passage import Step
from modelkeep.kernels.replica_frames import Piece, TextEnd

# Characters of all texts of one answer; a million tokens have about four each.
ANSWER_CHARS_MAX = 16 * 1024 * 1024
# Numbers of one vector; the largest embedding model known has 12,288.
VECTOR_NUMBERS_MAX = 65_536
# About; as where a server does not count.
BYTES_PER_TOKEN = 4
_REASONS = frozenset({"stop", "length"})


class TextAnswer(Row, frozen=True):
    """What a language model said, checked.

    Attributes:
        texts: one for each prompt and choice; empty for an embedding.
        reasons: why each ended: `stop` or `length`.
        vectors: of an embedding: one for each prompt.
        is_estimate: whether the counts of tokens are guesses.
    """

    texts: tuple[str, ...]
    reasons: tuple[str, ...]
    prompt_tokens: int
    completion_tokens: int
    vectors: tuple[tuple[float, ...], ...] = ()
    is_estimate: bool = False


class TextWork(Protocol):
    """One text call as its surface reads and writes it."""

    @property
    def body(self) -> bytes:
        """The exact bytes that were received."""
        ...

    @property
    def request(self) -> TextRequest:
        """What is asked."""
        ...

    def render(self, served: Served, answer: TextAnswer) -> Rendered:
        """Write a whole answer."""
        ...

    def part(self, served: Served, piece: Piece) -> bytes:
        """Write a part of a stream."""
        ...

    def last(self, served: Served, answer: TextAnswer) -> bytes:
        """Write what ends a stream; its `texts` are empty, they have left already."""
        ...

    def tail(self, receipt: str) -> bytes:
        """Write what follows the last part outside the commitment: the receipt."""
        ...

    def broken(self, error: KeepError) -> bytes:
        """Write what ends a stream that failed."""
        ...


async def converse(serving: Serving, call: Call, served: Served, work: TextWork) -> Reply:
    """Take a text call from KNOWN to RECORDED, whatever happens."""
    serving.in_flight += 1
    try:
        try:
            rendered = await _whole(serving, call, served, work)
        except KeepError as error:
            return await serving.refused(call, error, work.body)
        except Exception:
            await serving.refused(call, KeepError("serve.internal", "a bug"), work.body)
            raise
        except BaseException:  # cancelled: the caller is gone
            await serving.refused(call, _gone(), work.body)
            raise
        position = await serving.recorded(call, work.body, sent=rendered.body)
        return Reply(position, rendered, None)
    finally:
        serving.in_flight -= 1


async def opened(serving: Serving, call: Call, served: Served, work: TextWork) -> Reply | Stream:
    """Begin a stream: once this returns one, its parts may leave."""
    serving.in_flight += 1
    ticket: Ticket | None = None
    intent: Awaitable[int] | None = None
    try:
        ticket = await _entered(serving, call, served, work)
        serving.demand_still(call, served)
        call.passage.step(Step.JUDGE)
        pieces = serving.replicas.talk(served.name, served.version, encoded_request(work.request))
        intent = serving.announced(call, work.body)
        first = await anext(pieces)
    except BaseException as error:
        serving.in_flight -= 1
        if ticket is not None:
            ticket.leave(tokens=0 if isinstance(error, Exception) else _asked(work))
        if intent is not None:
            await _settled(intent)
        if isinstance(error, KeepError):
            return await serving.refused(call, error, work.body)
        gone = KeepError("serve.internal", "a bug")
        if not isinstance(error, Exception):
            gone = _gone()
        await serving.refused(call, gone, work.body)
        raise
    stream = Stream(serving, call, served, work, pieces=pieces, first=first, ticket=ticket)
    try:
        stream.position = await intent
    except BaseException as error:
        await stream.abandoned(is_lost=isinstance(error, KeepError))
        raise
    call.passage.step(Step.OPEN)
    return stream


class Stream:
    """A stream that is open; iterate once, and close it (`aclose`) when nobody reads any more.

    Attributes:
        position: of its intent in the journal.
    """

    def __init__(
        self,
        serving: Serving,
        call: Call,
        served: Served,
        work: TextWork,
        *,
        pieces: AsyncIterator[Piece | TextEnd],
        first: Piece | TextEnd,
        ticket: Ticket,
    ) -> None:
        self.position = -1
        self._serving = serving
        self._call = call
        self._served = served
        self._work = work
        self._pieces = pieces
        self._first = first
        self._ticket = ticket
        self._nonce = serving.nonce_of(call)
        self._sent = serving.commitment_to(self._nonce)
        self._sent_bytes = 0
        self._is_over = False

    async def parts(self) -> AsyncIterator[bytes]:
        """What is sent, in order; ends after the last part or after an error in its place."""
        gathered = _Gathered(self._work.request)
        frame = self._first
        try:
            while not isinstance(frame, TextEnd):
                gathered.add(frame, keep=False)
                self._call.tokens_out += frame.tokens
                self._serving.demand_still(self._call, self._served)
                yield self._leaving(self._work.part(self._served, frame))
                frame = await anext(self._pieces)
            answer = gathered.answer(frame)
            self._call.tokens_in = answer.prompt_tokens
            self._call.tokens_out = answer.completion_tokens
            last = self._work.last(self._served, answer)
            self._sent.update(last)
            self._call.passage.step(Step.CLEAR)
            position = await self._recorded(None)
            yield last + self._work.tail(f"{self._serving.log_name.decode()}:{position}")
        except StopAsyncIteration:
            yield await self._failed(IntegrityError("answer.form", "the replica sent no end"))
        except KeepError as error:
            if self._is_over:  # the journal failed: nothing more leaves, not even an end
                raise
            yield await self._failed(error)
        finally:
            await self.abandoned()

    async def abandoned(self, *, is_lost: bool = False) -> None:
        """Stop the replica and record that nobody reads, unless all is over; repeatable.

        Args:
            is_lost: the journal does not even take the intent.
        """
        if self._is_over:
            return
        if is_lost:
            self._is_over = True
            self._ticket.leave()
            self._serving.in_flight -= 1
            self._call.passage.step(Step.LOSE)
            await _closed(self._pieces)
            return
        self._call.passage.step(Step.REFUSE)
        self._call.tokens_in = self._call.tokens_in or _asked(self._work)
        await _closed(self._pieces)
        await self._recorded(_gone())

    def _leaving(self, part: bytes) -> bytes:
        self._sent.update(part)
        self._sent_bytes += len(part)
        self._call.passage.step(Step.PART)
        return part

    async def _failed(self, error: KeepError) -> bytes:
        said = self._work.broken(error)
        self._sent.update(said)
        self._call.passage.step(Step.REFUSE)
        await _closed(self._pieces)
        await self._recorded(error)
        return said

    async def _recorded(self, error: KeepError | None) -> int:
        self._is_over = True
        self._ticket.leave(
            tokens=self._call.tokens_in + self._call.tokens_out, size_bytes=self._sent_bytes
        )
        self._serving.in_flight -= 1
        return await self._serving.recorded_as(
            self._call, self._work.body, self._nonce, self._sent.digest(), error
        )


class _Gathered:
    """The pieces of an answer, checked as they come."""

    def __init__(self, request: TextRequest) -> None:
        self._is_embedding = request.kind is TextKind.EMBEDDING
        self._answers = request.answers
        self._texts: list[list[str]] = [[] for _ in range(self._answers)]
        self._chars = 0

    def add(self, piece: Piece, *, keep: bool) -> None:
        """Take a piece.

        Raises:
            IntegrityError: `answer.form`.
        """
        self._chars += len(piece.text)
        is_fitting = 0 <= piece.choice < self._answers and 0 <= piece.tokens <= ANSWER_CHARS_MAX
        if self._is_embedding or not is_fitting or self._chars > ANSWER_CHARS_MAX:
            raise IntegrityError("answer.form", "the replica sent a piece of no text of this call")
        if keep:
            self._texts[piece.choice].append(piece.text)

    def answer(self, end: TextEnd) -> TextAnswer:
        """All of it.

        Raises:
            IntegrityError: `answer.form`.
        """
        texts = 0 if self._is_embedding else self._answers
        vectors = self._answers if self._is_embedding else 0
        if (
            len(end.reasons) != texts
            or not _REASONS.issuperset(end.reasons)
            or len(end.vectors) != vectors
            or min(end.prompt_tokens, end.completion_tokens) < 0
            or len({len(each) for each in end.vectors}) > 1
        ):
            raise IntegrityError("answer.form", "the replica ended another call than this one")
        return TextAnswer(
            tuple("".join(parts) for parts in self._texts[:texts]),
            end.reasons,
            end.prompt_tokens,
            end.completion_tokens,
            tuple(_numbers(each) for each in end.vectors),
            end.is_estimate,
        )


async def _whole(serving: Serving, call: Call, served: Served, work: TextWork) -> Rendered:
    ticket = await _entered(serving, call, served, work)
    sent_bytes = 0
    try:
        serving.demand_still(call, served)
        call.passage.step(Step.JUDGE)
        pieces = serving.replicas.talk(served.name, served.version, encoded_request(work.request))
        gathered = _Gathered(work.request)
        end = None
        try:
            async for frame in pieces:
                if isinstance(frame, TextEnd):
                    end = frame
                    break
                gathered.add(frame, keep=True)
                call.tokens_out += frame.tokens
        finally:
            await _closed(pieces)
        if end is None:
            raise IntegrityError("answer.form", "the replica sent no end")
        answer = gathered.answer(end)
        call.tokens_in, call.tokens_out = answer.prompt_tokens, answer.completion_tokens
        call.passage.step(Step.ANSWER)
        rendered = work.render(served, answer)
        sent_bytes = len(rendered.body)
    except BaseException as error:
        if not isinstance(error, Exception):  # the caller is gone
            call.tokens_in = call.tokens_in or _asked(work)
        raise
    finally:
        ticket.leave(tokens=call.tokens_in + call.tokens_out, size_bytes=sent_bytes)
    call.passage.step(Step.CLEAR)
    return rendered


async def _entered(serving: Serving, call: Call, served: Served, work: TextWork) -> Ticket:
    """Let a text call in, within its limits."""
    demand_slot(serving.in_flight - 1, serving.settings)
    if served.check is not None:
        raise UsageError(
            "schema.kind",
            f"{served.name} is no language model",
            hint=f"call it at /v2/models/{served.name}/infer",
        )
    request = work.request
    return await serving.limits.enter(
        call.principal,
        served.name,
        call.address,
        size_bytes=len(work.body),
        # What may come back, and no fewer tokens than the question has: each is a byte at least.
        tokens=request.max_tokens * request.answers + len(work.body),
    )


def _asked(work: TextWork) -> int:
    """What a question is charged whose end, which counts it, nobody waited for."""
    return -(-len(work.body) // BYTES_PER_TOKEN)


async def _closed(pieces: AsyncIterator[Piece | TextEnd]) -> None:
    close = getattr(pieces, "aclose", None)
    if close is not None:
        await close()


async def _settled(intent: Awaitable[int]) -> None:
    """An intent that nothing follows but a refusal, which will meet the same journal."""
    try:
        await intent
    except UnavailableError:
        return


def _gone() -> KeepError:
    return UnavailableError("client.gone", "the caller was gone before the end")


def _numbers(raw: memoryview) -> tuple[float, ...]:
    if len(raw) % 4 or not 0 < len(raw) <= 4 * VECTOR_NUMBERS_MAX:
        raise IntegrityError("answer.form", "the replica sent a vector of another form")
    numbers = struct.unpack(f"<{len(raw) // 4}f", raw)
    if not all(map(math.isfinite, numbers)):
        raise IntegrityError("answer.finite", "the model's vector is not finite")
    return numbers
