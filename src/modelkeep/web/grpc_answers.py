"""How gRPC reads an infer request and writes its answer; what it says of servers and models.

Field numbers and names are in open_inference.proto. Values come and go as raw bytes, or as typed
fields if the request has them typed.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from google.protobuf.message import DecodeError

from modelkeep.core.errors import UsageError
from modelkeep.flows.call import Rendered, Served
from modelkeep.gate.schema import (
    CheckedCall,
    InferRequest,
    RequestInput,
    RequestOutput,
    SchemaCheck,
)
from modelkeep.gate.schema_tensors import TYPED_BY_DTYPE, Typed, checked_tensors
from modelkeep.kernels.byte_tensors import divided_elements
from modelkeep.kernels.classes import classified
from modelkeep.kernels.wire import BYTES, Tensor, element_count, values_of
from modelkeep.web import open_inference_pb2 as pb
from modelkeep.web.v2_answers import demand_in_time
from modelkeep.web.v2_records import (
    Duration,
    IndexEntry,
    ModelConfig,
    ModelMetadata,
    ModelStatistics,
    ServerMetadata,
)

# Key of `raw_output_contents`: field 6, length-delimited.
_RAW_OUTPUT = b"\x32"
# Marks the last answer to one request of a stream, if its caller wants to know.
_FINAL = "triton_final_response"


class MessageWork:
    """One infer request over gRPC.

    Args:
        body: the serialized message, as received.
        message: the same, parsed.
    """

    __slots__ = ("_began_ns", "_message", "body")

    def __init__(self, body: bytes, message: Any) -> None:
        self.body = body
        self._message = message
        self._began_ns = time.monotonic_ns()

    def read(self, check: SchemaCheck) -> CheckedCall:
        """Check the call."""
        message = self._message
        inputs = message.inputs
        request = InferRequest(
            id=message.id,
            parameters=_parameters(message.parameters),
            inputs=tuple(
                RequestInput(
                    name=each.name,
                    shape=tuple(each.shape),
                    datatype=each.datatype,
                    parameters=_parameters(each.parameters),
                )
                for each in inputs
            ),
            outputs=tuple(
                RequestOutput(name=each.name, parameters=_parameters(each.parameters))
                for each in message.outputs
            ),
        )
        return checked_tensors(
            check, request, message.raw_input_contents, [_typed(each) for each in inputs]
        )

    def render(self, served: Served, checked: CheckedCall, outputs: Sequence[Tensor]) -> Rendered:
        """Write the answer."""
        demand_in_time(checked, self._began_ns)
        found = [
            classified(outputs[each.index], each.classes) if each.classes else outputs[each.index]
            for each in checked.outputs
        ]
        answer = pb.ModelInferResponse(
            model_name=served.name, model_version=str(served.version), id=checked.identifier
        )
        is_raw = bool(self._message.raw_input_contents) or any(
            each.dtype not in TYPED_BY_DTYPE for each in found
        )
        raws: list[bytes | memoryview] = []
        for output in found:
            tensor = answer.outputs.add(name=output.name, datatype=output.dtype, shape=output.shape)
            if is_raw:
                raws += (_RAW_OUTPUT, _varint(len(output.raw)), output.raw)
            else:
                _fill(tensor.contents, output)
        if checked.marks_final:
            answer.parameters[_FINAL].bool_param = True
        head = answer.SerializeToString()
        # Fields may stand in any order, so tensors follow the rest and are copied once.
        return Rendered(b"".join((head, *raws)) if raws else head)


def parsed(kind: Any, raw: bytes) -> Any:
    """Parse a message.

    Raises:
        UsageError: `schema.protobuf`.
    """
    try:
        return kind.FromString(raw)
    except DecodeError:
        raise UsageError(
            "schema.protobuf",
            "the bytes are not the message that this method takes",
            hint="the messages are those of KServe's grpc_predict_v2.proto",
        ) from None


def server_message(metadata: ServerMetadata) -> Any:
    """Who answers."""
    return pb.ServerMetadataResponse(
        name=metadata.name, version=metadata.version, extensions=metadata.extensions
    )


def model_message(metadata: ModelMetadata) -> Any:
    """What a model takes and gives."""
    kind = pb.ModelMetadataResponse.TensorMetadata
    return pb.ModelMetadataResponse(
        name=metadata.name,
        versions=metadata.versions,
        platform=metadata.platform,
        inputs=[kind(name=e.name, datatype=e.datatype, shape=e.shape) for e in metadata.inputs],
        outputs=[kind(name=e.name, datatype=e.datatype, shape=e.shape) for e in metadata.outputs],
    )


def config_message(config: ModelConfig) -> Any:
    """A model as a Triton configuration describes it."""
    policy = pb.ModelVersionPolicy(
        specific=pb.ModelVersionPolicy.Specific(versions=config.version_policy.specific.versions)
    )
    made = pb.ModelConfig(
        name=config.name,
        platform=config.platform,
        backend=config.backend,
        version_policy=policy,
        max_batch_size=config.max_batch_size,
    )
    for tensors, given in ((made.input, config.input), (made.output, config.output)):
        for each in given:
            tensors.add(name=each.name, data_type=_type(each.data_type), dims=each.dims)
    return pb.ModelConfigResponse(config=made)


def statistics_message(found: Sequence[ModelStatistics]) -> Any:
    """What versions were asked."""
    return pb.ModelStatisticsResponse(
        model_stats=[
            pb.ModelStatistics(
                name=each.name,
                version=each.version,
                last_inference=each.last_inference,
                inference_count=each.inference_count,
                execution_count=each.execution_count,
                inference_stats=pb.InferStatistics(
                    **{
                        name: _duration(getattr(each.inference_stats, name))
                        for name in each.inference_stats.__struct_fields__
                    }
                ),
            )
            for each in found
        ]
    )


def index_message(entries: Sequence[IndexEntry]) -> Any:
    """Every version that is listed."""
    kind = pb.RepositoryIndexResponse.ModelIndex
    return pb.RepositoryIndexResponse(
        models=[
            kind(name=each.name, version=each.version, state=each.state, reason=each.reason)
            for each in entries
        ]
    )


def _parameters(given: Any) -> dict[str, Any]:
    if not given:
        return {}
    found = {}
    for name, value in given.items():
        choice = value.WhichOneof("parameter_choice")
        found[name] = getattr(value, choice) if choice is not None else None
    return found


def _typed(tensor: Any) -> Typed | None:
    if not tensor.HasField("contents"):
        return None
    fields = tensor.contents.ListFields()
    if not fields:
        return None
    return Typed(fields[0][0].name if len(fields) == 1 else "", fields[0][1])


def _varint(value: int) -> bytes:
    made = bytearray()
    while value > 0x7F:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    made.append(value)
    return bytes(made)


def _fill(contents: Any, output: Tensor) -> None:
    if output.dtype == BYTES:
        contents.bytes_contents.extend(divided_elements(output.raw, element_count(output.shape)))
    else:
        getattr(contents, TYPED_BY_DTYPE[output.dtype]).extend(values_of(output))


def _type(name: str) -> int:
    # A type that Triton has no name for, such as one of ONNX alone.
    return pb.DataType.Value(name) if name in pb.DataType.keys() else 0  # noqa: SIM118  # no mapping


def _duration(given: Duration) -> Any:
    return pb.StatisticDuration(count=given.count, ns=given.ns)
