"""What V2 says of a server and its models, as records: HTTP writes them as JSON, gRPC as messages.

Names and shapes are those of the Open Inference Protocol and of Triton's extensions for
configuration, statistics and the repository's index. A field that we could only guess is left out,
or zero where a client demands it.
"""

from __future__ import annotations

from collections.abc import Callable

from modelkeep import __version__
from modelkeep.core.artifact import Port
from modelkeep.core.principal import Principal
from modelkeep.core.record import Record
from modelkeep.flows.call import Served
from modelkeep.flows.serve import Serving
from modelkeep.watch.tally import Tally

EXTENSIONS = ("binary_tensor_data", "classification", "model_configuration", "statistics")
READY, UNAVAILABLE = "READY", "UNAVAILABLE"
# What Triton calls the kind of a model: runtime and format.
PLATFORM, BACKEND = "onnxruntime_onnx", "onnxruntime"

Tallies = Callable[[str, int], Tally]


class Live(Record, frozen=True):
    """Whether the process answers."""

    live: bool


class Ready(Record, frozen=True):
    """Whether every model has a replica, and keys are known."""

    ready: bool


class ModelReady(Record, frozen=True):
    """Whether one model has a replica."""

    name: str
    ready: bool


class ServerMetadata(Record, frozen=True):
    """Who answers, and what beyond the protocol's core it knows."""

    name: str
    version: str
    extensions: tuple[str, ...]


class TensorMetadata(Record, frozen=True):
    """One input or output; -1 in the shape is a free dimension."""

    name: str
    datatype: str
    shape: tuple[int, ...]


class ModelMetadata(Record, frozen=True):
    """What a model takes and gives."""

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[TensorMetadata, ...]
    outputs: tuple[TensorMetadata, ...]


class ConfigTensor(Record, frozen=True):
    """One input or output as a Triton configuration writes it."""

    name: str
    data_type: str
    dims: tuple[int, ...]


class SpecificVersions(Record, frozen=True):
    """The versions that are served."""

    versions: tuple[int, ...]


class VersionPolicy(Record, frozen=True):
    """Which versions are served: those that are listed."""

    specific: SpecificVersions


class ModelConfig(Record, frozen=True):
    """A model as a Triton configuration describes it.

    Attributes:
        max_batch_size: 0: the shapes say everything, the free first dimension included.
    """

    name: str
    platform: str
    backend: str
    version_policy: VersionPolicy
    max_batch_size: int
    input: tuple[ConfigTensor, ...]
    output: tuple[ConfigTensor, ...]


class Duration(Record, frozen=True):
    """How often, and how long in all."""

    count: int = 0
    ns: int = 0


class InferStatistics(Record, frozen=True):
    """Durations by what happened; what we do not measure apart is zero."""

    success: Duration
    fail: Duration
    queue: Duration = Duration()
    compute_input: Duration = Duration()
    compute_infer: Duration = Duration()
    compute_output: Duration = Duration()
    cache_hit: Duration = Duration()
    cache_miss: Duration = Duration()


class ModelStatistics(Record, frozen=True):
    """What one version was asked, at the gateway process that says so.

    Attributes:
        last_inference: milliseconds since the Unix epoch; 0 for never.
    """

    name: str
    version: str
    last_inference: int
    inference_count: int
    execution_count: int
    inference_stats: InferStatistics
    batch_stats: tuple[Duration, ...] = ()


class Statistics(Record, frozen=True):
    """Of one version, of one model, or of all that the caller may use."""

    model_stats: tuple[ModelStatistics, ...]


class IndexRequest(Record, frozen=True):
    """Which models to list.

    Attributes:
        repository_name: empty: there is one repository, without a name.
        ready: only those that are ready.
    """

    repository_name: str = ""
    ready: bool = False


class IndexEntry(Record, frozen=True):
    """One version of one model."""

    name: str
    version: str
    state: str
    reason: str


class ErrorBody(Record, frozen=True, omit_defaults=True):
    """V2's error, with a stable code and the remedy beside it."""

    error: str
    code: str
    hint: str = ""


SERVER = ServerMetadata(name="modelkeep", version=__version__, extensions=EXTENSIONS)


def metadata_of(serving: Serving, served: Served) -> ModelMetadata:
    """What a model takes and gives."""
    inputs, outputs = _ports(served)
    return ModelMetadata(
        name=served.name,
        versions=tuple(str(each) for each in serving.versions_of(served.name)),
        platform=PLATFORM if served.check is not None else "",
        inputs=tuple(_tensor(port) for port in inputs),
        outputs=tuple(_tensor(port) for port in outputs),
    )


def config_of(serving: Serving, served: Served) -> ModelConfig:
    """A model as a Triton configuration describes it."""
    inputs, outputs = _ports(served)
    is_tensor = served.check is not None
    return ModelConfig(
        name=served.name,
        platform=PLATFORM if is_tensor else "",
        backend=BACKEND if is_tensor else "",
        version_policy=VersionPolicy(
            specific=SpecificVersions(versions=serving.versions_of(served.name))
        ),
        max_batch_size=0,
        input=tuple(_config_tensor(port) for port in inputs),
        output=tuple(_config_tensor(port) for port in outputs),
    )


def statistics_of(served: Served, tally: Tally) -> ModelStatistics:
    """What one version was asked."""
    return ModelStatistics(
        name=served.name,
        version=str(served.version),
        last_inference=tally.last_ms,
        inference_count=tally.success_count,
        execution_count=tally.success_count,
        inference_stats=InferStatistics(
            success=Duration(count=tally.success_count, ns=tally.success_ns),
            fail=Duration(count=tally.fail_count, ns=tally.fail_ns),
        ),
    )


def all_statistics(serving: Serving, principal: Principal, tallies: Tallies) -> Statistics:
    """What every version was asked that the principal may use."""
    found = _visible(serving, principal)
    return Statistics(
        model_stats=tuple(
            statistics_of(served, tallies(served.name, served.version)) for served in found
        )
    )


def index_of(
    serving: Serving, principal: Principal, request: IndexRequest
) -> tuple[IndexEntry, ...]:
    """Every version that the principal may use; none in a repository that is not there."""
    if request.repository_name:
        return ()
    found = []
    for served in _visible(serving, principal):
        is_ready = serving.is_model_ready(served)
        if is_ready or not request.ready:
            found.append(
                IndexEntry(
                    name=served.name,
                    version=str(served.version),
                    state=READY if is_ready else UNAVAILABLE,
                    reason="" if is_ready else "no replica is ready",
                )
            )
    return tuple(found)


def _visible(serving: Serving, principal: Principal) -> list[Served]:
    names = {served.name for served in serving.visible_to(principal)}
    found = [served for served in serving.table if served.name in names]
    return sorted(found, key=lambda served: (served.name, served.version))


def _ports(served: Served) -> tuple[tuple[Port, ...], tuple[Port, ...]]:
    if served.check is None:  # a language model: texts are no tensors
        return (), ()
    return served.check.schema.inputs, served.check.schema.outputs


def _tensor(port: Port) -> TensorMetadata:
    return TensorMetadata(name=port.name, datatype=port.dtype, shape=port.shape)


def _config_tensor(port: Port) -> ConfigTensor:
    kind = "STRING" if port.dtype == "BYTES" else port.dtype
    return ConfigTensor(name=port.name, data_type=f"TYPE_{kind}", dims=port.shape)
