"""The gateway's knobs."""

from __future__ import annotations

from modelkeep.core.record import Record


class GateSettings(Record, frozen=True):
    """Table `[gate]` of modelkeep.toml: bounds of one call and of one connection.

    Attributes:
        body_bytes_max: of one request's body; larger is 413.
        header_bytes_max: of request line and headers together; larger is 431.
        headers_max: header lines of one request; more is 431.
        bodies_bytes_max: of all bodies of HTTP requests that are under way in one gateway; what
            comes above it is 503.
        connections_max: open connections of one gateway; above it the one idle longest is closed,
            or, where none is idle, the new one.
        calls_in_flight_max: calls that are under way or wait in one gateway, over every protocol;
            more are 503. `[queue]` decides long before who waits and who is refused.
        read_timeout_s: from a request's first byte to its last, and for a client that does not
            read its answer.
        idle_timeout_s: between two requests of a connection.
        handshake_timeout_s: for TLS.
        call_timeout_s: from a call's arrival to its answer by a replica; later is 504.
        drain_timeout_s: how long a refused request's rest is read and thrown away, so that the
            client can read the refusal; and how long a stopping gateway waits for calls under way.
        drain_bytes_max: how much of a refused request is read and thrown away.
        tokens_reload_s: how often State is asked whether keys changed.
    """

    body_bytes_max: int = 16 * 1024 * 1024
    header_bytes_max: int = 32 * 1024
    headers_max: int = 100
    bodies_bytes_max: int = 1024 * 1024 * 1024
    connections_max: int = 4096
    calls_in_flight_max: int = 8192
    read_timeout_s: float = 30.0
    idle_timeout_s: float = 75.0
    handshake_timeout_s: float = 10.0
    call_timeout_s: float = 30.0
    drain_timeout_s: float = 10.0
    drain_bytes_max: int = 256 * 1024 * 1024
    tokens_reload_s: float = 0.25
