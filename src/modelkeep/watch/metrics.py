"""What the gateway counts: definitions as data; the last word of every name is its unit."""

from __future__ import annotations

from enum import StrEnum

from modelkeep.core.record import Record

UNITS = ("total", "seconds", "bytes", "replicas", "connections", "calls")


class MetricKind(StrEnum):
    """How a metric moves."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class MetricDefinition(Record, frozen=True):
    """One metric.

    Attributes:
        name: ends in one of `UNITS`.
        labels: of bounded values only: models, statuses, codes, tenants; never a caller's text.
        buckets: upper bounds of a histogram, in the name's unit.
    """

    name: str
    kind: MetricKind
    meaning: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


# From a cache hit in memory to the default deadline; three a decade are enough for a p99.
LATENCY_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0)
COMMIT_BUCKETS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0)

CALLS = MetricDefinition(
    name="modelkeep_calls_total",
    kind=MetricKind.COUNTER,
    meaning="Authenticated calls, recorded in the journal.",
    labels=("tenant", "model", "version", "status"),
)
CALL_SECONDS = MetricDefinition(
    name="modelkeep_call_seconds",
    kind=MetricKind.HISTOGRAM,
    meaning="From a call's head to its durable record.",
    labels=("model", "version"),
    buckets=LATENCY_BUCKETS_S,
)
REFUSALS = MetricDefinition(
    name="modelkeep_refusals_total",
    kind=MetricKind.COUNTER,
    meaning="Requests refused before authentication, by reason.",
    labels=("reason",),
)
LIMITED_CALLS = MetricDefinition(
    name="modelkeep_limited_calls_total",
    kind=MetricKind.COUNTER,
    meaning="Calls that a limit refused, or that could not be answered in time, by code.",
    labels=("reason",),
)
WAITING_CALLS = MetricDefinition(
    name="modelkeep_waiting_calls",
    kind=MetricKind.GAUGE,
    meaning="Calls that wait for their turn.",
)
JOURNAL_RECORDS = MetricDefinition(
    name="modelkeep_journal_records_total",
    kind=MetricKind.COUNTER,
    meaning="Records made durable.",
)
JOURNAL_COMMIT_SECONDS = MetricDefinition(
    name="modelkeep_journal_commit_seconds",
    kind=MetricKind.HISTOGRAM,
    meaning="One write with its fsync.",
    buckets=COMMIT_BUCKETS_S,
)
READY_REPLICAS = MetricDefinition(
    name="modelkeep_ready_replicas",
    kind=MetricKind.GAUGE,
    meaning="Replicas that have said hello.",
    labels=("model", "version"),
)
RESENT_CALLS = MetricDefinition(
    name="modelkeep_resent_calls_total",
    kind=MetricKind.COUNTER,
    meaning="Calls sent again because their replica was lost.",
)
OPEN_CONNECTIONS = MetricDefinition(
    name="modelkeep_open_connections",
    kind=MetricKind.GAUGE,
    meaning="Connections after the TLS handshake.",
)
IN_FLIGHT_CALLS = MetricDefinition(
    name="modelkeep_in_flight_calls",
    kind=MetricKind.GAUGE,
    meaning="Calls between their head and their record.",
)

SHADOW_CALLS = MetricDefinition(
    name="modelkeep_shadow_calls_total",
    kind=MetricKind.COUNTER,
    meaning="Calls that a shadow was asked too: its answer was the same, close (1e-4), different, "
    "failed, or it was skipped because too many were under way.",
    labels=("model", "version", "outcome"),
)

GATEWAY_METRICS = (
    CALLS,
    CALL_SECONDS,
    REFUSALS,
    LIMITED_CALLS,
    WAITING_CALLS,
    JOURNAL_RECORDS,
    JOURNAL_COMMIT_SECONDS,
    READY_REPLICAS,
    RESENT_CALLS,
    OPEN_CONNECTIONS,
    IN_FLIGHT_CALLS,
    SHADOW_CALLS,
)
