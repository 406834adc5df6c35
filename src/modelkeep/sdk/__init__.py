"""Surfaces for programs: `Keep` for the owner, `Client` for callers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modelkeep.sdk.client import Client
    from modelkeep.sdk.keep import Keep

__all__ = ["Client", "Keep"]


def __getattr__(name: str) -> Any:
    """Load a surface when it is first named: a caller does not pay for the owner's side."""
    if name == "Client":
        from modelkeep.sdk.client import Client  # noqa: PLC0415

        return Client
    if name == "Keep":
        from modelkeep.sdk.keep import Keep  # noqa: PLC0415

        return Keep
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
