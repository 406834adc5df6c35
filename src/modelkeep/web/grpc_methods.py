"""Which gRPC method means what, and the way of each through the one passage.

Every method but `ServerLive` and `ServerReady` needs a key, which is looked at before a message is
read. Methods that nobody knows are turned away like unknown paths of HTTP, and everything after
authentication is recorded as there: known -> permitted -> answer -> recorded -> sent. Requests and
answers stay bytes until they are read, because the record commits to exactly them.

A caller that goes away cancels its method and not its call: what was asked is answered and
recorded, or a caller could have answers computed and no record kept.

A stream of `ModelInfer` requests is answered in their order, `STREAM_CALLS_MAX` under way at once;
reading waits meanwhile, so a caller that does not read its answers stops being asked. Each request
is a call of its own, authenticated anew. What is refused is said in its answer, and the stream goes
on; a key that is no good any more ends it.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any
from urllib.parse import unquote

import grpc
from google.protobuf.duration_pb2 import Duration

from modelkeep.core.artifact import is_model_name
from modelkeep.core.errors import KeepError, MissingError, UnavailableError, UsageError
from modelkeep.flows.call import Arrival, Call, Reply, Served
from modelkeep.flows.serve import Serving
from modelkeep.gate.limits import demand_body_within
from modelkeep.gate.passage import Step
from modelkeep.web import open_inference_pb2 as pb
from modelkeep.web.grpc_answers import (
    MessageWork,
    config_message,
    index_message,
    model_message,
    parsed,
    server_message,
    statistics_message,
)
from modelkeep.web.v2 import retry_after_s
from modelkeep.web.v2_records import (
    SERVER,
    IndexRequest,
    Tallies,
    all_statistics,
    config_of,
    index_of,
    metadata_of,
    statistics_of,
)
from modelkeep.web.v2_routes import unsupported

SERVICE = "inference.GRPCInferenceService"
STREAM_CALLS_MAX = 16
# Clients take 8 KiB of trailing metadata; a hint may name every input of a model.
HINT_CHARS_MAX = 1000
# Triton's methods that we do not have; each needs a key and is answered UNIMPLEMENTED.
UNSUPPORTED = (
    "RepositoryModelLoad",
    "RepositoryModelUnload",
    "SystemSharedMemoryStatus",
    "SystemSharedMemoryRegister",
    "SystemSharedMemoryUnregister",
    "CudaSharedMemoryStatus",
    "CudaSharedMemoryRegister",
    "CudaSharedMemoryUnregister",
    "TraceSetting",
    "LogSettings",
)
_Code = grpc.StatusCode
CODE_BY_STATUS = {
    400: _Code.INVALID_ARGUMENT,
    401: _Code.UNAUTHENTICATED,
    403: _Code.PERMISSION_DENIED,
    404: _Code.NOT_FOUND,
    405: _Code.UNIMPLEMENTED,
    408: _Code.DEADLINE_EXCEEDED,
    413: _Code.RESOURCE_EXHAUSTED,
    415: _Code.INVALID_ARGUMENT,
    429: _Code.RESOURCE_EXHAUSTED,
    431: _Code.RESOURCE_EXHAUSTED,
    499: _Code.CANCELLED,
    501: _Code.UNIMPLEMENTED,
    502: _Code.INTERNAL,
    503: _Code.UNAVAILABLE,
    504: _Code.DEADLINE_EXCEEDED,
}
_READ = frozenset({"authorization", "traceparent"})
_EOF = grpc.aio.EOF
_Question = Callable[[Call, bytes], Any]
_Method = Callable[[Any], Awaitable[bytes]]
_Waiting = asyncio.Queue[tuple[Call, asyncio.Task[Reply]] | None]


class Methods(grpc.GenericRpcHandler):  # type: ignore[misc]  # the library has no types
    """The methods of one listener.

    Args:
        tallies: what a version of a model was asked.
        complain: told of our own faults.
    """

    def __init__(
        self,
        serving: Serving,
        *,
        tallies: Tallies,
        complain: Callable[[str], None],
        verifies_clients: bool = False,
    ) -> None:
        self._serving = serving
        self._tallies = tallies
        self._complain = complain
        self._verifies_clients = verifies_clients
        self._under_way: set[asyncio.Task[Reply]] = set()
        self._streams = 0
        self._unknown = _whole(self._turned_away)
        self._methods = {
            f"/{SERVICE}/ServerLive": _whole(self._live),
            f"/{SERVICE}/ServerReady": _whole(self._ready),
            f"/{SERVICE}/ModelInfer": _whole(self._infer),
            f"/{SERVICE}/ModelStreamInfer": grpc.stream_stream_rpc_method_handler(self._stream),
        }
        questions: dict[str, _Question] = {
            "ServerMetadata": lambda _call, _raw: server_message(SERVER),
            "ModelReady": self._model_ready,
            "ModelMetadata": self._model_metadata,
            "ModelConfig": self._model_config,
            "ModelStatistics": self._statistics,
            "RepositoryIndex": self._index,
            **dict.fromkeys(UNSUPPORTED, _unsupported),
        }
        for name, question in questions.items():
            self._methods[f"/{SERVICE}/{name}"] = _whole(self._asked(question))

    def service(self, details: Any) -> Any:
        """Who answers a method; everything is, so that what nobody knows is counted."""
        return self._methods.get(details.method, self._unknown)

    async def finish(self) -> None:
        """Wait until every call is recorded."""
        while self._under_way:
            await asyncio.wait(self._under_way)

    # ---- methods without a key -----------------------------------------------------------------

    async def _live(self, _context: Any) -> bytes:
        return _bytes(pb.ServerLiveResponse(live=True))

    async def _ready(self, _context: Any) -> bytes:
        return _bytes(pb.ServerReadyResponse(ready=self._serving.is_ready()))

    async def _turned_away(self, context: Any) -> bytes:
        error = MissingError(
            "route.missing", "there is no such method", hint=f"the service is {SERVICE}"
        )
        self._serving.turn_away(error, address_of(context.peer()))
        return await _refuse(context, error, "", code=_Code.UNIMPLEMENTED)

    # ---- questions that are no calls of a model ------------------------------------------------

    def _asked(self, question: _Question) -> _Method:
        async def answered(context: Any) -> bytes:
            call = await self._known(context)
            try:
                return _bytes(question(call, await self._message(context)))
            except KeepError as error:
                refusal = self._serving.refuse(call, error)
                return await self._sent(context, call, await self._shielded(refusal, context))

        return answered

    def _model_ready(self, call: Call, raw: bytes) -> Any:
        served = self._named(call, parsed(pb.ModelQuestion, raw))
        return pb.ModelReadyResponse(ready=self._serving.is_model_ready(served))

    def _model_metadata(self, call: Call, raw: bytes) -> Any:
        served = self._named(call, parsed(pb.ModelQuestion, raw))
        return model_message(metadata_of(self._serving, served))

    def _model_config(self, call: Call, raw: bytes) -> Any:
        served = self._named(call, parsed(pb.ModelQuestion, raw))
        return config_message(config_of(self._serving, served))

    def _statistics(self, call: Call, raw: bytes) -> Any:
        question = parsed(pb.ModelQuestion, raw)
        if not question.name:
            found = all_statistics(self._serving, call.principal, self._tallies)
            return statistics_message(found.model_stats)
        served = self._named(call, question)
        tally = self._tallies(served.name, served.version)
        return statistics_message([statistics_of(served, tally)])

    def _index(self, call: Call, raw: bytes) -> Any:
        message = parsed(pb.RepositoryIndexRequest, raw)
        request = IndexRequest(repository_name=message.repository_name, ready=message.ready)
        return index_message(index_of(self._serving, call.principal, request))

    def _named(self, call: Call, question: Any) -> Served:
        return self._permitted(call, question.name, question.version)

    def _permitted(self, call: Call, name: str, version: str) -> Served:
        if not is_model_name(name):  # nor may it stand in a record
            raise MissingError("model.missing", "no such model is served")
        number = None if not version else -1
        if version.isdecimal() and version.isascii() and len(version) <= 9:
            number = int(version)
        return self._serving.permitted(call, name, number)

    # ---- calls ---------------------------------------------------------------------------------

    async def _infer(self, context: Any) -> bytes:
        call = await self._known(context)
        try:
            answer = self._answered(call, await self._message(context))
        except KeepError as error:
            answer = self._serving.refuse(call, error)
        return await self._sent(context, call, await self._shielded(answer, context))

    async def _message(self, context: Any) -> bytes:
        """The one message of a method, in time."""
        try:
            async with asyncio.timeout(self._serving.settings.read_timeout_s):
                raw = await context.read()
        except TimeoutError:
            raise UsageError("limit.time", "the message did not arrive in time") from None
        if raw is _EOF:
            raise UsageError("schema.protobuf", "there is no message")
        return bytes(raw)

    async def _answered(self, call: Call, raw: bytes) -> Reply:
        serving = self._serving
        try:
            demand_body_within(len(raw), serving.settings)
            message = parsed(pb.ModelInferRequest, raw)
            served = self._permitted(call, message.model_name, message.model_version)
        except KeepError as error:
            return await serving.refuse(call, error)
        return await serving.answer(call, served, MessageWork(raw, message))

    async def _shielded(self, coroutine: Coroutine[Any, Any, Reply], context: Any) -> Reply:
        """Take a call to its record, whether or not its caller waits."""
        task = self._begun(coroutine)
        try:
            return await asyncio.shield(task)
        except KeepError as lost:  # the journal failed: nothing of the answer leaves
            await _refuse(context, lost, "")
            raise AssertionError("unreachable") from lost
        except Exception as fault:
            self._complain(f"{type(fault).__name__}: {fault}")
            await context.abort(_Code.INTERNAL, "internal error")
            raise

    def _begun(self, coroutine: Coroutine[Any, Any, Reply]) -> asyncio.Task[Reply]:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._under_way.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Reply]) -> None:
        self._under_way.discard(task)
        _looked_at(task)

    async def _sent(self, context: Any, call: Call, reply: Reply) -> bytes:
        """Hand an answer out; the table stops it here if its record is not durable."""
        call.passage.step(Step.SEND)
        receipt = self._receipt(reply)
        if reply.error is not None:
            return await _refuse(context, reply.error, receipt)
        assert reply.rendered is not None
        context.set_trailing_metadata((("modelkeep-receipt", receipt),))
        return reply.rendered.body

    # ---- streams -------------------------------------------------------------------------------

    async def _stream(self, _requests: Any, context: Any) -> None:
        await self._known(context)
        settings = self._serving.settings
        if self._streams >= -(-settings.calls_in_flight_max // 2):
            busy = UnavailableError(
                "gate.busy", "too many streams are open", hint="try again later"
            )
            await _refuse(context, busy, "")
        waiting: _Waiting = asyncio.Queue(STREAM_CALLS_MAX)
        self._streams += 1
        task = asyncio.current_task()
        assert task is not None
        writer = asyncio.get_running_loop().create_task(self._write(context, waiting, task))
        writer.add_done_callback(_looked_at)
        try:
            while (
                raw := await _within(settings.idle_timeout_s, context.read, context)
            ) is not _EOF:
                call = await self._known(context)
                await waiting.put((call, self._begun(self._answered(call, raw))))
            await waiting.put(None)
            await writer
        finally:
            self._streams -= 1
            writer.cancel()

    async def _write(self, context: Any, waiting: _Waiting, reader: asyncio.Task[Any]) -> None:
        settings = self._serving.settings
        try:
            while (next_one := await waiting.get()) is not None:
                answer = await self._part(*next_one)
                await _within(settings.read_timeout_s, partial(context.write, answer), context)
        except BaseException:
            reader.cancel()  # nobody reads what it asks for
            raise

    async def _part(self, call: Call, task: asyncio.Task[Reply]) -> bytes:
        try:
            reply = await asyncio.shield(task)
        except KeepError as lost:
            return _bytes(pb.ModelStreamInferResponse(error_message=_said(lost)))
        except Exception as fault:  # noqa: BLE001  # the process boundary of one request
            self._complain(f"{type(fault).__name__}: {fault}")
            return _bytes(pb.ModelStreamInferResponse(error_message="internal error"))
        call.passage.step(Step.SEND)
        answer = pb.ModelStreamInferResponse(modelkeep_receipt=self._receipt(reply))
        if reply.error is not None:
            answer.error_message = _said(reply.error)
        else:
            assert reply.rendered is not None
            answer.infer_response = reply.rendered.body
        return _bytes(answer)

    # ---- who calls -----------------------------------------------------------------------------

    async def _known(self, context: Any) -> Call:
        address = address_of(context.peer())
        try:
            found = _headers(context)
            certificate = _certificate(context) if self._verifies_clients else b""
            return self._serving.known(
                Arrival(
                    found.get("authorization"), address, certificate, found.get("traceparent", b"")
                )
            )
        except KeepError as error:
            self._serving.turn_away(error, address)
            await _refuse(context, error, "")
            raise AssertionError("unreachable") from error

    def _receipt(self, reply: Reply) -> str:
        return f"{self._serving.log_name.decode()}:{reply.position}" if reply.position >= 0 else ""


def address_of(peer: str) -> str:
    """The address in a peer as gRPC writes it: `ipv4:1.2.3.4:5`, `ipv6:%5B::1%5D:5`."""
    kind, _, rest = peer.partition(":")
    if kind not in ("ipv4", "ipv6"):
        return ""
    return unquote(rest.rpartition(":")[0]).strip("[]")


def _headers(context: Any) -> dict[str, bytes]:
    """Those that we read; a second one of them would be read by others differently."""
    found: dict[str, bytes] = {}
    for name, value in context.invocation_metadata():
        if name in _READ:
            if name in found:
                raise UsageError("http.header", f"the header {name} stands twice")
            found[name] = value.encode()
    return found


def _certificate(context: Any) -> bytes:
    """The client's certificate, which the handshake verified."""
    pems = context.auth_context().get("x509_pem_cert", ())
    return ssl.PEM_cert_to_DER_cert(pems[0].decode("ascii").strip()) if pems else b""


