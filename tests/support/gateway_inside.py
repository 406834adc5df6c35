"""Both listeners of a gateway inside the test's process, over real models, journal and TLS.

What is left out is other processes: models run on ONNX Runtime in this one. So a test of protocols
starts in a tenth of a second, and can look at what the passage did.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import uvloop
from gateway_world import certificate
from onnx import TensorProto, helper

from modelkeep.adapters.call_journal import CallJournal
from modelkeep.adapters.disk import RealDisk
from modelkeep.adapters.journal_file import JournalFile
from modelkeep.adapters.metrics_prometheus import CONTENT_TYPE, GatewayMeters
from modelkeep.adapters.system import SystemClock, SystemEntropy
from modelkeep.adapters.tls import server_context
from modelkeep.core.artifact import Port, Schema
from modelkeep.core.call_record import decoded_record
from modelkeep.flows.call import Served
from modelkeep.flows.serve import Serving
from modelkeep.gate.authn import Keyring, new_token
from modelkeep.gate.rule_settings import InputRule
from modelkeep.gate.schema import SchemaCheck
from modelkeep.gate.settings import GateSettings
from modelkeep.gate.traffic import ModelTable
from modelkeep.kernels.replica_frames import AnswerFrame
from modelkeep.kernels.wire import Tensor, array_of, tensor_of
from modelkeep.web.grpc_server import GrpcServer, GrpcTls, tls_of_pem
from modelkeep.web.openai import OpenaiApplication
from modelkeep.web.openapi import OpenApiApplication
from modelkeep.web.openapi_text import text_operations
from modelkeep.web.router import Router
from modelkeep.web.server import Server
from modelkeep.web.v2 import V2Application

_ONNX_BY_DTYPE = {
    "FP32": TensorProto.FLOAT,
    "FP16": TensorProto.FLOAT16,
    "FP64": TensorProto.DOUBLE,
    "INT64": TensorProto.INT64,
    "INT32": TensorProto.INT32,
    "INT8": TensorProto.INT8,
    "UINT8": TensorProto.UINT8,
    "UINT64": TensorProto.UINT64,
    "BOOL": TensorProto.BOOL,
    "BYTES": TensorProto.STRING,
}
ECHOED = tuple(_ONNX_BY_DTYPE)


def doubling() -> tuple[bytes, Schema]:
    """Doubles numbers: `x` of (-1, 4) in, `y` and the index of the largest, `best`, out."""
    ports = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 4]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 4]),
        helper.make_tensor_value_info("best", TensorProto.INT64, [None]),
    ]
    nodes = [
        helper.make_node("Add", ["x", "x"], ["y"]),
        helper.make_node("ArgMax", ["x"], ["best"], axis=1, keepdims=0),
    ]
    schema = Schema(
        inputs=(Port(name="x", dtype="FP32", shape=(-1, 4)),),
        outputs=(
            Port(name="y", dtype="FP32", shape=(-1, 4)),
            Port(name="best", dtype="INT64", shape=(-1,)),
        ),
    )
    return _made(nodes, ports[:1], ports[1:]), schema


def echo(dtypes: Sequence[str] = ECHOED) -> tuple[bytes, Schema]:
    """Gives back what it gets: `in-T` of (-1, 2) in, `out-T` out, for each element type."""
    sides: dict[str, list[Any]] = {"in": [], "out": []}
    ports: dict[str, list[Port]] = {"in": [], "out": []}
    for dtype in dtypes:
        for side, values in sides.items():
            name = f"{side}-{dtype}"
            values.append(helper.make_tensor_value_info(name, _ONNX_BY_DTYPE[dtype], [None, 2]))
            ports[side].append(Port(name=name, dtype=dtype, shape=(-1, 2)))
    nodes = [helper.make_node("Identity", [f"in-{each}"], [f"out-{each}"]) for each in dtypes]
    schema = Schema(inputs=tuple(ports["in"]), outputs=tuple(ports["out"]))
    return _made(nodes, sides["in"], sides["out"]), schema


def _made(nodes: Any, inputs: Any, outputs: Any) -> bytes:
    graph = helper.make_graph(nodes, "small", inputs, outputs)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(made.SerializeToString())


class RuntimeHere:
    """ONNX Runtime in this process, as what computes answers.

    Attributes:
        delay_s: how long an answer takes beyond computing it.
        asked: how many calls came this far.
    """

    def __init__(self) -> None:
        self.delay_s = 0.0
        self.asked = 0
        self._models: dict[tuple[str, int], tuple[Any, Schema]] = {}

    def add(self, name: str, version: int, model: bytes, schema: Schema) -> None:
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        self._models[name, version] = (session, schema)

    async def ask(
        self, model: str, version: int, inputs: Sequence[Tensor], **_wishes: Any
    ) -> AnswerFrame:
        self.asked += 1
        session, schema = self._models[model, version]
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        names = [port.name for port in schema.outputs]
        arrays = session.run(names, {each.name: array_of(each) for each in inputs})
        found = [
            tensor_of(port.name, port.dtype, np.asarray(array))
            for port, array in zip(schema.outputs, arrays, strict=True)
        ]
        return AnswerFrame(
            self.asked,
            tuple(each.shape for each in found),
            tuple(memoryview(each.raw) for each in found),
        )

    def ready_count(self, model: str, version: int) -> int:
        return int((model, version) in self._models)


class Inside:
    """A running gateway; `stop` ends it."""

    def __init__(self, folder: Path, settings: GateSettings | None = None) -> None:
        self.folder = folder
        self.settings = settings or GateSettings()
        self.runtime = RuntimeHere()
        self.complaints: list[str] = []
        self.ca, self.chain = certificate()
        self.ca_path = folder / "ca.pem"
        self.ca_path.write_bytes(self.ca)
        drawn = {
            principal: new_token(SystemEntropy(), principal=principal, scopes=scopes)
            for principal, scopes in (
                ("caller", ("infer:*",)),
                ("other", ("infer:other",)),
                ("scraper", ("metrics",)),
                ("both", ("infer:*", "metrics")),
            )
        }
        self.keys = {name: key.reveal().decode() for name, (key, _) in drawn.items()}
        self._tokens = [token for _, token in drawn.values()]
        self.key = self.keys["caller"]
        self.serving: Serving = None  # type: ignore[assignment]  # made by the loop's thread
        self.grpc: GrpcServer = None  # type: ignore[assignment]  # the same
        self._ready = threading.Event()
        self._ends: asyncio.Event | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="gateway", daemon=True)

    def start(self) -> Inside:
        self._thread.start()
        self._ready.wait(20)
        if self._failure is not None:
            raise self._failure
        return self

    def stop(self) -> None:
        if self.loop is not None and self._ends is not None:
            self.loop.call_soon_threadsafe(self._ends.set)
        self._thread.join(20)
        if self._failure is not None:
            raise self._failure

    def on_loop(self, function: Any) -> None:
        """Run something where the gateway runs."""
        assert self.loop is not None
        self.loop.call_soon_threadsafe(function)

    def revoke_all(self) -> None:
        """No key is good any more."""
        self.on_loop(lambda: setattr(self.serving, "keyring", Keyring(())))

    def let_in(self) -> None:
        """The keys are good again."""
        self.on_loop(lambda: setattr(self.serving, "keyring", Keyring(self._tokens)))

    def listening(self, tls: GrpcTls) -> tuple[GrpcServer, int]:
        """Another gRPC listener of the same gateway, and its port."""
        assert self.loop is not None

        async def made() -> tuple[GrpcServer, int]:
            server = GrpcServer(
                self.serving, self.settings, tallies=self.tallies, complain=self.complaints.append
            )
            return server, await server.start("127.0.0.1", 0, tls)

        return asyncio.run_coroutine_threadsafe(made(), self.loop).result(10)

    def ended(self, server: GrpcServer) -> None:
        """End it."""
        assert self.loop is not None
        asyncio.run_coroutine_threadsafe(server.stop(1.0), self.loop).result(10)

    def records(self) -> dict[int, Any]:
        """What the journal holds by now."""
        journal = JournalFile(RealDisk(), self.folder / "calls", writable=False)
        with contextlib.closing(journal):
            return {position: decoded_record(raw) for position, raw in journal.read(0)}

    def _run(self) -> None:
        try:
            uvloop.run(self._serve())
        except BaseException as failure:  # noqa: BLE001  # told to the test
            self._failure = failure
        finally:
            self._ready.set()

    def _tls(self) -> ssl.SSLContext:
        path = self.folder / "server.pem"
        path.write_bytes(self.chain)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context

    async def _serve(self) -> None:
        self.loop, self._ends = asyncio.get_running_loop(), asyncio.Event()
        folder = self.folder / "calls"
        folder.mkdir(exist_ok=True)
        journal = CallJournal(JournalFile(RealDisk(), folder, writable=True), name="gateway-0")
        meters = GatewayMeters()
        self.tallies = meters.tally
        served = []
        for name, (model, schema) in {"doubling": doubling(), "echo": echo()}.items():
            self.runtime.add(name, 1, model, schema)
            # Twice the largest number is none that JSON can say.
            rules = (InputRule(model="*", input="x", min=-1e6, max=1e6),)
            served.append(Served(name, 1, SchemaCheck(schema, rules)))
        self.serving = Serving(
            table=ModelTable(served, {"doubling": 1, "echo": 1}),
            replicas=self.runtime,  # type: ignore[arg-type]  # it talks no text
            log=journal,
            meters=meters,
            settings=self.settings,
            clock=SystemClock(),
            entropy=SystemEntropy(),
            commitment_key=bytes(32),
        )
        self.serving.keyring = Keyring(self._tokens)
        v2 = V2Application(
            self.serving,
            tallies=meters.tally,
            exposition=meters.exposition,
            metrics_type=CONTENT_TYPE,
        )
        application = Router(
            {
                b"/openapi.json": OpenApiApplication(self.serving, text_operations()),
                b"/v1/": OpenaiApplication(self.serving),
            },
            v2,
        )
        server = Server(application, self.settings, complain=self.complaints.append)
        listening = socket.socket()
        listening.bind(("127.0.0.1", 0))
        listening.listen(256)
        self.port = listening.getsockname()[1]
        await server.start(listening, server_context(self.chain))
        self.grpc = GrpcServer(
            self.serving, self.settings, tallies=meters.tally, complain=self.complaints.append
        )
        self.grpc_port = await self.grpc.start("127.0.0.1", 0, tls_of_pem(self.chain))
        self._ready.set()
        await self._ends.wait()
        self.serving.is_stopping = True
        await self.grpc.stop(1.0)
        await server.stop()
        await self.serving.summarise()
        await journal.close()
