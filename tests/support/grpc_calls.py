"""V2 calls, written once as JSON would have them, sent over HTTP and over gRPC."""

from __future__ import annotations

import http.client
import json
import ssl
from typing import Any

import grpc
import numpy as np

from modelkeep.gate.schema_tensors import TYPED_BY_DTYPE
from modelkeep.kernels.arrays import NUMPY_BY_DTYPE
from modelkeep.kernels.byte_tensors import joined_elements
from modelkeep.web import open_inference_pb2 as pb

SERVICE = "inference.GRPCInferenceService"
STATUS_BY_HTTP = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    413: "RESOURCE_EXHAUSTED",
    429: "RESOURCE_EXHAUSTED",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


def message(call: dict[str, Any], *, model: str, version: str = "", is_raw: bool = False) -> bytes:
    """A call as protobuf, its values typed or raw."""
    made = pb.ModelInferRequest(model_name=model, model_version=version, id=call.get("id", ""))
    _put(made.parameters, call.get("parameters"))
    for each in call["inputs"]:
        tensor = made.inputs.add(name=each["name"], datatype=each["datatype"], shape=each["shape"])
        _put(tensor.parameters, each.get("parameters"))
        if "data" not in each:
            continue
        if is_raw:
            made.raw_input_contents.append(raw_of(each["datatype"], each["data"]))
        else:
            field = getattr(tensor.contents, TYPED_BY_DTYPE[each["datatype"]])
            is_text = each["datatype"] == "BYTES"
            field.extend([x.encode() for x in each["data"]] if is_text else each["data"])
    for each in call.get("outputs", ()):
        _put(made.outputs.add(name=each["name"]).parameters, each.get("parameters"))
    return bytes(made.SerializeToString())


def raw_of(dtype: str, values: list[Any]) -> bytes:
    """Values as binary tensors have them."""
    if dtype == "BYTES":
        return joined_elements([each.encode() for each in values])
    return np.array(values, NUMPY_BY_DTYPE[dtype]).tobytes()


def _put(parameters: Any, given: dict[str, Any] | None) -> None:
    for name, value in (given or {}).items():
        kinds = {bool: "bool_param", int: "int64_param", str: "string_param", float: "double_param"}
        setattr(parameters[name], kinds[type(value)], value)


class GrpcCaller:
    """A plain gRPC client: bytes in, bytes out."""

    def __init__(self, world: Any, **options: int) -> None:
        self.key = world.key
        self.channel = grpc.secure_channel(
            f"localhost:{world.grpc_port}",
            grpc.ssl_channel_credentials(world.ca),
            options=[("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1),
                     *((f"grpc.{name}", value) for name, value in options.items())],
        )  # fmt: skip

    def ask(
        self, method: str, raw: bytes, *, key: str | None = None, more: Any = (), **wishes: Any
    ):
        """One unary method: its answer and its call; raises grpc.RpcError."""
        key = self.key if key is None else key
        metadata = ((("authorization", f"Bearer {key}"),) if key else ()) + tuple(more)
        path = method if method.startswith("/") else f"/{SERVICE}/{method}"
        ask = self.channel.unary_unary(path)
        return ask.with_call(raw, metadata=metadata, timeout=wishes.pop("timeout", 20), **wishes)

    def refusal(self, method: str, raw: bytes, **more: Any) -> tuple[str, str, str, dict[str, Any]]:
        """Status, code, message and trailing metadata of a call that is refused."""
        try:
            self.ask(method, raw, **more)
        except grpc.RpcError as error:
            trailing = dict(error.trailing_metadata() or ())
            return error.code().name, trailing.get("modelkeep-code", ""), error.details(), trailing
        raise AssertionError("it was answered")

    def stream(self, messages: Any, *, key: str | None = None, **wishes: Any) -> Any:
        """A stream of infer requests: the iterator of its answers."""
        metadata = (("authorization", f"Bearer {self.key if key is None else key}"),)
        ask = self.channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")
        return ask(messages, metadata=metadata, timeout=wishes.pop("timeout", 20), **wishes)

    def close(self) -> None:
        self.channel.close()


class HttpCaller:
    """A plain HTTP client."""

    def __init__(self, world: Any) -> None:
        self.key = world.key
        self.connection = http.client.HTTPSConnection(
            "localhost",
            world.port,
            timeout=20,
            context=ssl.create_default_context(cafile=str(world.ca_path)),
        )

    def ask(
        self, method: str, path: str, body: bytes | None = None, *, key: str | None = None,
        **headers: str,
    ) -> tuple[int, dict[str, str], Any]:  # fmt: skip
        """Status, headers, and the body, parsed where it is JSON."""
        key = self.key if key is None else key
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        given = {**({"authorization": f"Bearer {key}"} if key else {}), **named}
        self.connection.close()  # the server may have, in the meantime
        self.connection.request(method, path, body, given)
        answer = self.connection.getresponse()
        raw = answer.read()
        is_json = answer.headers.get("content-type") == "application/json"
        return answer.status, dict(answer.headers), json.loads(raw) if is_json else raw

    def close(self) -> None:
        self.connection.close()
