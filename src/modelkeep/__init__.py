"""Keep AI models safe, private and recoverable while they are being served."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from modelkeep.core.errors import (
    ConfigError,
    IntegrityError,
    KeepError,
    LimitError,
    MissingError,
    RefusedError,
    UnavailableError,
    UsageError,
)

if TYPE_CHECKING:
    from modelkeep.sdk.client import Client
    from modelkeep.sdk.keep import Keep
    from modelkeep.sdk.requirement import require

__version__ = "0.1.0"

__all__ = [
    "Client",
    "ConfigError",
    "IntegrityError",
    "Keep",
    "KeepError",
    "LimitError",
    "MissingError",
    "RefusedError",
    "UnavailableError",
    "UsageError",
    "__version__",
    "require",
]

if not __debug__:
    raise SystemExit("modelkeep: error: refusing to run under python -O (invariants are off)")


def __getattr__(name: str) -> Any:
    """Load the SDK when it is first named, so that `import modelkeep` stays cheap."""
    if name in ("Client", "Keep"):
        from modelkeep import sdk  # noqa: PLC0415

        return getattr(sdk, name)
    if name == "require":
        from modelkeep.sdk import requirement  # noqa: PLC0415

        return getattr(requirement, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