async def _refuse(
    context: Any, error: KeepError, receipt: str, *, code: grpc.StatusCode | None = None
) -> bytes:
    """End a method with an error: its message; code, hint and receipt in trailing metadata."""
    status = error.http_status
    code = code or CODE_BY_STATUS.get(status, _Code.INTERNAL)
    trailing: list[tuple[str, str | bytes]] = [("modelkeep-code", error.code)]
    if receipt:
        trailing.append(("modelkeep-receipt", receipt))
    if error.hint:
        trailing.append(("modelkeep-hint-bin", error.hint[:HINT_CHARS_MAX].encode()))
    if status in (429, 503):
        delay_s = retry_after_s(error)
        details = pb.Status(code=code.value[0], message=error.message)
        any_one = details.details.add(type_url="type.googleapis.com/google.rpc.RetryInfo")
        any_one.value = _bytes(pb.RetryInfo(retry_delay=Duration(seconds=delay_s)))
        trailing += [("retry-after", str(delay_s)), ("grpc-status-details-bin", _bytes(details))]
    await context.abort(code, error.message, tuple(trailing))
    raise AssertionError("unreachable")


async def _within(seconds: float, step: Callable[[], Awaitable[Any]], context: Any) -> Any:
    try:
        async with asyncio.timeout(seconds):
            return await step()
    except TimeoutError:
        late = UsageError("limit.time", "the other side of the stream is silent for too long")
        return await _refuse(context, late, "")


def _looked_at(task: asyncio.Task[Any]) -> None:
    """Take note of how a task ended: whoever waited for it was told."""
    if not task.cancelled():
        task.exception()


def _unsupported(_call: Call, _raw: bytes) -> Any:
    raise unsupported()


def _said(error: KeepError) -> str:
    """An error in one line: a stream's answer has one field for it."""
    return f"{error.message}; {error.hint} [{error.code}]" if error.hint else str(error)


def _whole(method: _Method) -> Any:
    """A method with one message each way.

    It is told to gRPC as one that reads a stream: so it begins when the headers are there, and who
    may not call it is refused before the message is read, which we then wait for no longer than
    we want.
    """

    async def begun(_requests: Any, context: Any) -> bytes:
        return await method(context)

    return grpc.stream_unary_rpc_method_handler(begun)


def _bytes(message: Any) -> bytes:
    return bytes(message.SerializeToString())
