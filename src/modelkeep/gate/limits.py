"""Bounds of one call: how large it may be, and how many may be under way."""

from __future__ import annotations

from modelkeep.core.errors import LimitError, UnavailableError
from modelkeep.gate.settings import GateSettings


def demand_body_within(size_bytes: int, settings: GateSettings) -> None:
    """Refuse a body that is, or says it will be, too large.

    Raises:
        LimitError: `limit.body`.
    """
    if size_bytes > settings.body_bytes_max:
        raise LimitError(
            "limit.body",
            f"the body is larger than {settings.body_bytes_max} bytes",
            hint="send fewer rows per call, or binary tensors instead of JSON",
            bytes_max=settings.body_bytes_max,
        )


def demand_head_within(size_bytes: int, settings: GateSettings) -> None:
    """Refuse a request line and headers that are too large together.

    Raises:
        LimitError: `limit.header`.
    """
    if size_bytes > settings.header_bytes_max:
        raise LimitError(
            "limit.header",
            f"request line and headers are larger than {settings.header_bytes_max} bytes",
            bytes_max=settings.header_bytes_max,
        )


def demand_slot(in_flight: int, settings: GateSettings) -> None:
    """Refuse a call when as many as are allowed are under way.

    Raises:
        UnavailableError: `gate.busy`.
    """
    if in_flight >= settings.calls_in_flight_max:
        raise UnavailableError(
            "gate.busy",
            "too many calls are under way",
            hint="try again after a second",
            in_flight=in_flight,
        )
